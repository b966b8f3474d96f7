"""Errors that must not show: under differential privacy a failure counts as a contribution of zero.

What a party says or does may depend on its data through the noisy release alone. An error that one
sample causes, and another does not, would be a release of its own, without noise: a server could
craft weights with which exactly one sample overflows. So what goes wrong in a party's local work
counts as zero, in the size of the unit that is protected, and the round goes on as if nothing were.

Mistakes of code and configuration are found beforehand, on made-up samples, see
:mod:`orchestra_strategy.party.privacy.rehearsal`.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TypeVar

from orchestra_strategy.algorithms.objective import Batch

__all__ = ["Silence", "work_by_row"]

T = TypeVar("T")


class Silence(AbstractContextManager["Silence"]):
    """A block whose errors end it, and do not show outside.

    Only ``Exception`` is kept back; Ctrl-C and the end of the process are not the data's doing.

    Args:
        loud: Whether errors are raised nevertheless: for the rehearsal, which has no data.

    Attributes:
        failures: How many errors there were. For the party itself: it must not leave.

    >>> silence = Silence()
    >>> with silence:
    ...     raise ValueError("of this sample")
    >>> silence.failures
    1
    """

    def __init__(self, loud: bool = False) -> None:
        self.loud = loud
        self.failures = 0

    def __enter__(self) -> "Silence":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        if self.loud or not isinstance(error, Exception):
            return False
        self.failures += 1
        return True


def work_by_row(
    batch: Batch,
    work: Callable[[Batch], T],
    silence: Silence,
    before_row: Callable[[], None] = lambda: None,
) -> Iterator[T]:
    """Yield what ``work`` makes of a batch; of each row alone, if it fails on the whole.

    One row's failure must cost that row alone: if it cost the batch, the sum would move by as many
    contributions as the batch has rows.

    Args:
        batch: Tensors of B >= 1 rows.
        work: A sum over rows that do not act on each other.
        silence: Keeps the errors back.
        before_row: Puts everything that ``work`` moves back to where it was before the batch.

    Yields:
        One result of all rows; or one for each row that did not fail.
    """
    results: list[T] = []
    with silence:
        results.append(work(batch))
    if not results:
        for row in range(len(next(iter(batch.values())))):
            before_row()
            with silence:
                results.append(work({name: t[row : row + 1] for name, t in batch.items()}))
    yield from results
