"""The template of every strategy here: one ``train_step``, which calls the federated user.

A strategy is a thin shell around an objective and a user. Subclasses override hooks:
``make_objective`` or ``loss_terms`` for the loss, ``aggregate_weights`` for the server's mean,
``after_local_training`` for what happens at the end of a round, and the four ``extra`` hooks for
what travels beside the weights.

This module must not import annotations from the future: SecretFlow reads ``train_step``'s.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar, Optional, Tuple, Union  # noqa: UP035

import numpy as np
import torch
from torch import Tensor, nn

from orchestra_strategy import host
from orchestra_strategy.aggregation.weighted import FloatArray, weighted_mean
from orchestra_strategy.algorithms.objective import Batch, LossParts, Objective
from orchestra_strategy.config import StrategyConfig, parse_config
from orchestra_strategy.data.arrays import describe_samples
from orchestra_strategy.errors import DataError, HostError, ParameterError
from orchestra_strategy.evaluation.features import extract_features
from orchestra_strategy.payload import Entry, Manifest, Payload, meta_entries, pack, unpack
from orchestra_strategy.strategies.party import PartyData, fingerprint
from orchestra_strategy.strategies.weights import (
    PREFIX,
    read_weights,
    weight_entries,
    write_weights,
)
from orchestra_strategy.threads import torch_threads
from orchestra_strategy.users import UserMultiStep

__all__ = ["HOST_KEYWORDS", "FederatedStrategy", "strategy_parameters"]

HOST_KEYWORDS = frozenset({"server_agg_method", "dp_strategy", "simulation", "use_gpu"})
"""What FLModel passes to every strategy on its own account."""

_DEFAULT_SEED = 42  # FLModel's None would start every party from another model


def strategy_parameters(
    strategy_config: Optional[Mapping[str, Any]], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Join the two ways in which FLModel takes parameters.

    Raises:
        ParameterError: A parameter is given both ways with different values.
    """
    loose = {k: v for k, v in kwargs.items() if k not in HOST_KEYWORDS}
    nested = dict(strategy_config or {})
    for name in loose.keys() & nested.keys():
        if loose[name] != nested[name]:
            raise ParameterError(
                f"Expected `{name}` to be given once, got {nested[name]!r} in `strategy_config` "
                f"and {loose[name]!r} as a keyword."
            )
    return {**nested, **loose}


class FederatedStrategy(host.BaseTorchModel):  # type: ignore[misc]
    """One party's worker.

    Args:
        builder_base: SecretFlow's ``TorchModel``, or a callable that returns the model. An
            ``optim_fn`` in it replaces our SGD.
        random_seed: Root seed; None means 42, so that all parties start from the same model.
        skip_bn: Refused; SecretFlow's flag misaligns the weights.
        strategy_config: Parameters by name.
        **kwargs: Parameters by name, and what FLModel adds.

    Raises:
        ParameterError: A parameter is unknown or out of range.
        ModelError: The model lacks a part that the objective needs.
    """

    config_class: ClassVar[type[StrategyConfig]] = StrategyConfig
    metric_names: ClassVar[tuple[str, ...]] = ("train_loss",)

    def __init__(
        self,
        builder_base: Any,
        random_seed: Optional[int] = None,
        skip_bn: bool = False,
        strategy_config: Optional[Mapping[str, Any]] = None,
        **kwargs: Any,
    ) -> None:
        if skip_bn:
            raise ParameterError(
                "Expected `skip_bn` to be False, got True: SecretFlow's flag sees only top-level "
                "BatchNorm and misaligns the rest. Use `norm='group'` in the model instead."
            )
        use_gpu = bool(kwargs.get("use_gpu", False))
        if use_gpu and not torch.cuda.is_available():
            raise HostError("Expected a CUDA device for `num_gpus` > 0, got none; use num_gpus=0.")
        self.seed = _DEFAULT_SEED if random_seed is None else int(random_seed)
        self._given = strategy_parameters(strategy_config, kwargs)
        self.config: Any = parse_config(self.config_class, self._given)
        # The model's initial weights are the one draw that torch takes from its global generator;
        # fork_rng gives the caller's generator back as it was.
        with torch.random.fork_rng(), torch_threads(self.config.torch_threads):
            torch.manual_seed(self.seed)
            super().__init__(builder_base, random_seed=None, use_gpu=use_gpu)
        self.rounds_done = 0
        self.round_index = 0  # the round under way: 0 without training, then 1, 2, ...
        self._epoch = -1
        self._host_steps = (0, 1)
        self._data: Optional[PartyData] = None
        self._data_error: Optional[DataError] = None
        self._eval_data: Optional[PartyData] = None
        self._party = self.config.party or ""
        self._metrics: dict[str, float] = {}
        self.check_server(kwargs.get("server_agg_method"), self.config)
        self.objective: Objective = self.make_objective()
        self._optim_fn = getattr(builder_base, "optim_fn", None)
        self.user = self._make_user()

    # ---- Hooks -----------------------------------------------------------------------------

    def make_objective(self) -> Objective:
        """Return the objective; called once, after the model has been built."""
        raise NotImplementedError(f"{type(self).__name__} must define `make_objective`.")

    def loss_terms(self, model: nn.Module, batch: Batch) -> Union[LossParts, Tensor]:
        """Return the loss of one local step; by default the objective's."""
        return self.objective(model, batch)

    @staticmethod
    def aggregate_weights(
        weights_list: Sequence[Sequence[FloatArray]], sample_counts: Sequence[int]
    ) -> list[FloatArray]:
        """Combine the parties' weights on the server; by default the mean by sample count."""
        return weighted_mean(weights_list, sample_counts)

    def after_local_training(self) -> None:
        """Run at the party after the local steps of a round; by default nothing."""

    @staticmethod
    def check_server(server_agg_method: Any, config: Any) -> None:
        """Refuse a server method that cannot work with a configuration; None is always fine."""

    def start_round(self) -> None:
        """Run before the local steps of a round (fresh random streams); by default nothing."""

    def needs_initial_pass(self) -> bool:
        """Whether round 0 (no training) is still to be done; by default never."""
        return False

    def initial_pass(self, batches: Iterable[Batch]) -> None:
        """Do round 0 on the party's data."""

    def extra_entries(self) -> tuple[Entry, ...]:
        """Return the manifest's entries for what travels beside the weights."""
        return ()

    def extras(self) -> dict[str, FloatArray]:
        """Return the arrays for :meth:`extra_entries`."""
        return {}

    def receive_extras(self, arrays: Mapping[str, FloatArray]) -> None:
        """Take what the server sent beside the weights."""

    # ---- What FLModel calls ----------------------------------------------------------------

    def train_step(
        self, weights: Any, cur_steps: int, train_steps: int, **kwargs: Any
    ) -> Tuple[np.ndarray, int]:  # type: ignore[type-arg]  # noqa: UP006
        """Do one federated round at this party.

        Args:
            weights: The server's reply, or None to go on from the present state.
            cur_steps: FLModel's count of steps so far.
            train_steps: How many of FLModel's steps this call covers.
            **kwargs: FLModel's; parameters came in through the constructor or ``configure``.

        Returns:
            The payload and the party's number of samples.
        """
        data = self._require_data()
        if weights is not None:
            self.apply_weights(weights)
        if self.needs_initial_pass():
            return self.get_weights(), len(data)
        step = cur_steps % data.steps_per_epoch
        self._epoch += step == 0
        self._host_steps = (step, train_steps)
        self.round_index = self.rounds_done + 1
        with torch_threads(self.config.torch_threads):
            self.start_round()
            self._train()
            self.rounds_done = self.round_index
            self.after_local_training()
            return self._send("round"), len(data)  # type: ignore[return-value]

    def get_weights(self, return_numpy: bool = True) -> Any:
        """Return the payload without training; the first time this is round 0."""
        with torch_threads(self.config.torch_threads):
            if self._data_error is not None:
                raise self._data_error
            if self.needs_initial_pass() and self._data is not None:
                self.start_round()
                batches = self._data.inference_batches(self.config.batch_size, self.exe_device)
                self.initial_pass(batches)
            return self._send("init" if self.needs_initial_pass() else "sync")

    def set_weights(self, weights: Any) -> None:
        """Take the server's reply."""
        self.apply_weights(weights)

    def apply_weights(self, weights: Any, **kwargs: Any) -> None:
        """Take the server's reply: weights, and what came beside them.

        Raises:
            ReplyError: It has another form than the manifest's.
        """
        arrays = unpack(weights, "the server").arrays
        expected = {e.name: e for e in (*weight_entries(self.model), *self.reply_entries())}
        Manifest(tuple(expected.values())).check(arrays, "the server")
        write_weights(self.model, arrays)
        self.receive_extras({k: v for k, v in arrays.items() if not k.startswith(PREFIX)})

    def reply_entries(self) -> tuple[Entry, ...]:
        """Return the entries that the server sends back beside the weights."""
        return ()

    def build_dataset(
        self,
        x: Any,
        y: Optional[Any] = None,
        s_w: Optional[Any] = None,
        sampling_rate: Optional[float] = None,
        buffer_size: Optional[int] = None,
        shuffle: bool = False,
        random_seed: int = 1234,
        repeat_count: int = 1,
        sampler_method: str = "batch",
        stage: str = "train",
    ) -> None:
        """Take the party's samples; see FLModel's ``fit`` for the arguments.

        Only ``x``, the number of labels, ``sampling_rate`` and ``stage`` are used: batches keep the
        size of the parameter ``batch_size``, their order follows from the seed.

        Raises:
            DataError: The samples cannot be used. It is raised again by the next call, since the
                host does not look at this call's outcome.
        """
        try:
            data = PartyData.from_host(x, y, sampling_rate)
            self.check_data(data)
        except DataError as error:
            self._data_error = error
            raise
        if stage == "eval":
            self._eval_data = data
            return
        self._data, self._data_error = data, None
        self._party = self.config.party or fingerprint(data.samples)

    def check_data(self, data: PartyData) -> None:
        """Refuse data that this configuration cannot use; by default nothing."""

    def predict(self, predict_steps: int = 0) -> np.ndarray:  # type: ignore[type-arg]
        """Return the features of all samples given to FLModel's ``predict``, shape (n, d)."""
        if self._eval_data is None:
            raise DataError("Expected data before `predict`, got none: call FLModel.predict(x).")
        with torch_threads(self.config.torch_threads):
            return extract_features(self.model, self._eval_data.samples, device=self.exe_device)

    # ---- What the driver calls beyond FLModel ----------------------------------------------

    def describe_data(self, x: Any, y: Optional[Any] = None) -> dict[str, Any]:
        """Return number, shape and dtype of samples, and whether they are finite."""
        return describe_samples(x, y)

    def configure(self, overrides: Mapping[str, Any]) -> None:
        """Change parameters; those of the constructor that are not named come back.

        Raises:
            ParameterError: Unknown, out of range, or fixed by what has been trained so far.
        """
        config = parse_config(self.config_class, {**self._given, **overrides})
        self.check_change(config)
        self.config = config
        if self.config.party:
            self._party = self.config.party
        self.apply_config()

    def check_change(self, config: Any) -> None:
        """Refuse a changed configuration that what has been trained rules out."""

    def apply_config(self) -> None:
        """Hand changed parameters on to the optimizer."""
        if self._optim_fn is None:
            self.user.set_optimizer_options(
                lr=self.config.lr,
                momentum=self.config.momentum,
                weight_decay=self.config.weight_decay,
            )

    def manifest(self) -> Manifest:
        """Return the list of all that leaves this party."""
        return Manifest(
            (*weight_entries(self.model), *self.extra_entries(), *meta_entries(self.metric_names))
        )

    def manifest_rows(self) -> list[dict[str, Any]]:
        """Return the manifest as plain dictionaries."""
        return self.manifest().rows()

    # ---- Logs ------------------------------------------------------------------------------

    def wrap_local_metrics(self, stage: str = "train") -> list[Any]:
        """Return the last round's losses, weighted by the party's number of samples."""
        n = 0 if self._data is None else len(self._data)
        return [host.Mean(name, value * n, n) for name, value in sorted(self._metrics.items())]

    def get_local_metrics(self) -> list[Any]:
        """Return the last round's losses for the host's history."""
        return self.wrap_local_metrics()

    def get_logs(self) -> dict[str, float]:
        """Return the last round's losses by name."""
        return dict(self._metrics)

    # ---- Inside ----------------------------------------------------------------------------

    def _require_data(self) -> PartyData:
        if self._data_error is not None:
            raise self._data_error
        if self._data is None:
            raise DataError("Expected data before training, got none: call `build_dataset` first.")
        return self._data

    def _make_user(self) -> UserMultiStep:
        cfg_user = SimpleNamespace(
            num_data_points=None,
            num_local_updates=None,
            num_data_per_local_update_step=self.config.batch_size,
            local_learning_rate=self.config.lr,
            provide_buffers=True,
        )
        return UserMultiStep(
            self.model,
            self.loss_terms,
            None,
            {"device": self.exe_device, "dtype": torch.float32},
            0,
            cfg_user,
            optimizer_fn=self._optim_fn or self._sgd,
            batches=self._local_batches,
        )

    def _sgd(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        config = self.config
        return torch.optim.SGD(
            parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )

    def _local_batches(self) -> Iterator[Batch]:
        step, steps = self._host_steps
        return self._require_data().training_batches(
            step,
            steps,
            batch_size=self.config.batch_size,
            passes=self.config.local_epochs,
            seed=self.seed,
            party=self._party,
            epoch=self._epoch,
            device=self.exe_device,
        )

    @torch.no_grad()
    def _train(self) -> None:
        """Let the user train from the present weights, and take its update in."""
        self.user.model.load_state_dict(self.model.state_dict())
        payload = {"parameters": [p.detach() for p in self.model.parameters()], "buffers": None}
        with torch.enable_grad():
            shared, _ = self.user.compute_local_updates(payload)
        for parameter, update in zip(self.model.parameters(), shared["gradients"]):
            parameter.add_(update)
        for buffer, value in zip(self.model.buffers(), shared["buffers"]):
            buffer.copy_(value)
        means = {("loss" if k == "total" else k): v for k, v in self.user.loss_means.items()}
        self._metrics = {f"train_{name}": value for name, value in means.items()}

    def _send(self, phase: Any) -> dict[str, Any]:
        n = 0 if self._data is None else len(self._data)
        arrays = {**read_weights(self.model), **self.extras()}
        return pack(Payload(arrays, self.rounds_done, phase, n), self.manifest())
