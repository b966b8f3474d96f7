"""What an experiment is: data split, network, strategies, seeds; read from a JSON file."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from federated_orchestra import ModelConfig
from orchestra_strategy.config import FrozenConfig, parse_config
from orchestra_strategy.errors import DataError, did_you_mean
from orchestra_strategy.files import parse_json

__all__ = ["PRESETS", "Experiment", "load_experiment"]

_FOLDER = Path(__file__).parent / "presets"

PRESETS = tuple(sorted(path.stem for path in _FOLDER.glob("*.json")))
"""Names of the experiments that come with the package."""


class Experiment(FrozenConfig):
    """One experiment: every strategy with every seed on the same splits.

    Attributes:
        parties: PYU devices.
        users_per_party: Above 1, each party hosts that many virtual users.
        samples_per_user: Training images of each user, all users alike.
        alpha: Concentration of the users' class mixtures (Dirichlet).
        bank_size: Labelled images, as many of each class, that no party has: probes learn on them.
        test_size: Test images; None is all.
        held_out: Measure on training images that nobody else has, and not on the test set: what
            is chosen by accuracy is chosen there.
        rounds: Federated rounds.
        eval_every: Rounds between two evaluations.
        seeds: Root seeds; each gives a split, an initial network and all random streams.
        strategies: Registered names, and ``supervised`` for SecretFlow's ``fed_avg_w`` with labels.
            ``name+secure`` is a strategy on route ``secure``, through a PlainAggregator.
        model: The network.
        parameters: Strategy parameters common to all.
        only_for: Parameters by strategy.
        supervised: Options of the supervised reference: ``lr`` and the like.
        mode: SecretFlow in this process, or on a local Ray.
        num_gpus: GPUs per party.
        probes: Which protocols run at the end, beside kNN and the linear probe.
        note: What a reader of the report must know first.
    """

    parties: int = Field(10, ge=2)
    users_per_party: int = Field(1, ge=1)
    samples_per_user: int = Field(500, ge=8)
    alpha: float = Field(0.1, gt=0)
    bank_size: int = Field(5000, ge=10)
    test_size: int | None = Field(None, ge=10)
    held_out: bool = False
    rounds: int = Field(10, ge=1)
    eval_every: int = Field(5, ge=1)
    seeds: list[int] = Field(default_factory=lambda: [0, 1, 2], min_length=1)
    strategies: list[str] = Field(default_factory=lambda: ["orchestra"], min_length=1)
    model: ModelConfig = Field(default_factory=ModelConfig)
    parameters: dict[str, Any] = Field(default_factory=dict)
    only_for: dict[str, dict[str, Any]] = Field(default_factory=dict)
    supervised: dict[str, Any] = Field(default_factory=dict)
    mode: Literal["debug", "local"] = "debug"
    num_gpus: int = Field(0, ge=0)
    probes: list[Literal["sgd", "semi_supervised"]] = Field(default_factory=list)
    note: str = ""

    @field_validator("strategies")
    @classmethod
    def _routes_exist(cls, strategies: list[str]) -> list[str]:
        for strategy in strategies:
            _, plus, route = strategy.partition("+")
            if plus and route != "secure":
                raise ValueError(
                    f"Expected `strategies` to hold names or `name+secure`, got {strategy!r}"
                )
        return strategies


def load_experiment(preset_or_path: str, overrides: dict[str, Any] | None = None) -> Experiment:
    """Read a preset by name, or a file.

    Args:
        preset_or_path: One of :data:`PRESETS`, or the path of a JSON file with the same fields.
        overrides: Fields that replace the file's.

    Raises:
        DataError: There is no such preset or file, or it is no JSON.
        ParameterError: A field is unknown or out of range.
    """
    path = Path(preset_or_path)
    if preset_or_path in PRESETS:
        path = _FOLDER / f"{preset_or_path}.json"
    if not path.is_file():
        raise DataError(
            f"Expected `config` to be a preset or a JSON file, got {preset_or_path!r}: "
            f"{did_you_mean(preset_or_path, PRESETS)}."
        )
    try:
        fields = parse_json(path.read_bytes())
    except ValueError as error:
        raise DataError(f"Expected `config` to be JSON, got {path}: {error}.") from None
    if not isinstance(fields, dict):
        raise DataError(f"Expected `config` to hold an object, got {type(fields).__name__}.")
    return parse_config(Experiment, {**fields, **(overrides or {})})
