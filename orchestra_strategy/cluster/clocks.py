"""Comparison of the parties' clocks by the messages that they exchange anyway."""

import math
import threading
from typing import Any

__all__ = ["Clocks"]

_APART = 60.0  # seconds from which a warning is worth its line


class Clocks:
    """Tells once of each peer whose clock is far from this machine's."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._lock = threading.Lock()

    def compare(self, peer: str, theirs: Any, asked: float, answered: float) -> str | None:
        """Return a sentence, if there is something to tell.

        Args:
            peer: Who answered.
            theirs: Its clock as it says, in seconds since 1970.
            asked: This clock when the question went out.
            answered: This clock when the answer came; theirs was read between the two.
        """
        if not isinstance(theirs, int | float) or not math.isfinite(theirs):
            return None  # a peer's nonsense about its clock is no reason to end a job
        ahead = theirs - answered if theirs > answered else min(theirs - asked, 0.0)
        with self._lock:
            if abs(ahead) < _APART or peer in self._told:
                return None
            self._told.add(peer)
        where = "ahead of" if ahead > 0 else "behind"
        return (
            f"The clock of {peer} is {abs(ahead):.0f} s {where} this machine's: certificates and "
            "logs depend on both; have them set by NTP (`timedatectl set-ntp true`)."
        )
