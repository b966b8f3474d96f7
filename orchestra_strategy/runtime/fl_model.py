"""FLModel with early refusals, default wiring, and ``fit(strategy_kwargs=)``."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from orchestra_strategy import host
from orchestra_strategy.aggregation.server import ServerAggregation, server_aggregation
from orchestra_strategy.algorithms.model import parts_of
from orchestra_strategy.config import parse_config
from orchestra_strategy.data.arrays import check_parties
from orchestra_strategy.errors import DataError, HostError, ParameterError
from orchestra_strategy.strategies.base import FederatedStrategy
from orchestra_strategy.strategies.registry import lookup_strategy
from orchestra_strategy.strategies.worker import refuse_fixed, strategy_parameters

__all__ = ["OrchestraFLModel"]

_log = logging.getLogger(__name__)

# FLModel refuses a step of 1024 samples or more at any party; ours do not use its steps.
_HOST_MAX_BATCH = 1000

# Starting a worker takes seconds (it imports SecretFlow), on a busy machine minutes.
_START_SECONDS = 300.0


class OrchestraFLModel(host.FLModel):  # type: ignore[misc]
    """SecretFlow's FLModel for the strategies of this package.

    Beyond FLModel: ``fit`` takes no labels, makes one aggregation per epoch (so an epoch is a
    round), keeps the batch size asked for at every party, and takes ``strategy_kwargs``; bad
    arguments and bad data are refused on the driver, in one sentence each, before training.

    Args:
        server: The PYU that aggregates; it may be one of the parties.
        device_list: The parties, at least two.
        model: SecretFlow's ``TorchModel``, or a callable that returns the model.
        strategy: A registered name of this package.
        random_seed: Root seed of everything; None means 42.
        server_agg_method: By default a :func:`~orchestra_strategy.server_aggregation` with this
            strategy's parameters and its ``aggregate_weights``.
        strategy_config: Parameters by name.
        **kwargs: Parameters by name, and FLModel's own (``num_gpus``, ...).

    Raises:
        HostError: The devices cannot be used in that way.
        ParameterError: A parameter is unknown, out of range, or contradicts another one.
        ModelError: The model lacks a part.
    """

    def __init__(
        self,
        server: Any = None,
        device_list: Sequence[Any] = (),
        model: Any = None,
        strategy: str = "orchestra",
        random_seed: int | None = None,
        server_agg_method: ServerAggregation | None = None,
        strategy_config: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        host_kwargs = {k: kwargs.pop(k) for k in ("num_gpus", "consensus_num") if k in kwargs}
        _check_backend(kwargs.pop("backend", "torch"))
        _check_unsupported(kwargs)
        _check_devices(server, device_list)
        self._strategy_class = _our_class(strategy)
        self._parameters = strategy_parameters(strategy_config, kwargs)
        config = parse_config(self._strategy_class.config_class, self._parameters)
        _check_model(model)
        if server_agg_method is None:
            server_agg_method = _default_server(self._strategy_class, config, random_seed)
        self._strategy_class.check_server(server_agg_method, config)
        self.strategy_config = config
        super().__init__(
            server=server,
            device_list=list(device_list),
            model=model,
            strategy=strategy,
            backend="torch",
            random_seed=random_seed,
            server_agg_method=server_agg_method,
            **host_kwargs,
            **self._parameters,
        )
        self._seed = 42 if random_seed is None else random_seed
        self._configure({})

    def fit(
        self,
        x: Any,
        y: Any = None,
        epochs: int = 1,
        batch_size: int | None = None,
        strategy_kwargs: Mapping[str, Any] | None = None,
        verbose: int = 0,
        callbacks: Any = None,
    ) -> Any:
        """Train for ``epochs`` rounds.

        Args:
            x: FedNdarray or HDataFrame; one partition per party, of any size.
            y: Ignored but for its length: training uses no labels.
            epochs: Rounds; each party does ``local_epochs`` passes over its data in each.
            batch_size: Samples per local step, at every party; overrides the parameter.
            strategy_kwargs: Parameters for this call only; not those that decide the form of what
                the parties hold (``memory_size`` and the like), which the constructor takes.
            verbose: 1 shows FLModel's own progress bar.
            callbacks: FLModel's callbacks.

        Returns:
            FLModel's history: ``global_history`` and ``local_history``.

        Raises:
            DataError: Any party's data cannot be used; all problems in one message.
            ParameterError: As in the constructor.
        """
        if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
            raise ParameterError(
                f"Expected `epochs` to be an integer of at least 1, got {epochs!r}."
            )
        overrides = dict(strategy_kwargs or {})
        if batch_size is not None:
            overrides["batch_size"] = batch_size
        refuse_fixed(self._strategy_class.fixed_parameters, overrides)
        parse_config(self._strategy_class.config_class, {**self._parameters, **overrides})
        x, y = _values(x), None if y is None else _values(y)
        largest = max(r["num_samples"] for r in self.check_data(x, y).values())
        rate = min(1.0, _HOST_MAX_BATCH / largest)
        self._configure(overrides)
        try:
            return super().fit(
                x,
                x if y is None else y,
                batch_sampling_rate=rate,
                aggregate_freq=math.ceil(1.0 / rate),
                epochs=epochs,
                verbose=verbose,
                callbacks=callbacks,
                random_seed=self._seed,
            )
        finally:
            self._configure({})

    def check_data(self, x: Any, y: Any = None) -> dict[str, dict[str, Any]]:
        """Ask every party for the size and type of its data, and refuse what cannot be trained on.

        Args:
            x: FedNdarray or HDataFrame.
            y: The same, or None.

        Returns:
            Per party: number of samples, shape and dtype of one, whether all are finite.
        """
        x, y = _values(x), None if y is None else _values(y)
        for name, federated in (("x", x), ("y", y)):
            if federated is not None and set(federated.partitions) != set(self._workers):
                raise DataError(
                    f"Expected `{name}` to have one partition per device of `device_list`, got "
                    f"{sorted(d.party for d in federated.partitions)} for "
                    f"{sorted(d.party for d in self._workers)}."
                )
        described = {
            device.party: worker.describe_data(
                x.partitions[device], None if y is None else y.partitions[device]
            )
            for device, worker in self._workers.items()
        }
        reports = host.reveal_within(described, _START_SECONDS, "a description of the data")
        check_parties(reports, getattr(self.strategy_config, "k_min", 1))
        return reports

    def manifest(self) -> list[dict[str, Any]]:
        """Return all that leaves a party in a round, one dictionary per entry."""
        worker = next(iter(self._workers.values()))
        rows: list[dict[str, Any]] = host.reveal(worker.manifest_rows())
        return rows

    def _configure(self, overrides: Mapping[str, Any]) -> None:
        """Hand every party its name and this call's parameters, and wait for it."""
        answers = {
            d.party: w.configure({**overrides, "party": d.party}) for d, w in self._workers.items()
        }
        host.reveal_within(answers, _START_SECONDS, "the workers to start")


def _check_backend(backend: str) -> None:
    if backend != "torch":
        raise HostError(f"Expected `backend` to be 'torch', got {backend!r}.")


def _check_unsupported(kwargs: dict[str, Any]) -> None:
    if kwargs.pop("skip_bn", False):
        raise ParameterError(
            "Expected `skip_bn` to be False, got True: SecretFlow's flag misaligns the weights. "
            "Use `norm='group'` in the model instead."
        )
    if kwargs.pop("aggregator", None) is not None:
        raise HostError(
            "Expected `server` and `server_agg_method` (centroid route 'server'), got `aggregator`."
        )
    if kwargs.pop("dp_strategy", None) is not None:
        raise ParameterError(
            "Expected no `dp_strategy`: SecretFlow's clips whole weights instead of updates and "
            "under-reports the budget of several parties."
        )


def _check_devices(server: Any, device_list: Sequence[Any]) -> None:
    if not isinstance(server, host.PYU):
        raise HostError(
            f"Expected `server` to be a PYU (it aggregates), got {server!r}; for example "
            "`server=alice`."
        )
    strange = [d for d in device_list if not isinstance(d, host.PYU)]
    if strange:
        raise HostError(f"Expected `device_list` to hold PYUs, got {strange[0]!r}.")
    parties = [d.party for d in device_list]
    twice = sorted({p for p in parties if parties.count(p) > 1})
    if twice:
        raise HostError(f"Expected every device once in `device_list`, got {twice} more than once.")
    if host.on_local_ray() and host.logical_cpus() <= len(parties):
        raise HostError(
            f"Expected Ray to have more logical CPUs than there are parties, got "
            f"{host.logical_cpus()} for {len(parties)}: workers would wait for ever. Start "
            f"SecretFlow with `num_cpus={4 * len(parties) + 8}`."
        )
    if len(parties) < 2:
        raise HostError(
            f"Expected `device_list` to have at least two parties, got {len(parties)}: "
            "SecretFlow's server route cannot run with fewer."
        )


def _our_class(strategy: str) -> Any:
    cls = lookup_strategy(strategy)
    if not issubclass(cls, FederatedStrategy):
        raise ParameterError(
            f"Expected `strategy` to be one of orchestra_strategy, got {strategy!r}; use "
            "SecretFlow's own FLModel for it."
        )
    return cls


def _check_model(model: Any) -> None:
    """Build the model once on the driver and look for its parts."""
    if model is None:
        raise ParameterError(
            "Expected `model` to be a TorchModel or a callable that returns the network, got None; "
            "for example `functools.partial(orchestra_model, 'conv4', in_channels=1)`."
        )
    build = getattr(model, "model_fn", None) or model
    with torch.random.fork_rng():
        parts_of(build(**getattr(model, "kwargs", {})))


def _default_server(cls: Any, config: Any, seed: int | None) -> ServerAggregation:
    options = {
        name: getattr(config, name)
        for name in ("num_global_clusters", "temperature", "torch_threads")
        if hasattr(config, name)
    }
    return server_aggregation(
        **options, seed=42 if seed is None else seed, aggregate_weights=cls.aggregate_weights
    )


def _values(federated: Any) -> Any:
    if isinstance(federated, host.HDataFrame):
        return federated.values
    if not isinstance(federated, host.FedNdarray):
        raise DataError(
            "Expected `x` (and `y`, where given) to be a FedNdarray or an HDataFrame, got "
            f"{type(federated).__name__}."
        )
    return federated
