"""The answer to a party that is its own server: what comes back where nobody else takes part."""

from typing import Any

from orchestra_strategy.aggregation.server import ServerAggregation
from orchestra_strategy.aggregation.server_options import ServerOptions
from orchestra_strategy.party.roles import Party

__all__ = ["answer_of_one"]


def answer_of_one(party: Party, payload: Any) -> Any:
    """Return what a server, or an aggregator, answers to the only party.

    Args:
        party: A strategy.
        payload: What it has sent last.

    Raises:
        ReplyError: The payload cannot be used, NaN for instance.
    """
    if party.config.route == "secure":
        return payload  # a mean of one; sums are in units of the party's own weight
    shared = ServerOptions.model_fields.keys() & type(party.config).model_fields.keys()
    options = {name: getattr(party.config, name) for name in shared}
    options |= {"on_bad_reply": "fail", "aggregate_weights": type(party).own_aggregation()}
    if not party.config.combining.needs_quality:
        options["aggregation"] = "mean"  # of one, any of them is that one
    return ServerAggregation(**options, seed=party.seed)([payload])[0]
