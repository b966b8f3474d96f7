"""The settings that decide a training's numbers: a resumed run must have the same."""

from collections.abc import Mapping
from typing import Any

from orchestra_strategy.checkpoints.file import plain
from orchestra_strategy.errors import CheckpointError

__all__ = ["numbers_settings", "refuse_other_settings"]

# A training may go on with another value of these: they say when it ends, and what is shown.
_FREE = (
    *("max_epsilon", "stop_on_collapse", "predict_output", "party"),
    *("parties", "ring_parties", "ring_limit"),
    *("on_bad_reply", "min_parties"),  # they say when a round is given up
)


def numbers_settings(
    strategy: str,
    seed: int,
    model: Mapping[str, Any],
    parameters: Mapping[str, Any],
    parties: list[str],
    aggregator: Any,
) -> dict[str, Any]:
    """Return the settings by name, as tensors and plain values.

    Args:
        strategy: Its registered name.
        seed: The root seed.
        model: The network's options.
        parameters: All of the strategy's, those left at their defaults included.
        parties: In the order of the devices.
        aggregator: SecretFlow's, or None.

    Raises:
        CheckpointError: A value is of a type that a file cannot hold.
    """
    kept = {name: value for name, value in parameters.items() if name not in _FREE}
    if kept.get("noise_seed") is not None:  # this file is the driver's, who must not know it
        kept["noise_seed"] = "given"
    settings: dict[str, Any] = plain(
        {
            "strategy": strategy,
            "seed": seed,
            "parties": parties,
            "aggregator": None if aggregator is None else type(aggregator).__name__,
            "model": dict(model),
            "parameters": kept,
        },
        "settings",
    )
    return settings


def refuse_other_settings(
    kept: Mapping[str, Any], given: Mapping[str, Any], where: str = ""
) -> None:
    """Refuse settings that differ from those of a checkpoint; the first difference is named.

    Raises:
        CheckpointError: They differ.

    >>> refuse_other_settings({"lr": 0.1}, {"lr": 0.1})
    """
    for name in [*given, *(n for n in kept if n not in given)]:
        ours, theirs = given.get(name), kept.get(name)
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping) and not where:
            refuse_other_settings(theirs, ours, f"{name}.")
        elif name not in given or name not in kept or ours != theirs:
            raise CheckpointError(
                f"Expected `{where}{name}` to be that of the checkpoint, {theirs!r}, got {ours!r}: "
                "a resumed training is the same training. Set it back, or start anew in another "
                "`checkpoint_dir`."
            )
