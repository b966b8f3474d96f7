"""A process that ends, whatever its threads are busy with."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from orchestra_strategy.errors import OrchestraError

__all__ = ["exits_within"]

_INTERRUPTED = 130


@contextmanager
def exits_within(seconds: float) -> Iterator[None]:
    """End the process at most some seconds after its main thread has.

    Python waits at its end for every thread of a pool, and one may be in the middle of a step of
    training that takes an hour. Exit code and output are those that the block has earned.

    Args:
        seconds: Grace.
    """
    code = 0
    try:
        yield
    except OrchestraError as error:
        code = error.exit_code
        raise
    except KeyboardInterrupt:
        code = _INTERRUPTED
        raise
    except BaseException:
        code = 1
        raise
    finally:
        threading.Thread(target=_end, args=(seconds, code), daemon=True).start()


def _end(seconds: float, code: int) -> None:
    threading.main_thread().join()
    time.sleep(seconds)
    os._exit(code)
