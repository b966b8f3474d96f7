"""A folder that belongs to one run at a time.

The lock is the operating system's (``flock``): it ends with the process that holds it, however that
ends, so that a lock of a run that is gone holds nobody up. What the lock's file says is for people,
and for a run to see whether another one has used the folder in the meantime.
"""

import fcntl
import json
import os
import socket
import time
import weakref
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from orchestra_strategy.errors import CheckpointError

__all__ = ["FolderLock"]

_NAME = "lock"
_LONGEST = 4096  # bytes of the file that are read
_PAUSE = 0.1  # seconds between two tries


class FolderLock:
    """The lock of one folder; it is given back when this object goes.

    Args:
        folder: The folder, which must be there.
        run: Who wants it: the same text for the same run, however often it comes.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> mine, theirs = FolderLock(folder, "run 1"), FolderLock(folder, "run 2")
    >>> mine.acquire(seconds=0)
    >>> theirs.acquire(seconds=0)
    Traceback (most recent call last):
    ...
    orchestra_strategy.errors.CheckpointError: ... is in use by process ...
    >>> mine.release(); theirs.acquire(seconds=0); theirs.release()
    """

    def __init__(self, folder: Path, run: str) -> None:
        self.path = folder / _NAME
        self.run = run
        self._release: weakref.finalize[Any, Any] | None = None

    @property
    def held(self) -> bool:
        """Whether this object has the lock."""
        return self._release is not None and self._release.alive

    def acquire(self, seconds: float = 10.0, as_last: bool = False) -> None:
        """Take the lock, if need be after a wait; nothing to do where it is held.

        Args:
            seconds: The longest wait for another process.
            as_last: Whether this run must be the one that has had it last.

        Raises:
            CheckpointError: Another run has it; or, with ``as_last``, has had it in the meantime.
            OSError: The folder has no place for it.
        """
        if self.held:
            return
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            self._wait(descriptor, time.monotonic() + seconds)
            if as_last and self._said().get("run") != self.run:
                raise CheckpointError(
                    f"another training has gone on in `{self.path.parent}` since; call "
                    "`resume(...)` to go on from its last checkpoint"
                )
            said = {
                "run": self.run,
                "process": os.getpid(),
                "host": socket.gethostname(),
                "since": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            }
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(said).encode(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        # Closing the file gives the lock back.
        self._release = weakref.finalize(self, os.close, descriptor)

    def release(self) -> None:
        """Give the lock back; nothing to do where it is not held."""
        if self._release is not None:
            self._release()

    def _wait(self, descriptor: int, end: float) -> None:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                said = self._said()
                # In one process there is nobody who could give it back while this waits.
                if said.get("process") == os.getpid() or time.monotonic() >= end:
                    raise CheckpointError(
                        f"`{self.path.parent}` is in use by process {said.get('process')} on "
                        f"{said.get('host')} since {said.get('since')}; wait until that training "
                        "has ended, or end it"
                    ) from None
                time.sleep(_PAUSE)

    def _said(self) -> dict[str, Any]:
        try:
            with open(self.path, "rb") as file:
                said: Any = json.loads(file.read(_LONGEST))
        except (OSError, ValueError, RecursionError):
            return {}  # nobody so far, or somebody who is just writing
        return said if isinstance(said, dict) else {}
