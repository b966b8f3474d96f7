"""Train one encoder over several parties' unlabelled data, and measure it.

>>> TrainerConfig(rounds=2, model={"backbone": "conv4", "in_channels": 1}).strategy
'orchestra'
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationInfo, WrapValidator, field_validator, model_validator
from rich.console import Console

from orchestra_strategy import OrchestraFLModel, OrchestraStrategy, host
from orchestra_strategy.algorithms.model import OrchestraModel
from orchestra_strategy.checkpoints.driver import Checkpoints
from orchestra_strategy.checkpoints.settings import numbers_settings
from orchestra_strategy.config import FrozenConfig, parse_config
from orchestra_strategy.data.shared_tables import agree_on_tables, asks_to_agree
from orchestra_strategy.data.sources import fed_labelled_from_paths
from orchestra_strategy.encoder_export import export_encoder
from orchestra_strategy.errors import (
    CheckpointError,
    OrchestraError,
    ParameterError,
    PeerLostError,
    PrivacyError,
)
from orchestra_strategy.evaluation import (
    ProbeResult,
    class_numbers,
    probe_protocol,
    with_controls,
    write_json,
)
from orchestra_strategy.exchange.weights import write_weights
from orchestra_strategy.files import PathLike
from orchestra_strategy.host import reveal
from orchestra_strategy.party.privacy import unit_of
from orchestra_strategy.rng import DEFAULT_SEED
from orchestra_strategy.runtime.checks import device_list_of, federated_values, our_strategy
from orchestra_strategy.runtime.coming_back import ComingBack
from orchestra_strategy.runtime.common_settings import agree_on_training
from orchestra_strategy.runtime.embedding import embed_at_parties
from orchestra_strategy.runtime.federated_input import (
    has_paths,
    shape_of_samples,
    views_of_tables,
)
from orchestra_strategy.runtime.report_tables import plain_settings
from orchestra_strategy.runtime.trained_network import TrainedNetwork, is_own_network
from orchestra_strategy.runtime.training import TrainingResults, train_rounds
from orchestra_strategy.runtime.tuning import Tuning, grid_points, refuse_private, tune
from orchestra_strategy.trained_encoder import TrainedEncoder

__all__ = ["FederatedOrchestraTrainer", "ModelConfig", "TrainerConfig", "TrainingResults"]

_log = logging.getLogger(__name__)

_OF_THE_RUN = ("strategy", "rounds", "seed", "checkpoint_every", "keep_checkpoints")
_NOT_OF_A_TRIAL = {"out_dir", "progress", "rounds"} | {
    *("log_dir", "checkpoint_dir", "checkpoint_every", "keep_checkpoints", "max_restarts")
}


MODEL_PRESETS: dict[str, dict[str, Any]] = {
    # Most parameters are the projector's, and the noise grows with the root of their number.
    "private": {"norm": "group+batch", "hidden_dim": 64, "projection_dim": 64},
}
"""Values for ``model: {"preset": NAME, ...}``; what is given beside it has precedence."""


class ModelConfig(FrozenConfig):
    """Arguments of :func:`orchestra_strategy.orchestra_model`.

    ``preset="private"`` stands for values that suit ``privacy="user"``, see ``MODEL_PRESETS``.
    """

    backbone: str = "resnet18"
    in_channels: int | None = Field(3, ge=1)
    norm: str = "batch"
    hidden_dim: int = Field(512, ge=1)
    projection_dim: int = Field(512, ge=1)
    weights: str | None = None
    num_classes: int | None = Field(None, ge=2)

    @model_validator(mode="before")
    @classmethod
    def _preset_is_known(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or "preset" not in values:
            return values
        name = values["preset"]
        if name not in MODEL_PRESETS:
            raise ValueError(
                f"Expected `preset` to be one of {', '.join(map(repr, MODEL_PRESETS))}, got "
                f"{name!r}"
            )
        return {**MODEL_PRESETS[name], **{k: v for k, v in values.items() if k != "preset"}}

    @field_validator("weights", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, Path) else value


def _or_own_network(value: Any, options: Callable[[Any], Any]) -> Any:
    return value if is_own_network(value) else options(value)


class TrainerConfig(FrozenConfig):
    """What a training run needs.

    Attributes:
        strategy: A registered strategy of this package.
        rounds: Federated rounds after round 0; with ``user_type="local_gradient"`` walks through
            the smallest party's data, of several rounds each.
        seed: Root seed of everything.
        model: Options of the network, which gets the heads that the strategy trains;
            ``in_channels=None`` asks the data. Or a network of one's own: an
            :class:`~orchestra_strategy.OrchestraModel`, a callable that returns one, or a
            TorchModel.
        parameters: The strategy's parameters by name.
        data_options: How the parties read their data where they are given as paths, see
            :func:`~orchestra_strategy.data.load_local`; of these ``value_range`` is for arrays,
            too, and for ``embed`` and ``evaluate``; by ``"agree"`` parties agree on columns, see
            :func:`~orchestra_strategy.data.shared_tables.agree_on_tables`.
        num_gpus: GPUs per party.
        out_dir: Folder for ``results.json`` and the trained encoder, a text or a path; None writes
            nothing.
        log_dir: Folder for what a long training says while it runs: a line of JSON per round,
            TensorBoard's numbers, and a log that is rotated. A text or a path; None writes nothing.
        progress: Whether to draw the progress bar.
        checkpoint_dir: Folder for checkpoints: each party writes its own state on its own disk,
            and none is written by default. A text or a path.
        checkpoint_every: Rounds between two checkpoints; the last round always has one.
        keep_checkpoints: How many are kept.
        max_restarts: In local mode, how often the training goes on by itself from its newest
            checkpoint after a party's worker has ended.
    """

    strategy: str = "orchestra"
    rounds: int = Field(100, ge=1)
    seed: int = Field(DEFAULT_SEED, ge=0)
    model: Annotated[ModelConfig, WrapValidator(_or_own_network)] = Field(
        default_factory=ModelConfig
    )
    parameters: dict[str, Any] = Field(default_factory=dict)
    data_options: dict[str, Any] = Field(default_factory=dict)
    num_gpus: int = Field(0, ge=0)
    out_dir: str | None = None
    log_dir: str | None = None
    progress: bool = True
    checkpoint_dir: str | None = None
    checkpoint_every: int = Field(1, ge=1)
    keep_checkpoints: int = Field(2, ge=1)
    max_restarts: int = Field(0, ge=0)

    @field_validator("out_dir", "log_dir", "checkpoint_dir", mode="before")
    @classmethod
    def _names_a_folder(cls, value: Any, info: ValidationInfo) -> Any:
        if value == "":
            raise ValueError(
                f"Expected `{info.field_name}` to name a folder, got ''; use '.' for the present "
                "one, or None to write nothing"
            )
        return str(value) if isinstance(value, Path) else value


class FederatedOrchestraTrainer:
    """One training run over SecretFlow devices.

    Args:
        config: A :class:`TrainerConfig`, or a dictionary with its fields.
        devices: The parties' PYUs, at least two.
        server: The PYU that aggregates; the first party if neither it nor an aggregator is given.
        aggregator: SecretFlow's, in place of a server: route ``secure``.
        parties: Names of all parties of the job, where it goes on without some of them; those of
            the devices by default.

    Attributes:
        data_options: Those of the configuration, with what the parties have agreed on.
        network: What the parties train.

    Raises:
        OrchestraError: The configuration or the devices cannot be used.
    """

    def __init__(
        self,
        config: TrainerConfig | Mapping[str, Any],
        devices: Sequence[Any],
        server: Any = None,
        aggregator: Any = None,
        parties: Sequence[str] | None = None,
    ) -> None:
        if not isinstance(config, TrainerConfig):
            config = parse_config(TrainerConfig, config, of="the trainer")
        self.config = config
        self.devices = device_list_of(devices, "devices")
        self.aggregator = aggregator
        if server is None and aggregator is None:
            server = next(iter(self.devices), None)
        self.server = server
        if asks_to_agree(self.config.data_options):
            self._refuse_to_agree_in_private()
        # Each strategy gets the heads that it trains; one that names none, those of Orchestra.
        heads = getattr(our_strategy(self.config.strategy), "heads", OrchestraStrategy.heads)
        self.network = TrainedNetwork(self.config.model, heads)
        self.fl_model: OrchestraFLModel | None = None
        self.results: TrainingResults | None = None
        self.console = Console() if self.config.progress else None
        self.data_options: dict[str, Any] = dict(self.config.data_options)
        self._found: dict[str, Any] = {}  # parameters that the data have answered
        self._checkpoints: Checkpoints | None = None
        self._restarts = 0
        self.parties = [d.party for d in self.devices] if parties is None else list(parties)

    def _refuse_to_agree_in_private(self) -> None:
        config_class = our_strategy(self.config.strategy).config_class
        if unit_of(parse_config(config_class, self.config.parameters)).protected:
            raise PrivacyError(
                "Expected names of categories, means and deviations to be given with privacy, got "
                "'agree', by which they would leave without noise; list them in `data_options`."
            )

    def setup_model(self) -> OrchestraFLModel:
        """Build the FLModel, with one worker per party; ``train`` does it where it is missing."""
        if self.fl_model is None and self.network.own:
            self.untrained_encoder()  # refused before any worker starts, if it is no encoder
        if self.fl_model is None:
            self.fl_model = self._build({})
        return self.fl_model

    def _build(self, changed: Mapping[str, Any]) -> OrchestraFLModel:
        return OrchestraFLModel(
            server=self.server,
            aggregator=self.aggregator,
            device_list=self.devices,
            model=self.network.builder,
            strategy=self.config.strategy,
            random_seed=self.config.seed,
            num_gpus=self.config.num_gpus,
            strategy_config={**self._given(), **changed},
        )

    def tune(
        self,
        federated_data: Any,
        grid: Mapping[str, Sequence[Any]],
        rounds: int | None = None,
        out_dir: str | Path | None = None,
    ) -> Tuning:
        """Choose parameters without labels, by alignment + uniformity of the trained encoders.

        Args:
            federated_data: As for :meth:`train`.
            grid: Values to try by the parameter's name; every combination is trained once.
            rounds: Of each trial; those of the configuration by default.
            out_dir: Keeps finished trials, so that an interrupted search goes on.

        Returns:
            All trials, the best first; ``.best`` are the parameters to train with.

        Raises:
            ParameterError: A value of the grid is unknown or out of range, or the strategy learns
                from labels; nothing is trained.
            PrivacyError: A point has ``privacy``: no ledger would count what the trials spend.
        """
        if self._needs_labels():
            raise ParameterError(
                f"Expected a strategy that learns without labels for `tune`, got "
                f"{self.config.strategy!r}: its score, alignment + uniformity, says nothing of "
                "classes; compare `train_accuracy`, or `evaluate` on labels kept out."
            )
        self._ask_the_data(federated_data)
        config_class = our_strategy(self.config.strategy).config_class
        for point in grid_points(grid):
            refuse_private(parse_config(config_class, {**self._given(), **point}))
        return tune(
            self._build,
            self._read(federated_data),
            grid,
            self.config.rounds if rounds is None else rounds,
            out_dir,
            identity={
                **self.config.model_dump(exclude={*_NOT_OF_A_TRIAL, "model"}),
                "model": self.network.settings(),
                "parameters": self._given(),
            },
            tell=None if self.console is None else self.console.print,
        )

    def train(
        self, federated_data: Any, callbacks: Sequence[Any] = (), labels: Any = None
    ) -> TrainingResults:
        """Print what will leave each party, and train for the configured number of rounds.

        Args:
            federated_data: Samples without labels, one partition a party: FedNdarray, HDataFrame,
                or a mapping from PYU to the path of an image folder, a CSV, .npy or .npz file,
                or CIFAR batches, as that party sees it.
            callbacks: FLModel callbacks; :meth:`encoder` gives them the model so far.
            labels: For a strategy that learns from them (``fed_supervised``), in the form of
                ``federated_data``; they stay at their parties. Those that paths have are read
                without asking (of tables, ``label_column`` in ``data_options``).

        Returns:
            History, cost ledger and manifest; also written to ``out_dir/results.json``, and the
            encoder beside it, as by :meth:`export`.

        Raises:
            DataError: A party's data cannot be used.
            CheckpointError: ``checkpoint_dir`` has the checkpoints of another training.
        """
        self._agree("train")
        self._ask_the_data(federated_data)
        fl_model = self.setup_model()
        if self._checkpoints is not None:
            self._checkpoints.reopen(fl_model.workers)
        elif self.config.checkpoint_dir is not None:
            checkpoints = self._open_checkpoints()
            checkpoints.begin(fl_model.workers)
            self._checkpoints = checkpoints
        return self._train(federated_data, callbacks, [], labels)

    def resume(
        self,
        federated_data: Any,
        callbacks: Sequence[Any] = (),
        round_index: int | None = None,
        labels: Any = None,
    ) -> TrainingResults:
        """Go on from a checkpoint, with new workers: the result is that of one training.

        Args:
            federated_data: The same samples as before, see :meth:`train`.
            callbacks: See :meth:`train`.
            round_index: A round that all parties have; by default the newest of those.
            labels: See :meth:`train`.

        Returns:
            As of :meth:`train`, of all rounds; those of the checkpoint if none are left.

        Raises:
            CheckpointError: There is no checkpoint, a party's is missing or damaged, or it belongs
                to another training: the first setting that differs is named.
            DataError: The samples are not the same.
        """
        self._agree("resume", round_index)
        self._ask_the_data(federated_data)
        checkpoints = self._open_checkpoints()
        fl_model = self._build({})
        past = checkpoints.restore(fl_model.workers, round_index)
        fl_model.restored()
        self.fl_model, self._checkpoints = fl_model, checkpoints
        return self._train(federated_data, callbacks, past, labels)

    def save(self) -> int:
        """Write a checkpoint now, and return its round.

        Raises:
            CheckpointError: There is no ``checkpoint_dir``, no round has been done, or a party
                cannot write.
        """
        if self._checkpoints is None or self.fl_model is None or not self._checkpoints.ledger:
            raise CheckpointError(
                "Expected a training with `checkpoint_dir` to save, got "
                f"`checkpoint_dir={self.config.checkpoint_dir!r}` and no rounds of it; call "
                "`train(...)` first."
            )
        return self._checkpoints.write(self.fl_model.workers)

    def settings(self) -> dict[str, Any]:
        """Return what the training was run with, defaults included, as plain values by name."""
        config = self.config
        run = {name: getattr(config, name) for name in ("strategy", "rounds", "seed", "num_gpus")}
        run |= {"parties": self.parties}
        if self.aggregator is None:
            run["server"] = getattr(self.server, "party", None)
        else:
            run["aggregator"] = type(self.aggregator).__name__
        return dict(
            plain_settings(
                {**run, "model": self.network.settings(), "parameters": self._parameters()}
            )
        )

    def _given(self) -> dict[str, Any]:
        """Return the parameters of the configuration, with those that the data have answered."""
        return {**self.config.parameters, **self._found}

    def _parameters(self) -> dict[str, Any]:
        """Return all of the strategy's parameters, with their defaults."""
        route = "server" if self.aggregator is None else "secure"
        config_class = our_strategy(self.config.strategy).config_class
        parameters = parse_config(config_class, {**self._given(), "route": route})
        return dict(parameters.model_dump())

    def _agree(self, action: str, round_index: int | None = None) -> None:
        """Compare what is about to begin with the other parties of a cluster."""
        config, aggregator = self.config, self.aggregator
        run = {name: getattr(config, name) for name in _OF_THE_RUN}
        run |= {"checkpoints": config.checkpoint_dir is not None, "round_index": round_index}
        server = self.server.party if aggregator is None else type(aggregator).__name__
        parties = [device.party for device in self.devices]
        agree_on_training(action, run, self.network.settings(), self._parameters(), parties, server)

    def _open_checkpoints(self) -> Checkpoints:
        config = self.config
        if config.checkpoint_dir is None:
            raise CheckpointError(
                "Expected `checkpoint_dir` to be a folder, got None; set it for checkpoints."
            )
        settings = numbers_settings(
            config.strategy,
            config.seed,
            self.network.settings(),
            self._parameters(),
            self.parties,
            self.aggregator,
        )
        every, keep = config.checkpoint_every, config.keep_checkpoints
        return Checkpoints(config.checkpoint_dir, every, keep, settings)

    def _train(
        self,
        federated_data: Any,
        callbacks: Sequence[Any],
        past: Sequence[dict[str, Any]],
        labels: Any = None,
    ) -> TrainingResults:
        """Train the rounds that are left, and write down what came of it."""
        fl_model = self.setup_model()
        results: TrainingResults | None = None
        absent = [name for name in self.parties if name not in {d.party for d in self.devices}]
        if absent and self._checkpoints is not None:
            callbacks = [ComingBack(self.server, self._checkpoints), *callbacks]
        try:
            both = self._read_both(federated_data, labels)
            results = train_rounds(
                fl_model,
                *both,
                self.config.rounds,
                callbacks,
                self.console,
                self._checkpoints,
                past,
                absent,
                self.config.log_dir,
            )
        except PeerLostError:
            if not self._may_restart():
                raise
        finally:
            if self._checkpoints is not None:
                self._checkpoints.close(fl_model.workers)
        if results is None:
            self._restarts += 1
            _log.warning("Going on with new workers, %d of `max_restarts`.", self._restarts)
            return self.resume(federated_data, callbacks, labels=labels)
        if not fl_model.sample_shape:  # no round was left to do
            fl_model.sample_shape = shape_of_samples(both[0])
        self.results = results
        if self.config.out_dir is not None:
            self._write(Path(self.config.out_dir))
        return results

    def _may_restart(self) -> bool:
        """Whether the training goes on by itself from a checkpoint, after a worker's end."""
        written = self._checkpoints is not None and self._checkpoints.last is not None
        return written and host.in_simulation() and self._restarts < self.config.max_restarts

    def _ask_the_data(self, federated_data: Any) -> None:
        """Let the data say what the configuration leaves open: channels, and a table's columns."""
        if has_paths(federated_data) and self.fl_model is None:
            self._agree_on_columns(federated_data)
            self._found = views_of_tables(self.config.parameters, self.data_options)
        if self.network.asks_the_data:
            self.network.learn(shape_of_samples(self._read(federated_data)))

    def _agree_on_columns(self, federated_data: Any) -> None:
        """Let the parties agree on columns, once, where they shall."""
        if isinstance(federated_data, Mapping) and asks_to_agree(self.data_options):
            self.data_options = agree_on_tables(federated_data, **self.data_options)

    def _read(self, federated_data: Any) -> Any:
        """Return a FedNdarray; where the parties shall agree on columns, they do it once."""
        self._agree_on_columns(federated_data)
        return federated_values(federated_data, self.data_options)

    def _read_both(self, federated_data: Any, labels: Any) -> tuple[Any, Any]:
        """Return samples and, where the strategy learns from them, labels as FedNdarrays."""
        if labels is None and has_paths(federated_data) and self._needs_labels():
            self._agree_on_columns(federated_data)
            return fed_labelled_from_paths(federated_data, **self.data_options)
        return self._read(federated_data), None if labels is None else federated_values(labels)

    def _needs_labels(self) -> bool:
        return bool(our_strategy(self.config.strategy).needs_labels)

    def _write(self, folder: Path) -> None:
        """Write the results, and the encoder with all that is needed to use it."""
        assert self.results is not None
        write_json(folder / "results.json", {**asdict(self.results), "settings": self.settings()})
        if self.results.rounds:
            self.export(folder)

    def export(self, path: PathLike) -> None:
        """Write the trained encoder for use elsewhere, without SecretFlow and without the data.

        ``encoder.safetensors`` and ``encoder.json`` are what ``orchestra_strategy.load_encoder``
        reads; ``encoder.onnx`` scales pixels itself, and has been compared with torch. Where it
        cannot be written, the log says why. In a cluster all parties call it.

        Args:
            path: A folder, made if missing; its files are for their owner alone.

        Raises:
            OrchestraError: No round has been done.
            OSError: A file cannot be written.
        """
        export_encoder(path, self._trained())

    def encoder(self) -> OrchestraModel:
        """Return the global model after the last round done, on the CPU of this process.

        Raises:
            OrchestraError: No round has been done.
        """
        return self._trained().model

    def _trained(self) -> TrainedEncoder:
        """Return the global model with all that is needed to use it."""
        workers = [] if self.fl_model is None else list(self.fl_model.workers.values())
        rounds = reveal(workers[0].work_done())["rounds"] if workers else 0
        if not rounds:
            raise OrchestraError("Expected a trained model, got none: call `train` first.")
        # The averaged weights alone, which every party has: not what a party sends to the server.
        weights = reveal(workers[0].averaged_weights())
        model = self.network.blank()
        write_weights(model, weights)
        assert self.fl_model is not None
        config, shape = self.config, self.fl_model.sample_shape
        return TrainedEncoder(
            model,
            self.network.options(shape),
            config.seed,
            config.strategy,
            rounds,
            self.data_options,
            shape,
            self.network.builder,
        )

    def untrained_encoder(self) -> OrchestraModel:
        """Return the model as every party had it before training: the control."""
        return self.network.untrained(self.config.seed)

    def embed(self, x: Any, out: Mapping[Any, PathLike] | None = None) -> Any:
        """Return the trained encoder's features of samples.

        Args:
            x: An array (n, ...) of samples of one's own, of the kind that was trained on; or what
                :meth:`train` takes, whose samples and features stay at their parties.
            out: Of samples at parties, PYU -> a ``.npy`` file on that party's disk.

        Returns:
            Features (n, d) float32: of an array an array, of samples at parties a FedNdarray.

        Raises:
            DataError: Samples cannot be used, such as pixels that are neither uint8 nor in [0, 1]
                nor told of by ``value_range`` in ``data_options``; or a file cannot be written.
            ParameterError: ``out`` is given for an array, or names other parties or files.
        """
        if not isinstance(x, np.ndarray):
            return embed_at_parties(self.encoder(), self._read(x), out)
        if out is not None:
            raise ParameterError(
                "Expected no `out` for an array of one's own, got one; write what is returned, by "
                "`numpy.save(...)`."
            )
        return self._trained().transform(x)

    def evaluate(
        self,
        train_x: npt.NDArray[Any],
        train_y: Any,
        test_x: npt.NDArray[Any],
        test_y: Any,
        labels_per_class: Sequence[int | None] = (1, 5, 20, None),
        seeds: int = 5,
        allow_duplicates: bool = False,
    ) -> dict[str, dict[str, ProbeResult]]:
        """Measure the encoder with labels of one's own, beside the untrained one and the raw input.

        Args:
            train_x: Samples that probes are trained on, shape (n, ...).
            train_y: Their labels, shape (n,): whole numbers, names or booleans.
            test_x: Samples that accuracy is measured on; none of ``train_x``.
            test_y: Their labels.
            labels_per_class: Numbers of labels per class; None is all of them.
            seeds: Draws of the labelled samples.
            allow_duplicates: Whether samples of ``test_x`` may equal some of ``train_x``, as
                different rows of a table of few columns do.

        Returns:
            Results by feature set (the strategy's name, ``untrained``, ``pixels`` or, of a
            table, ``columns``) and probe; of two classes also AUC and average precision, see
            :func:`~orchestra_strategy.evaluation.probe_protocol`.

        Raises:
            DataError: Samples or labels cannot be used, or are in both sets.
        """
        train_labels, test_labels, _ = class_numbers(train_y, test_y)
        trained = self._trained()
        features = with_controls(
            trained.model,
            trained.untrained(),
            trained.in_unit_range(train_x),
            trained.in_unit_range(test_x),
            allow_duplicates=allow_duplicates,
            name=self.config.strategy,
        )
        return probe_protocol(
            features, train_labels, test_labels, labels_per_class, seeds, self.config.seed
        )
