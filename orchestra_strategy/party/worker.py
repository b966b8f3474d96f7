"""What FLModel needs of a worker beside training: data in, features and logs out, parameters.

Methods that FLModel calls have its names and signatures. Its defaults are replaced because they
turn every sample into float64, scale batches by party, and move BatchNorm's statistics in predict.
"""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from orchestra_strategy import host
from orchestra_strategy.aggregation.fields import AggregationFields
from orchestra_strategy.checkpoints.party import Checkpointing
from orchestra_strategy.config import StrategyConfig, parse_config
from orchestra_strategy.data.arrays import describe_samples
from orchestra_strategy.errors import DataError, HostError, ParameterError
from orchestra_strategy.party.data import PartyData, fingerprint
from orchestra_strategy.party.health import labels_of
from orchestra_strategy.party.inspection import Inspection
from orchestra_strategy.privacy.settings import PrivacyFields
from orchestra_strategy.rng import SecretStreams, SeededStreams, Streams
from orchestra_strategy.threads import torch_threads

__all__ = [
    "HOST_KEYWORDS",
    "PartyWorker",
    "check_wiring",
    "refuse_fixed",
    "strategy_parameters",
]

HOST_KEYWORDS = frozenset({"server_agg_method", "dp_strategy", "simulation", "use_gpu"})
"""What FLModel passes to every strategy on its own account."""

_DEFAULT_SEED = 42  # FLModel's None would start every party from another model


def strategy_parameters(
    strategy_config: Mapping[str, Any] | None, kwargs: Mapping[str, Any]
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


def refuse_fixed(fixed: Iterable[str], given: Iterable[str]) -> None:
    """Refuse parameters that can be given to the constructor alone.

    Raises:
        ParameterError: Some of ``given`` are among ``fixed``.
    """
    refused = sorted(set(fixed) & set(given))
    if refused:
        raise ParameterError(
            f"Expected {', '.join(f'`{name}`' for name in refused)} to stay as in the constructor, "
            "since it decides the form of what the parties or the server hold, or what a training "
            "promises; build a new FLModel to change it."
        )


def check_wiring(route: str, server_agg_method: Any, in_fl_model: bool = True) -> None:
    """Refuse a route that contradicts how FLModel was built.

    Raises:
        ParameterError: Route ``secure`` with a server method, or ``server`` without one.
    """
    if route == "secure" and server_agg_method is not None:
        raise ParameterError(
            "Expected no `server_agg_method` on `route='secure'`, where nobody may see a party's "
            f"payload, got {server_agg_method!r}; leave it out and give an `aggregator`."
        )
    if route == "server" and server_agg_method is None and in_fl_model:
        raise ParameterError(
            "Expected `server_agg_method` on `route='server'`, got None; give `server=` and "
            "`server_agg_method=server_aggregation(...)`, or an `aggregator` and `route='secure'`."
        )


class PartyWorker(Inspection, Checkpointing, host.BaseTorchModel):  # type: ignore[misc]
    """A party's model, data, parameters and logs; see :class:`FederatedStrategy` for training.

    Args:
        builder_base: SecretFlow's ``TorchModel``, or a callable that returns the model.
        random_seed: Root seed; None means 42, so that all parties start from the same model.
        skip_bn: Refused; SecretFlow's flag misaligns the weights.
        strategy_config: Parameters by name.
        **kwargs: Parameters by name, and what FLModel adds.

    Raises:
        ParameterError: A parameter is unknown or out of range.
        HostError: A GPU is asked for and there is none.
    """

    config_class: ClassVar[type[StrategyConfig]] = StrategyConfig
    fixed_parameters: ClassVar[tuple[str, ...]] = (
        "route",
        "user_type",
        "num_virtual_users",
        "user_split",
        "streams",
        *PrivacyFields.model_fields,  # what a training promises, it cannot take back half way
        *AggregationFields.model_fields,
    )
    """Parameters that decide the form of what parties or the server hold: for the constructor."""

    def __init__(
        self,
        builder_base: Any,
        random_seed: int | None = None,
        skip_bn: bool = False,
        strategy_config: Mapping[str, Any] | None = None,
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
        self.model_builder = builder_base
        self.seed = _DEFAULT_SEED if random_seed is None else int(random_seed)
        self._given = strategy_parameters(strategy_config, kwargs)
        self.config: Any = parse_config(self.config_class, self._given)
        self.check_route(self.config.route)
        check_wiring(self.config.route, kwargs.get("server_agg_method"), host.is_worker(self))
        self.check_server(kwargs.get("server_agg_method"), self.config)
        # The model's initial weights are the one draw that torch takes from its global generator;
        # fork_rng gives the caller's generator back as it was.
        with torch.random.fork_rng(), torch_threads(self.config.torch_threads):
            torch.manual_seed(self.seed)
            super().__init__(builder_base, random_seed=None, use_gpu=use_gpu)
        self.party = self.config.party or ""
        self.streams = self._own_streams()
        self.forget_inspection()
        self._data: PartyData | None = None
        self._data_error: DataError | None = None
        self._fingerprint: str | None = None
        self._metrics: dict[str, float] = {}

    # ---- Hooks -----------------------------------------------------------------------------

    @classmethod
    def check_route(cls, route: str) -> None:
        """Refuse a route that the strategy cannot go; by default none."""

    @staticmethod
    def check_server(server_agg_method: Any, config: Any) -> None:
        """Refuse a server method that cannot work with a configuration; None is always fine."""

    @staticmethod
    def check_model(model: nn.Module) -> None:
        """Refuse a model that the objective cannot train; by default none."""

    def check_data(self, data: PartyData) -> None:
        """Refuse data that this configuration cannot use; by default nothing."""

    def forget_data(self) -> None:
        """Drop what is tied to the samples of a former fit; by default nothing."""

    def take_data(self) -> None:
        """Get ready for new data; by default nothing."""

    def apply_config(self) -> None:
        """Hand changed parameters on; called by :meth:`configure`."""

    # ---- Data ------------------------------------------------------------------------------

    def build_dataset(
        self,
        x: Any,
        y: Any | None = None,
        s_w: Any | None = None,
        sampling_rate: float | None = None,
        buffer_size: int | None = None,
        shuffle: bool = False,
        random_seed: int = 1234,
        repeat_count: int = 1,
        sampler_method: str = "batch",
        stage: str = "train",
    ) -> None:
        """Take the party's samples; see FLModel's ``fit`` for the arguments.

        Only ``x``, the number of labels, ``sampling_rate`` and ``stage`` are used: batches keep the
        size of the parameter ``batch_size``, their order follows from the seed. Labels themselves
        are kept for ``evaluate`` alone.

        Raises:
            DataError: The samples cannot be used. It is raised again by the next call, since the
                host does not look at this call's outcome.
        """
        training = stage != "eval"
        try:
            data = PartyData.from_host(x, y, sampling_rate, mend=self.config.privacy != "none")
            if training:
                self.check_data(data)
                found = fingerprint(data.samples)
                self.refuse_other_data(found)
            else:
                self._eval_labels = labels_of(y, x)
        except DataError as error:
            if training:
                self._data_error = error
            else:
                self._eval_data = error
            raise
        if not training:
            self._eval_data = data
            return
        known, self._fingerprint = self._fingerprint, found
        if known not in (None, self._fingerprint):
            self.forget_data()
        self._data, self._data_error = data, None
        self.party = self._name_in_streams()
        self.take_data()

    def describe_data(self, x: Any, y: Any | None = None) -> dict[str, Any]:
        """Return number, shape and dtype of samples, and whether they are finite.

        With ``privacy`` values are not looked at: what cannot be used counts as zero.
        """
        return describe_samples(x, y, values=self.config.privacy == "none")

    def require_data(self) -> PartyData:
        """Return the training data.

        Raises:
            DataError: There are none, or they were refused.
        """
        if self._data_error is not None:
            raise self._data_error
        if self._data is None:
            raise DataError("Expected data before training, got none: call `build_dataset` first.")
        return self._data

    def num_samples(self) -> int:
        """Return the party's number of samples; 0 before it has data."""
        return 0 if self._data is None else len(self._data)

    def _own_streams(self) -> Streams:
        """Return what all random draws of this party come from."""
        config = self.config
        if config.privacy != "none":
            if config.noise_seed is None:
                return SecretStreams()
            return SeededStreams(config.noise_seed)
        by_seed = config.streams == "seed"
        if config.streams == "auto":  # built by hand, it is nobody's deployment
            by_seed = not host.is_worker(self) or host.in_simulation()
        return SeededStreams(self.seed) if by_seed else SecretStreams()

    def _name_in_streams(self) -> str:
        """Return the party's name, for streams of a seed to differ between parties.

        Where it has none, a fingerprint of its data stands in. Not where the party is protected: a
        fingerprint changes as a whole with any one sample.
        """
        if self.config.party:
            return str(self.config.party)
        if self.streams.secret or self.config.privacy != "none":
            return ""
        return self._fingerprint or ""

    # ---- Parameters ------------------------------------------------------------------------

    def configure(self, overrides: Mapping[str, Any]) -> None:
        """Change parameters; those of the constructor that are not named come back.

        Raises:
            ParameterError: Unknown, out of range, or one of ``fixed_parameters``.
        """
        config = parse_config(self.config_class, {**self._given, **overrides})
        refuse_fixed(
            self.fixed_parameters,
            [k for k in self.fixed_parameters if getattr(config, k) != getattr(self.config, k)],
        )
        self.config = config
        if config.party:
            self.party = config.party
        self.apply_config()

    # ---- Logs ------------------------------------------------------------------------------

    def wrap_local_metrics(self, stage: str = "train") -> list[Any]:
        """Return the last round's losses, weighted by the party's number of samples."""
        n = self.num_samples()
        return [host.Mean(name, value * n, n) for name, value in sorted(self._metrics.items())]

    def get_local_metrics(self) -> list[Any]:
        """Return the last round's losses for the host's history."""
        return self.wrap_local_metrics()

    def get_logs(self) -> dict[str, float]:
        """Return the last round's losses by name."""
        return dict(self._metrics)
