"""A process that ends, whatever its threads are busy with."""

import os
import threading
import time

__all__ = ["ends_within"]


def ends_within(seconds: float, code: int) -> None:
    """End the process at most some seconds from now, which is its main thread's end.

    Python waits at its end for every thread of a pool, and one may be in the middle of a step of
    training that takes an hour, or wait for a call that was cancelled, as SecretFlow's do. Only
    then does the main thread count as ended: it is no use to wait for that.

    Args:
        seconds: Grace.
        code: The exit code that the process has earned.
    """
    threading.Thread(target=_end, args=(seconds, code), daemon=True).start()


def _end(seconds: float, code: int) -> None:
    time.sleep(seconds)
    os._exit(code)
