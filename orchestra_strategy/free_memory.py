"""Memory that is not needed any more, given back to the operating system.

torch's writer of files leaves what it has written in a reference cycle, until Python's collector
comes to it, and the C library keeps freed blocks between others. Over weeks both add up.
"""

import ctypes
import gc

__all__ = ["free_memory"]


def _trim() -> int:
    try:
        return int(ctypes.CDLL("libc.so.6").malloc_trim(0))
    except (OSError, AttributeError):  # another C library than glibc, which has its own ways
        return 0


def free_memory() -> None:
    """Free young reference cycles, and give back what the C library keeps; takes milliseconds."""
    gc.collect(1)
    _trim()
