"""Bytes between a party and the others: what an exchange takes, and what went over the wire."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestra_strategy import host
from orchestra_strategy.runtime.cluster_session import wire_bytes

__all__ = ["Exchange", "exchange_of", "traffic_of"]


@dataclass(frozen=True)
class Exchange:
    """Bytes of one party's exchanges.

    Attributes:
        up_start: What it sends in the first exchange, without training (round 0).
        up: What it sends in a round, at most.
        down_start: What comes back in the first exchange.
        down: What comes back in a round.
    """

    up_start: int
    up: int
    down_start: int
    down: int


def exchange_of(
    workers: Mapping[Any, Any], manifest: Sequence[Mapping[str, Any]], aggregator: Any
) -> Exchange:
    """Return the bytes of a party's exchanges.

    Args:
        workers: The parties'.
        manifest: Rows of ``OrchestraFLModel.manifest``.
        aggregator: SecretFlow's, or None.
    """
    back: dict[str, int] = host.reveal(next(iter(workers.values())).reply_bytes())
    wide = host.bytes_per_number(aggregator) // 4
    up = {
        when: sum(row["bytes"] for row in manifest if row["when"] in (when, "both"))
        for when in ("start", "round")
    }
    return Exchange(up["start"], up["round"], back["start"] * wide, back["round"] * wide)


def traffic_of(exchange: Exchange, ledger: Sequence[Mapping[str, Any]]) -> dict[str, int | None]:
    """Return the bytes of a training, round 0 included.

    Returns:
        ``up_per_party`` and ``down_per_party``, computed; ``sent`` and ``received``, what this
        process has exchanged with all its peers over the wire, in this run; None outside a cluster.
    """
    sent, received = wire_bytes() or (None, None)
    return {
        "up_per_party": exchange.up_start + sum(row["bytes_up_per_party"] for row in ledger),
        "down_per_party": exchange.down_start + sum(row["bytes_down_per_party"] for row in ledger),
        "sent": sent,
        "received": received,
    }
