"""Data that peers have sent and this party has not used yet."""

import threading
import time
from collections.abc import Callable

from orchestra_strategy.errors import ClusterError

__all__ = ["Mailbox"]


class Mailbox:
    """Pieces of data by sender and key; whoever takes one waits for it, within limits."""

    def __init__(self) -> None:
        self._ready = threading.Condition()
        self._pieces: dict[tuple[str, str], bytes] = {}
        self.closed = False

    def put(self, sender: str, key: str, data: bytes) -> None:
        """Keep a piece; sent twice, it is kept once."""
        with self._ready:
            self._pieces[sender, key] = data
            self._ready.notify_all()

    def take(self, sender: str, key: str, seconds: float, check: Callable[[], None]) -> bytes:
        """Wait for a piece and take it out.

        Args:
            sender: Whose.
            key: Which.
            seconds: The longest wait.
            check: Called a few times a second; raises what ends the wait early.

        Raises:
            ClusterError: It has not come in time, or the box was closed.
        """
        end = time.monotonic() + seconds
        with self._ready:
            while (sender, key) not in self._pieces:
                check()
                if self.closed:
                    raise ClusterError(f"Expected data of {sender}, got the end of the session.")
                if time.monotonic() > end:
                    raise ClusterError(
                        f"Expected {sender} to send what it computes within {seconds:g} s "
                        "(`step_timeout`), got nothing although it is alive; set a higher limit "
                        "if its work takes so long."
                    )
                self._ready.wait(0.2)
            return self._pieces.pop((sender, key))

    def close(self) -> None:
        """End all waits."""
        with self._ready:
            self.closed = True
            self._ready.notify_all()
