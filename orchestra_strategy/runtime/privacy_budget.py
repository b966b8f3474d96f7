"""The privacy budget as the driver sees it: how many rounds it allows, and what has been spent."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from orchestra_strategy import host
from orchestra_strategy.errors import PrivacyError
from orchestra_strategy.party.privacy.protected import EPSILON

__all__ = ["affordable", "budget_stop", "report_largest", "spent"]

_log = logging.getLogger(__name__)


def affordable(
    workers: Mapping[Any, Any], sizes: Sequence[int], epochs: int, rounds_per_epoch: int
) -> int:
    """Return how many of ``epochs`` every party's budget allows: the poorest party decides.

    Args:
        workers: Party's PYU -> worker.
        sizes: Number of samples, by party in the same order.
        epochs: How many are asked for.
        rounds_per_epoch: Aggregations in each.

    Raises:
        PrivacyError: Not a single one; nothing has been trained or spent.
    """
    pairs = zip(workers.items(), sizes, strict=True)
    left: dict[str, int | None] = host.reveal(
        {d.party: w.privacy_rounds_left(n) for (d, w), n in pairs}
    )
    limits = {party: rounds for party, rounds in left.items() if rounds is not None}
    if not limits:
        return epochs
    poorest = min(limits, key=lambda party: limits[party])
    if limits[poorest] < rounds_per_epoch:
        raise PrivacyError(
            f"Expected a privacy budget for {rounds_per_epoch} more round(s), got "
            f"{limits[poorest]} left at party `{poorest}`. Nothing was trained, and the parties "
            "keep their state; stop here, or resume from a checkpoint with a larger `max_epsilon`."
        )
    return min(epochs, limits[poorest] // rounds_per_epoch)


def budget_stop(done: int, planned: int) -> str:
    """Warn of a training that the budget has ended, and return the words."""
    told = (
        f"Training stopped after {done} of {planned} epochs: the privacy budget does not allow "
        "another round at every party. Resume with a larger `max_epsilon` to go on from here."
    )
    _log.warning("%s", told)
    return told


def report_largest(history: Any) -> None:
    """Replace the parties' mean epsilon in FLModel's history by the largest, which is the bound."""
    of_parties = [
        values for name, values in history["local_history"].items() if name.endswith(EPSILON)
    ]
    if of_parties and EPSILON in history["global_history"]:
        history["global_history"][EPSILON] = [
            max(values) for values in zip(*of_parties, strict=True)
        ]


def spent(workers: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the largest epsilon of the parties, delta and assumption; empty without privacy."""
    found: list[dict[str, Any]]
    found = host.reveal([worker.privacy_spent() for worker in workers.values()])
    return max(found, key=lambda one: one.get("epsilon", 0.0), default={})
