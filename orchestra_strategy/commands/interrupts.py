"""Ctrl-C that is not lost where Python ignores exceptions."""

import _thread
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["interrupts_kept"]

_AGAIN_SECONDS = 0.05


@contextmanager
def interrupts_kept() -> Iterator[None]:
    """Interrupt again, in a moment, where an interrupt came in a callback and was ignored.

    A signal is handled between any two steps of the program. In a callback of the garbage collector
    (jax has one) or a destructor, Python reports the exception as ignored and goes on.
    """
    before = sys.unraisablehook

    def hook(ignored: Any) -> None:
        if issubclass(ignored.exc_type, KeyboardInterrupt):
            # Not at once: here it would be ignored, too.
            threading.Timer(_AGAIN_SECONDS, _thread.interrupt_main).start()
        else:
            before(ignored)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
