"""The wiring of OrchestraFLModel: route, server and configuration, refused before workers start."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from orchestra_strategy import host
from orchestra_strategy.aggregation.server import ServerAggregation, server_aggregation
from orchestra_strategy.aggregation.server_options import ServerOptions
from orchestra_strategy.config import parse_config
from orchestra_strategy.party.parameters import refuse_host_options, strategy_parameters
from orchestra_strategy.party.privacy import unit_of
from orchestra_strategy.party.user_types import USER_TYPES
from orchestra_strategy.rng import DEFAULT_SEED
from orchestra_strategy.runtime.checks import (
    check_aggregation,
    check_backend,
    check_devices,
    check_host_options,
    check_model,
    device_list_of,
    our_strategy,
    route_of,
)

__all__ = ["Wiring", "wired"]

_log = logging.getLogger(__name__)


class Wiring(NamedTuple):
    """What FLModel is built with.

    Attributes:
        model: What builds the network.
        strategy_class: The strategy.
        config: Its parameters.
        parameters: The same by name, as the workers get them.
        server: The PYU that aggregates; None with an aggregator.
        chosen: Whether that is the first device because nothing else was given.
        server_agg_method: What runs on it.
        host_options: FLModel's own: ``num_gpus``, ``consensus_num``.
        simulation: Whether files of all parties are on one disk.
    """

    model: Any
    strategy_class: Any
    config: Any
    parameters: dict[str, Any]
    server: Any
    chosen: bool
    server_agg_method: ServerAggregation | None
    host_options: dict[str, Any]
    simulation: bool


def wired(
    server: Any,
    device_list: Sequence[Any],
    model: Any,
    strategy: str,
    random_seed: int | None,
    server_agg_method: ServerAggregation | None,
    strategy_config: Mapping[str, Any] | None,
    aggregator: Any,
    kwargs: dict[str, Any],
) -> Wiring:
    """Return what FLModel is built with; see :class:`OrchestraFLModel` for the arguments.

    Raises:
        OrchestraError: They cannot work, or contradict each other.
    """
    check_backend(kwargs.pop("backend", "torch"))
    refuse_host_options(kwargs)
    kwargs = {k: v for k, v in kwargs.items() if k not in ("skip_bn", "dp_strategy")}
    device_list = device_list_of(device_list)
    host_options = check_host_options(kwargs, device_list)
    simulation = bool(kwargs.pop("simulation", False)) or host.in_simulation()
    cls = our_strategy(strategy)
    parameters = strategy_parameters(strategy_config, kwargs)
    route = route_of(aggregator, server, server_agg_method, parameters.get("route"))
    parameters["route"] = route
    chosen = server is None and aggregator is None
    if chosen:
        server = next(iter(device_list), None)
    check_devices(server, device_list, aggregator)
    cls.check_route(route)
    config = parse_config(cls.config_class, parameters)
    check_model(cls, model, config)
    if config.noise_seed is not None:
        _log.warning(
            "`noise_seed` is given: whoever knows it can take the noise off again, so the "
            "epsilon of this run holds against nobody. It is for tests."
        )
    if server_agg_method is None and route == "server":
        names = tuple(d.party for d in device_list)
        server_agg_method = _default_server(cls, config, random_seed, names)
    check_aggregation(config, len(device_list))
    cls.check_server(server_agg_method, config)
    handed = _of_the_host(config, device_list, aggregator)
    parameters |= handed
    ring = handed.get("ring_parties"), handed.get("ring_limit")
    unit_of(config).check_sharing(config, len(device_list), *ring)
    if config.noise == "shared" and isinstance(aggregator, host.SecureAggregator):
        _log.warning(
            "SecureAggregator hides the parties' sums by masks of a PCG64, which its own authors "
            "do not hold to be a cryptographic generator: who can predict it sees sums with a part "
            "of the noise alone. SPUAggregator makes real secret shares of them."
        )
    return Wiring(
        model, cls, config, parameters, server, chosen, server_agg_method, host_options, simulation
    )


def _of_the_host(config: Any, device_list: Sequence[Any], aggregator: Any) -> dict[str, Any]:
    """Return parameters that a worker could not find out by itself."""
    found: dict[str, Any] = {"parties": len(device_list)}
    if aggregator is not None:
        ring = not isinstance(aggregator, host.PlainAggregator)
        found["ring_parties"] = len(device_list) if ring else 0
        found["ring_limit"] = host.ring_limit(aggregator) or config.ring_limit
    in_the_open = not unit_of(config).protected
    if config.streams == "auto" and in_the_open:  # a worker may not know the mode
        found["streams"] = "seed" if host.in_simulation() else "secret"
    return found


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
