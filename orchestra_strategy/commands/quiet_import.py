"""SecretFlow's import without the line that a library under it prints."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

__all__ = ["load_host"]


def load_host() -> None:
    """Import SecretFlow now, so that its stray line is not in a command's output.

    Raises:
        HostError: It is missing, or of a version that is not supported.
    """
    if "orchestra_strategy.host" not in sys.modules:
        with _without_stdout():
            import_module("orchestra_strategy.host")


@contextmanager
def _without_stdout() -> Iterator[None]:
    """Send standard output nowhere: that of compiled code, which Python cannot catch, too."""
    sys.stdout.flush()
    kept = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
        sys.stdout.flush()
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
