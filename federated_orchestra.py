"""Train one encoder over several parties' unlabelled data, and measure it.

>>> trainer = FederatedOrchestraTrainer({"rounds": 2, "model": {"backbone": "conv4",
...     "in_channels": 1}}, devices=["alice", "bob"])  # doctest: +IGNORE_EXCEPTION_DETAIL
Traceback (most recent call last):
...
orchestra_strategy.errors.HostError: Expected `server` to be a PYU (it aggregates), got 'alice'...
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from rich.console import Console

from orchestra_strategy import OrchestraFLModel, orchestra_model
from orchestra_strategy.algorithms.model import OrchestraModel
from orchestra_strategy.config import FrozenConfig, parse_config
from orchestra_strategy.errors import OrchestraError
from orchestra_strategy.evaluation import (
    ProbeResult,
    extract_features,
    probe_protocol,
    with_controls,
    write_json,
)
from orchestra_strategy.host import reveal
from orchestra_strategy.runtime.progress import RoundProgress
from orchestra_strategy.strategies.weights import write_weights

__all__ = ["FederatedOrchestraTrainer", "ModelConfig", "TrainerConfig", "TrainingResults"]


class ModelConfig(FrozenConfig):
    """Arguments of :func:`orchestra_strategy.orchestra_model`."""

    backbone: str = "resnet18"
    in_channels: int = Field(3, ge=1)
    norm: str = "batch"
    hidden_dim: int = Field(512, ge=1)
    projection_dim: int = Field(512, ge=1)


class TrainerConfig(FrozenConfig):
    """What a training run needs.

    Attributes:
        strategy: A registered strategy of this package.
        rounds: Federated rounds after round 0; with ``user_type="local_gradient"`` walks through
            the smallest party's data, of several rounds each.
        seed: Root seed of everything.
        model: The network.
        parameters: The strategy's parameters by name.
        num_gpus: GPUs per party.
        out_dir: Folder for ``results.json``; None writes nothing.
        progress: Whether to draw the progress bar.
    """

    strategy: str = "orchestra"
    rounds: int = Field(100, ge=1)
    seed: int = Field(42, ge=0)
    model: ModelConfig = Field(default_factory=ModelConfig)
    parameters: dict[str, Any] = Field(default_factory=dict)
    num_gpus: int = Field(0, ge=0)
    out_dir: str | None = None
    progress: bool = True


@dataclass(frozen=True)
class TrainingResults:
    """What ``train`` returns.

    Attributes:
        history: The losses by name, one value per round, averaged over the parties' samples.
        metrics: The losses of the last round.
        ledger: What each round cost: seconds, samples per second, bytes sent.
        manifest: All that left a party, one dictionary per entry.
        rounds: Rounds done.
        seconds: Wall-clock seconds of the training.
    """

    history: dict[str, list[float]]
    metrics: dict[str, float]
    ledger: list[dict[str, Any]]
    manifest: list[dict[str, Any]]
    rounds: int
    seconds: float


class FederatedOrchestraTrainer:
    """One training run over SecretFlow devices.

    Args:
        config: A :class:`TrainerConfig`, or a dictionary with its fields.
        devices: The parties' PYUs, at least two.
        server: The PYU that aggregates; the first party if not given.

    Raises:
        OrchestraError: The configuration or the devices cannot be used.
    """

    def __init__(
        self,
        config: TrainerConfig | Mapping[str, Any],
        devices: Sequence[Any],
        server: Any = None,
    ) -> None:
        self.config = (
            config if isinstance(config, TrainerConfig) else parse_config(TrainerConfig, config)
        )
        self.devices = list(devices)
        self.server = server if server is not None else next(iter(devices), None)
        self.model_builder = partial(orchestra_model, **self.config.model.model_dump())
        self.fl_model: OrchestraFLModel | None = None
        self.results: TrainingResults | None = None
        self.console = Console() if self.config.progress else None

    def setup_model(self) -> OrchestraFLModel:
        """Build the FLModel, with one worker per party; ``train`` does it where it is missing."""
        if self.fl_model is None:
            self.fl_model = OrchestraFLModel(
                server=self.server,
                device_list=self.devices,
                model=self.model_builder,
                strategy=self.config.strategy,
                random_seed=self.config.seed,
                num_gpus=self.config.num_gpus,
                strategy_config=self.config.parameters,
            )
        return self.fl_model

    def train(self, federated_data: Any) -> TrainingResults:
        """Train for the configured number of rounds.

        Args:
            federated_data: FedNdarray or HDataFrame: samples without labels, one partition a party.

        Returns:
            History, cost ledger and manifest; also written to ``out_dir/results.json``.

        Raises:
            DataError: A party's data cannot be used.
        """
        fl_model = self.setup_model()
        manifest = fl_model.manifest()
        progress = RoundProgress(
            self.config.rounds,
            sum(row["bytes"] for row in manifest if row["when"] != "start"),
            self.console,
        )
        try:
            fl_model.fit(federated_data, epochs=self.config.rounds, callbacks=[progress])
        finally:
            progress.close()
        names = [k for k in progress.ledger[-1] if k.startswith("train_")]
        results = TrainingResults(
            history={k: [row[k] for row in progress.ledger] for k in names},
            metrics={k: progress.ledger[-1][k] for k in names},
            ledger=progress.ledger,
            manifest=manifest,
            rounds=sum(row["rounds"] for row in progress.ledger),
            seconds=sum(row["seconds"] for row in progress.ledger),
        )
        self.results = results
        if self.config.out_dir is not None:
            write_json(Path(self.config.out_dir) / "results.json", asdict(results))
        return results

    def encoder(self) -> OrchestraModel:
        """Return the trained global model, on the CPU of this process.

        Raises:
            OrchestraError: Nothing has been trained.
        """
        if self.fl_model is None or self.results is None:
            raise OrchestraError("Expected a trained model, got none: call `train` first.")
        first = next(iter(self.fl_model._workers.values()))
        # The averaged weights alone, which every party has: not what a party sends to the server.
        weights = reveal(first.averaged_weights())
        model = self.untrained_encoder()
        write_weights(model, weights)
        return model.eval()

    def untrained_encoder(self) -> OrchestraModel:
        """Return the model as every party had it before training: the control."""
        with torch.random.fork_rng():
            torch.manual_seed(self.config.seed)
            return self.model_builder().eval()

    def embed(self, x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return the trained encoder's features of samples of one's own.

        Args:
            x: Shape (n, ...), of the kind that was trained on.

        Returns:
            Features, shape (n, d); the samples do not leave this process.
        """
        return extract_features(self.encoder(), x)

    def evaluate(
        self,
        train_x: npt.NDArray[Any],
        train_y: npt.NDArray[np.integer[Any]],
        test_x: npt.NDArray[Any],
        test_y: npt.NDArray[np.integer[Any]],
        labels_per_class: Sequence[int | None] = (1, 5, 20, None),
        seeds: int = 5,
    ) -> dict[str, dict[str, ProbeResult]]:
        """Measure the encoder with labels of one's own, beside the untrained one and the raw input.

        Args:
            train_x: Samples that probes are trained on, shape (n, ...).
            train_y: Their labels, shape (n,).
            test_x: Samples that accuracy is measured on; none of ``train_x``.
            test_y: Their labels.
            labels_per_class: Numbers of labels per class; None is all of them.
            seeds: Draws of the labelled samples.

        Returns:
            Results by feature set (``orchestra``, ``untrained``, ``pixels``) and probe.
        """
        features = with_controls(self.encoder(), self.untrained_encoder(), train_x, test_x)
        return probe_protocol(
            features, train_y, test_y, labels_per_class, seeds, root_seed=self.config.seed
        )
