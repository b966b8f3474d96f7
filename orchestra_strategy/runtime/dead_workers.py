"""Workers of local mode that end before their time: whose it was, in a sentence."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from orchestra_strategy import host
from orchestra_strategy.errors import PeerLostError

__all__ = ["dead_workers_named"]


@contextmanager
def dead_workers_named(workers: Mapping[Any, Any]) -> Iterator[None]:
    """Name the party in place of Ray's account of an actor.

    Args:
        workers: By PYU.

    Raises:
        PeerLostError: A party's worker has ended.
    """
    try:
        yield
    except Exception as error:
        party = host.party_of_dead_worker(error, workers)
        if party is None:
            raise
        lost = PeerLostError(
            f"Expected the worker of party `{party}` to go on, got its end: its process was "
            "killed, or the machine's memory was not enough for all of them."
        )
        lost.party = party
        raise lost from error
