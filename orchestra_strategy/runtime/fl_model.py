"""FLModel with early refusals, default wiring, and ``fit(strategy_kwargs=)``."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from orchestra_strategy import host
from orchestra_strategy.aggregation.server import ServerAggregation, server_aggregation
from orchestra_strategy.aggregation.server_options import ServerOptions
from orchestra_strategy.config import parse_config
from orchestra_strategy.data.arrays import check_parties
from orchestra_strategy.data.option_checks import as_count
from orchestra_strategy.errors import DataError
from orchestra_strategy.party.parameters import (
    refuse_fixed,
    strategy_parameters,
)
from orchestra_strategy.party.privacy import unit_of
from orchestra_strategy.party.user_types import USER_TYPES
from orchestra_strategy.rng import DEFAULT_SEED
from orchestra_strategy.runtime.checks import (
    check_aggregation,
    check_backend,
    check_devices,
    check_model,
    check_unsupported,
    federated_values,
    our_strategy,
    route_of,
)
from orchestra_strategy.runtime.privacy_budget import affordable, budget_stop, report_largest
from orchestra_strategy.runtime.traffic import Exchange, exchange_of
from orchestra_strategy.runtime.visibility import seen_by

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
        server: The PYU that aggregates (route ``server``); it may be one of the parties.
        device_list: The parties, at least two.
        model: SecretFlow's ``TorchModel``, or a callable that returns the model.
        strategy: A registered name of this package.
        random_seed: Root seed of everything; None means 42.
        server_agg_method: By default a :func:`~orchestra_strategy.server_aggregation` with this
            strategy's parameters and its ``aggregate_weights``.
        strategy_config: Parameters by name.
        aggregator: SecretFlow's PlainAggregator, SecureAggregator or SPUAggregator, in place of a
            server (route ``secure``): nobody clusters, all parties make the centroids of sums.
        **kwargs: Parameters by name, and FLModel's own: ``num_gpus``, and ``consensus_num``, how
            many parties must find their encoder collapsed to stop the training (more than half).

    Attributes:
        stop_reason: Why the last ``fit`` ended before its last round; None if it did not.
        collapse_reason: The same, if that was a collapsed encoder.

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
        aggregator: Any = None,
        **kwargs: Any,
    ) -> None:
        # Training stops when so many parties report a collapsed encoder.
        host_kwargs = {"consensus_num": len(device_list) // 2 + 1}
        host_kwargs |= {k: kwargs.pop(k) for k in ("num_gpus", "consensus_num") if k in kwargs}
        check_backend(kwargs.pop("backend", "torch"))
        check_unsupported(kwargs)
        self._strategy_class = our_strategy(strategy)
        self._parameters = strategy_parameters(strategy_config, kwargs)
        route = route_of(aggregator, server, server_agg_method, self._parameters.get("route"))
        self._parameters["route"] = route
        check_devices(server, device_list, aggregator)
        self._strategy_class.check_route(route)
        config = parse_config(self._strategy_class.config_class, self._parameters)
        check_model(self._strategy_class, model, config)
        if config.noise_seed is not None:
            _log.warning(
                "`noise_seed` is given: whoever knows it can take the noise off again, so the "
                "epsilon of this run holds against nobody. It is for tests."
            )
        if server_agg_method is None and route == "server":
            names = tuple(d.party for d in device_list)
            server_agg_method = _default_server(self._strategy_class, config, random_seed, names)
        check_aggregation(config, len(device_list))
        self._strategy_class.check_server(server_agg_method, config)
        self.strategy_config = config
        if aggregator is not None:
            ring = not isinstance(aggregator, host.PlainAggregator)
            self._parameters["ring_parties"] = len(device_list) if ring else 0
            self._parameters["ring_limit"] = host.ring_limit(aggregator) or config.ring_limit
        in_the_open = not unit_of(config).protected
        if config.streams == "auto" and in_the_open:  # a worker may not know the mode
            self._parameters["streams"] = "seed" if host.in_simulation() else "secret"
        super().__init__(
            server=server,
            device_list=list(device_list),
            model=model,
            strategy=strategy,
            backend="torch",
            random_seed=random_seed,
            aggregator=aggregator,
            **({} if server_agg_method is None else {"server_agg_method": server_agg_method}),
            **host_kwargs,
            **self._parameters,
        )
        self._restored = False
        self._seed = DEFAULT_SEED if random_seed is None else random_seed
        self._consensus: int = host_kwargs["consensus_num"]
        self.stop_reason: str | None = None
        self.collapse_reason: str | None = None
        self._configure({})

    @property
    def workers(self) -> Mapping[Any, Any]:
        """The parties' workers by PYU: SecretFlow's proxies, whose methods return references."""
        return host.workers_of(self)

    def restored(self) -> None:
        """Say that all parties have just been put where they were at the end of a round."""
        self._restored = True

    def initialize_weights(self) -> Any:
        """Let all parties start from their average; FLModel calls it at the start of ``fit``.

        Not after a checkpoint has been read: they have the average already, and fixed-point
        arithmetic would move its last bits.
        """
        if self._restored:
            self._restored = False
            return None
        return super().initialize_weights()

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
            x: FedNdarray or HDataFrame, one partition per party, of any size; or a mapping from
                PYU to the path of the party's data (see
                :func:`~orchestra_strategy.data.load_local`), or to an array.
            y: Ignored but for its length: training uses no labels.
            epochs: Rounds; each party does ``local_epochs`` passes over its data in each. With
                ``user_type="local_gradient"`` a round is one batch, and an epoch as many rounds as
                the smallest party has batches.
            batch_size: Samples per local step, at every party; overrides the parameter.
            strategy_kwargs: Parameters for this call only; not those that decide the form of what
                the parties hold (``memory_size`` and the like), which the constructor takes. They
                reach the parties; the server's clustering keeps the constructor's.
            verbose: 1 shows FLModel's own progress bar.
            callbacks: FLModel's callbacks.

        Returns:
            FLModel's history: ``global_history`` and ``local_history``.

        Raises:
            DataError: Any party's data cannot be used; all problems in one message.
            PrivacyError: The privacy budget does not allow a single round.
            ParameterError: As in the constructor.
        """
        as_count("epochs", epochs)
        overrides = dict(strategy_kwargs or {})
        if batch_size is not None:
            overrides["batch_size"] = batch_size
        refuse_fixed(self._strategy_class.fixed_parameters, overrides)
        parse_config(self._strategy_class.config_class, {**self._parameters, **overrides})
        x, y = federated_values(x), None if y is None else federated_values(y)
        sizes = [r["num_samples"] for r in self._described(x, y).values()]
        rate, aggregate_freq = self._host_steps(sizes, overrides)
        with self._configured(overrides):
            rounds_per_epoch = math.ceil(math.ceil(1.0 / rate) / aggregate_freq)
            planned, epochs = epochs, affordable(self.workers, sizes, epochs, rounds_per_epoch)
            history = super().fit(
                x,
                x if y is None else y,
                batch_sampling_rate=rate,
                aggregate_freq=aggregate_freq,
                epochs=epochs,
                verbose=verbose,
                callbacks=callbacks,
                random_seed=self._seed,
            )
            report_largest(history)
            self.stop_reason = self.collapse_reason = self._why_stopped()
            if self.stop_reason is None and epochs < planned:
                self.stop_reason = budget_stop(epochs, planned)
            return history

    def _why_stopped(self) -> str | None:
        """Ask the parties why training ended early, and warn if it did."""
        found: dict[str, str | None] = host.reveal(
            {d.party: w.collapse_found() for d, w in self.workers.items()}
        )
        reasons = {party: reason for party, reason in found.items() if reason is not None}
        if len(reasons) < self._consensus:
            return None
        party, reason = next(iter(reasons.items()))
        told = (
            f"Training stopped: the encoder has collapsed at {len(reasons)} of {len(found)} "
            f"parties; {party}: {reason} Lower `lr`, or set `stop_on_collapse=False` to go on."
        )
        _log.warning("%s", told)
        return told

    def evaluate(self, x: Any, y: Any = None, **kwargs: Any) -> Any:
        """Measure the encoder at the parties: its health, and with labels its clusters.

        Args:
            x: FedNdarray or HDataFrame.
            y: Class numbers, in the same form, or None; they stay at their parties.
            **kwargs: FLModel's; ``return_dict=True`` gives metrics by name.

        Returns:
            FLModel's pair: the parties' numbers averaged by their samples, and each party's.

        Raises:
            DataError: The data cannot be used.
            PrivacyError: The samples are protected, see ``log_unprotected``.
        """
        unit_of(self.strategy_config).check_telling(self.strategy_config)
        x, y = federated_values(x), None if y is None else federated_values(y)
        self._described(x, y, min_samples=1)
        self._configure({})
        # Workers look at all their samples at once; one sample a step passes FLModel's limits.
        return super().evaluate(x, x if y is None else y, **{**kwargs, "batch_size": 1})

    def predict(self, x: Any, output: str | None = None, **kwargs: Any) -> Any:
        """Return what the encoder makes of samples, which stays at the parties until revealed.

        Args:
            x: FedNdarray or HDataFrame.
            output: ``"features"``, ``"projections"`` or ``"clusters"``; the parameter
                ``predict_output`` by default.
            **kwargs: FLModel's.

        Returns:
            ``{PYU: PYUObject}``: of features (n, d), projections (n, p) or ids of clusters (n,).

        Raises:
            DataError: The data cannot be used.
            ParameterError: There is no such output.
        """
        x = federated_values(x)
        self._described(x, min_samples=1)
        overrides = {} if output is None else {"predict_output": output}
        parse_config(self._strategy_class.config_class, {**self._parameters, **overrides})
        with self._configured(overrides):
            return super().predict(x, **{**kwargs, "batch_size": 1})

    def _host_steps(self, sizes: Sequence[int], overrides: Mapping[str, Any]) -> tuple[float, int]:
        """Return FLModel's sampling rate and how many of its steps lie between aggregations."""
        most = min(1.0, _HOST_MAX_BATCH / max(sizes))
        batch_size = overrides.get("batch_size", self.strategy_config.batch_size)
        user_type = USER_TYPES[self.strategy_config.user_type]
        return user_type.host_steps(most, batch_size, sizes)

    def check_data(
        self, x: Any, y: Any = None, min_samples: int | None = None
    ) -> dict[str, dict[str, Any]]:
        """Ask every party for the size and type of its data, and refuse what cannot be used.

        Args:
            x: As in :meth:`fit`.
            y: The same, or None.
            min_samples: Of each party; by default what training needs.

        Returns:
            Per party: number of samples, shape and dtype of one, whether all are finite.
        """
        x, y = federated_values(x), None if y is None else federated_values(y)
        return self._described(x, y, min_samples)

    def _described(
        self, x: Any, y: Any = None, min_samples: int | None = None
    ) -> dict[str, dict[str, Any]]:
        """Check FedNdarrays; see :meth:`check_data`."""
        for name, federated in (("x", x), ("y", y)):
            if federated is not None and set(federated.partitions) != set(self.workers):
                raise DataError(
                    f"Expected `{name}` to have one partition per device of `device_list`, got "
                    f"{sorted(d.party for d in federated.partitions)} for "
                    f"{sorted(d.party for d in self.workers)}."
                )
        described = {
            device.party: worker.describe_data(
                x.partitions[device], None if y is None else y.partitions[device]
            )
            for device, worker in self.workers.items()
        }
        reports = host.reveal_within(described, _START_SECONDS, "a description of the data")
        if min_samples is None:
            min_samples = getattr(self.strategy_config, "k_min", 1)
        check_parties(reports, min_samples)
        return reports

    def manifest(self) -> list[dict[str, Any]]:
        """Return all that leaves a party in a round, one dictionary per entry."""
        worker = next(iter(self.workers.values()))
        rows: list[dict[str, Any]] = host.reveal(worker.manifest_rows())
        parties = [d.party for d in self.workers]
        server = getattr(self.server, "party", "")
        wide = host.bytes_per_number(self._aggregator) // 4
        return [
            {
                **row,
                "bytes": row["bytes"] * (wide if row["to"] == "aggregator" else 1),
                "seen_by": seen_by(row, server, self._aggregator, parties),
            }
            for row in rows
        ]

    def exchange(self, manifest: Sequence[Mapping[str, Any]]) -> Exchange:
        """Return the bytes of a party's exchanges.

        Args:
            manifest: What :meth:`manifest` returns.
        """
        return exchange_of(self.workers, manifest, self._aggregator)

    def left_out(self) -> dict[str, dict[int, str]]:
        """Return the parties that were left out of rounds, by round and with the reason."""
        answers = host.reveal({d.party: w.left_out_of() for d, w in self.workers.items()})
        return {party: rounds for party, rounds in answers.items() if rounds}

    @contextmanager
    def _configured(self, overrides: Mapping[str, Any]) -> Iterator[None]:
        """Let the parties have this call's parameters for the length of a block."""
        self._configure(overrides)
        yield
        # Not after an error, which may be of this process alone (Ctrl-C): the others would not
        # answer. The next call sets all parameters anew.
        self._configure({})

    def _configure(self, overrides: Mapping[str, Any]) -> None:
        """Hand every party its name and this call's parameters, and wait for it."""
        answers = {
            d.party: w.configure({**overrides, "party": d.party}) for d, w in self.workers.items()
        }
        host.reveal_within(answers, _START_SECONDS, "the workers to start")


def _default_server(
    cls: Any, config: Any, seed: int | None, party_names: tuple[str, ...]
) -> ServerAggregation:
    own = {"seed", "aggregate_weights", "max_local_centroids", "party_names"}
    names = ServerOptions.model_fields.keys() & type(config).model_fields.keys() - own
    options = {name: getattr(config, name) for name in names}
    options["aggregate_weights"] = cls.own_aggregation()
    if config.sends_clusters:
        users = USER_TYPES[config.user_type].users_of(config)
        options["max_local_centroids"] = config.num_local_clusters * users
    seed = DEFAULT_SEED if seed is None else seed
    return server_aggregation(**options, seed=seed, party_names=party_names)
