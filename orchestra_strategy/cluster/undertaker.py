"""Ends what another process has left behind, however that one has ended.

Some of Ray's processes go on for a minute when the one that has started Ray was killed. This file
is also a program, run by its path, so that it imports nothing else: it waits for the end of its
input, which its parent holds open, and kills all processes that carry a mark in their environment.
"""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

__all__ = ["nothing_left_behind"]

_NAME = "ORCHESTRA_STARTED_BY"
_SECONDS = 10.0  # for processes to end that were killed; one may start another meanwhile


@contextlib.contextmanager
def nothing_left_behind() -> Iterator[None]:
    """End all that was started in a block, when it is over or this process has ended."""
    mark = secrets.token_hex(16)
    watcher = subprocess.Popen(
        [sys.executable, "-S", "-E", __file__, mark],
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is not for it
    )
    before = os.environ.get(_NAME)
    os.environ[_NAME] = mark
    try:
        yield
    finally:
        if before is None:
            del os.environ[_NAME]
        else:
            os.environ[_NAME] = before
        assert watcher.stdin is not None
        watcher.stdin.close()
        watcher.wait(2 * _SECONDS)


def _marked(mark: str) -> list[int]:
    """Return the ids of all processes that were started with a mark."""
    entry, found = f"{_NAME}={mark}".encode(), []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if name.isdigit():
                with open(f"/proc/{name}/environ", "rb") as file:
                    if entry in file.read().split(b"\0"):
                        found.append(int(name))
    return found


def _main() -> None:
    sys.stdin.buffer.read()  # ends with the parent
    end = time.monotonic() + _SECONDS
    while (left := _marked(sys.argv[1])) and time.monotonic() < end:
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.1)


if __name__ == "__main__":
    _main()
