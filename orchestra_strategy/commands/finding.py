"""A finding of ``orchestra-fl doctor``: good, noteworthy, or what is wrong and what to do."""

from typing import Literal, NamedTuple

__all__ = ["Finding"]


class Finding(NamedTuple):
    """What one check has found.

    Attributes:
        what: The thing looked at, in a word or two.
        grade: ``ok``; ``note``, which need not be wrong; ``bad``, with which a job would fail.
        told: What is there; of what is bad, what to do.
    """

    what: str
    grade: Literal["ok", "note", "bad"]
    told: str
