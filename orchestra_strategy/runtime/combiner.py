"""A job's server or aggregator, as the trainer takes it."""

from collections.abc import Sequence
from typing import Any

from orchestra_strategy import host

__all__ = ["combiner"]


def combiner(aggregator: str | None, centre: Any, devices: Sequence[Any]) -> dict[str, Any]:
    """Return who combines what the parties send, as arguments of the trainer.

    Args:
        aggregator: ``secure``, ``plain``, or None for a server.
        centre: The PYU of the server, which runs an aggregator, too.
        devices: The parties' PYUs.
    """
    if aggregator == "secure":
        return {"aggregator": host.SecureAggregator(centre, list(devices))}
    if aggregator == "plain":
        return {"aggregator": host.PlainAggregator(centre)}
    return {"server": centre}
