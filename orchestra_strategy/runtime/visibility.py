"""The receivers of what leaves a party, by the server or aggregator that FLModel was given."""

from collections.abc import Mapping, Sequence
from typing import Any

from orchestra_strategy import host

__all__ = ["seen_by"]


def seen_by(row: Mapping[str, Any], server: str, aggregator: Any, parties: Sequence[str]) -> str:
    """Return who sees one row of a manifest, in words.

    Args:
        row: A row of ``manifest_rows()``.
        server: The party that aggregates on route ``server``.
        aggregator: SecretFlow's, on route ``secure``.
        parties: All of them.
    """
    if row["to"] == "driver":
        if host.in_simulation():
            return "the driver"
        drivers = ", ".join(host.all_parties())
        return f"{drivers}: each party's, as every party's process is a driver"
    if row["to"] == "server":
        return f"{server}: each party's"
    name = type(aggregator).__name__
    hosted_by, _ = host.aggregator_parties(aggregator)
    if isinstance(aggregator, host.SPUAggregator):
        if row["name"] == "num_samples":
            return f"nobody: only as secret shares, through {name}"
        return f"nobody alone: only the {_result(parties)}, through {name}"
    if isinstance(aggregator, host.SecureAggregator):
        if row["name"] == "num_samples":
            return f"{hosted_by}: each party's, through {name}"
        return f"nobody alone: only the {_result(parties)}, through {name}"
    return f"{hosted_by}: each party's, since {name} computes in the clear; all parties: the mean"


def _result(parties: Sequence[str]) -> str:
    # Whoever knows the sum and its own part of it knows the rest: of two parties, the other's.
    two = " (of two parties, each can work out the other's from it)" if len(parties) == 2 else ""
    return f"sum, by all parties{two}"
