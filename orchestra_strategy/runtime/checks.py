"""Refusals of OrchestraFLModel on the driver, before any worker starts."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from orchestra_strategy import host
from orchestra_strategy.algorithms.own_network import fresh_network
from orchestra_strategy.data.option_checks import as_count
from orchestra_strategy.data.sources import fed_from_paths, fed_in_unit_range, fed_ndarray
from orchestra_strategy.errors import DataError, HostError, ParameterError
from orchestra_strategy.global_randomness import first_weights_of
from orchestra_strategy.rng import DEFAULT_SEED
from orchestra_strategy.runtime.cluster_session import in_a_cluster
from orchestra_strategy.strategies.base import FederatedStrategy
from orchestra_strategy.strategies.registry import lookup_strategy

__all__ = [
    "built_once",
    "check_aggregation",
    "check_backend",
    "check_devices",
    "check_host_options",
    "check_model",
    "device_list_of",
    "federated_values",
    "our_strategy",
    "route_of",
]


def check_aggregation(config: Any, parties: int) -> None:
    """Refuse a way to combine replies that cannot do with so many parties what it says."""
    config.combining.check(parties, config.trim)
    if config.on_bad_reply == "leave_out" and config.min_parties >= parties:
        raise ParameterError(
            f"Expected `min_parties` to be below the number of parties for "
            f"`on_bad_reply='leave_out'`, got {config.min_parties} of {parties}: no reply could be "
            "left out."
        )


def check_backend(backend: str) -> None:
    """Refuse another backend than torch."""
    if backend != "torch":
        raise HostError(f"Expected `backend` to be 'torch', got {backend!r}.")


def check_host_options(kwargs: dict[str, Any], device_list: Sequence[Any]) -> dict[str, Any]:
    """Take out FLModel's own options and return them, with our default of ``consensus_num``.

    Raises:
        ParameterError: One is no whole number in its range.
    """
    most = max(len(device_list), 1)
    # Training stops when so many parties report a collapsed encoder.
    consensus = as_count("consensus_num", kwargs.pop("consensus_num", len(device_list) // 2 + 1))
    if consensus > max(most, 2):
        raise ParameterError(
            f"Expected `consensus_num` to be at most the number of parties, got {consensus} of "
            f"{most}: it is how many have to find their encoder collapsed."
        )
    num_gpus = kwargs.pop("num_gpus", 0)
    if isinstance(num_gpus, bool) or not isinstance(num_gpus, int | float) or num_gpus < 0:
        raise ParameterError(f"Expected `num_gpus` to be a number >= 0, got {num_gpus!r}.")
    return {"consensus_num": consensus, "num_gpus": num_gpus}


def route_of(aggregator: Any, server: Any, server_agg_method: Any, given: str | None) -> str:
    """Return the route that follows from FLModel's arguments.

    Args:
        aggregator: One of SecretFlow's, or None.
        server: A PYU, or None.
        server_agg_method: As given.
        given: The parameter ``route`` as given.

    Raises:
        HostError: The arguments belong to two routes.
        ParameterError: ``route`` is another one than theirs.
    """
    if aggregator is not None and (server is not None or server_agg_method is not None):
        name = "server" if server is not None else "server_agg_method"
        raise HostError(
            f"Expected either an `aggregator` (route 'secure') or a `server` (route 'server'), got "
            f"`aggregator` and `{name}`; leave one of them out."
        )
    if aggregator is not None and not isinstance(aggregator, host.Aggregator):
        raise HostError(
            "Expected `aggregator` to be SecretFlow's PlainAggregator, SecureAggregator or "
            f"SPUAggregator, got {aggregator!r}."
        )
    if isinstance(aggregator, host.SPUAggregator) and in_a_cluster():
        raise HostError(
            "Expected `aggregator` in cluster mode to be a SecureAggregator, got an SPUAggregator: "
            "its nodes run programs that one party sends to the others, over ports of their own "
            "without this job's keys and limits; use `SecureAggregator(party, parties)`."
        )
    route = "server" if aggregator is None else "secure"
    if given is not None and given != route:
        remedy = (
            "leave out the `aggregator`" if given == "server" else "give an `aggregator`, no server"
        )
        raise ParameterError(
            f"Expected `route` to be '{route}', as the arguments say, got {given!r}; {remedy}."
        )
    return route


def device_list_of(devices: Any, name: str = "device_list") -> list[Any]:
    """Return devices as a list of PYUs.

    Args:
        devices: As given.
        name: The argument's, for the message.

    Raises:
        HostError: It is a mapping, a single device, or holds something else than PYUs.
    """
    if isinstance(devices, Mapping):
        raise HostError(
            f"Expected `{name}` to be a list of PYUs, got a mapping; give "
            "`list(devices.values())`."
        )
    if isinstance(devices, str) or not isinstance(devices, Iterable):
        raise HostError(f"Expected `{name}` to be a list of PYUs, got {devices!r}.")
    found = list(devices)
    strange = [d for d in found if not isinstance(d, host.PYU)]
    if strange:
        raise HostError(
            f"Expected `{name}` to hold PYUs, got {strange[0]!r}; `session(...)` gives them."
        )
    return found


def check_devices(server: Any, device_list: Sequence[Any], aggregator: Any = None) -> None:
    """Refuse devices with which FLModel would fail late, or wait for ever."""
    parties = [d.party for d in device_list]
    if len(parties) < 2:
        raise HostError(
            f"Expected `device_list` to have at least two parties, got {len(parties)}: "
            "SecretFlow's server route cannot run with fewer."
        )
    if aggregator is None and not isinstance(server, host.PYU):
        raise HostError(
            f"Expected `server` to be a PYU (it aggregates), got {server!r}; for example "
            "`server=alice`, or leave it out for the first of `device_list`."
        )
    twice = sorted({p for p in parties if parties.count(p) > 1})
    if twice:
        raise HostError(f"Expected every device once in `device_list`, got {twice} more than once.")
    actors = len(parties) * (2 if isinstance(aggregator, host.SecureAggregator) else 1)
    if host.on_local_ray() and host.logical_cpus() <= actors:
        raise HostError(
            f"Expected Ray to have more logical CPUs than there are parties, got "
            f"{host.logical_cpus()} for {len(parties)}: workers would wait for ever. Start "
            f"SecretFlow with `num_cpus={4 * len(parties) + 8}`."
        )
    _, members = (None, None) if aggregator is None else host.aggregator_parties(aggregator)
    if members and members != sorted(parties):
        raise HostError(
            f"Expected the parties of `aggregator` to be those of `device_list`, got {members} and "
            f"{sorted(parties)}."
        )


def our_strategy(strategy: str) -> Any:
    """Return the class of a registered strategy of this package, or refuse the name."""
    cls = lookup_strategy(strategy)
    if not issubclass(cls, FederatedStrategy):
        raise ParameterError(
            f"Expected `strategy` to be one of orchestra_strategy, got {strategy!r}; use "
            "SecretFlow's own FLModel for it."
        )
    return cls


def check_model(cls: Any, model: Any, config: Any) -> None:
    """Build the model once on the driver, for the strategy to look for its parts."""
    if model is None:
        raise ParameterError(
            "Expected `model` to be a network, a callable that returns one or a TorchModel, got "
            "None; for example `functools.partial(orchestra_model, 'conv4', in_channels=1)`."
        )
    built = built_once(model)
    cls.check_model(built)
    cls.check_privacy(config, built)


def built_once(model: Any) -> Any:
    """Return a network to look at on the driver; it is nobody's."""
    with first_weights_of(DEFAULT_SEED):
        return fresh_network(model)


def federated_values(federated: Any, options: Mapping[str, Any] | None = None) -> Any:
    """Return a FedNdarray: of an HDataFrame its values, of ``{PYU: path or array}`` the contents.

    Args:
        federated: FedNdarray, HDataFrame, or a mapping.
        options: How paths are read, see :func:`~orchestra_strategy.data.load_local`; of them
            ``value_range`` is for arrays, too.

    Raises:
        DataError: It is anything else, or a party cannot read its data.
        ParameterError: An option is unknown, or given where there is no path.
    """
    options = dict(options or {})
    of_arrays = isinstance(federated, Mapping) and any(
        isinstance(value, np.ndarray) for value in federated.values()
    )
    if isinstance(federated, Mapping) and not of_arrays:
        return fed_from_paths(federated, **options)
    value_range = options.pop("value_range", None)
    if options:
        raise ParameterError(
            "Expected options of reading only with {PYU: path} (`value_range` alone is for arrays, "
            f"too), got {sorted(options)}."
        )
    if of_arrays:
        return fed_ndarray(federated, value_range=value_range)
    if isinstance(federated, host.HDataFrame):
        federated = federated.values
    if not isinstance(federated, host.FedNdarray):
        raise DataError(
            "Expected `x` (and `y`, where given) to be a FedNdarray, an HDataFrame or {PYU: path}, "
            f"got {type(federated).__name__}."
        )
    return federated if value_range is None else fed_in_unit_range(federated, value_range)
