"""A worker's parameters on their way from FLModel: joined, checked against its wiring, fixed."""

from collections.abc import Iterable, Mapping
from typing import Any

from orchestra_strategy.errors import ParameterError

__all__ = [
    "HOST_KEYWORDS",
    "check_wiring",
    "refuse_fixed",
    "refuse_host_options",
    "strategy_parameters",
]

HOST_KEYWORDS = frozenset(
    {
        *("builder_base", "device", "num_gpus", "random_seed", "skip_bn", "strategy_config"),
        *("server_agg_method", "dp_strategy", "simulation", "use_gpu"),
    }
)
"""What FLModel passes to every strategy on its own account."""


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


def refuse_host_options(kwargs: Mapping[str, Any]) -> None:
    """Refuse what FLModel takes and this package does not.

    Raises:
        ParameterError: ``skip_bn`` or ``dp_strategy`` is asked for.
    """
    if kwargs.get("skip_bn"):
        raise ParameterError(
            "Expected `skip_bn` to be False, got True: SecretFlow's flag sees only top-level "
            "BatchNorm and misaligns the rest. Use `norm='group'` in the model instead."
        )
    if kwargs.get("dp_strategy") is not None:
        raise ParameterError(
            "Expected no `dp_strategy`: SecretFlow's clips whole weights instead of updates and "
            "under-reports the budget of several parties; use `privacy='user'` or 'record' with "
            "`noise_multiplier` or `target_epsilon`."
        )


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
            "`server_agg_method=server_aggregation(...)`, or an `aggregator` and `route='secure'`; "
            "`OrchestraFLModel` does that by itself."
        )
