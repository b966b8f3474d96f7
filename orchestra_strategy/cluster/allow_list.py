"""Reading what a peer sends: a pickle that may name a few harmless things, and nothing else.

Pickle runs whatever it names. SecretFlow reads its peers' by a block-list, which a pickle of
``numpy.savetxt`` passes and writes a file. Here names are allowed, not blocked.
"""

import importlib
import io
import pickle
from collections.abc import Iterable
from typing import Any

from orchestra_strategy.errors import ReplyError

__all__ = ["ARRAYS", "loads"]

# What arrays are made of, by the names that numpy 1 and 2 pickle them under.
ARRAYS = frozenset(
    {
        "numpy.dtype",
        "numpy.ndarray",
        "numpy.core.numeric._frombuffer",
        "numpy.core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar",
        "numpy._core.numeric._frombuffer",
        "numpy._core.multiarray._reconstruct",
        "numpy._core.multiarray.scalar",
    }
)


class _Reader(pickle.Unpickler):
    def __init__(self, data: bytes, allowed: frozenset[str], sender: str) -> None:
        super().__init__(io.BytesIO(data))
        self._allowed, self._sender = allowed, sender

    def find_class(self, module: str, name: str) -> Any:
        """Return what a pickle names, if it is on the list; dotted names are never."""
        full = f"{module}.{name}"
        if full not in self._allowed or "." in name:
            raise ReplyError(
                f"Expected `{self._sender}` to send arrays, numbers and texts, got a pickle that "
                f"names `{full[:80]!s}`, which was not run: that party has another version or is "
                "not to be trusted."
            )
        return getattr(importlib.import_module(module), name)


def loads(data: bytes, sender: str, more: Iterable[str] = ()) -> Any:
    """Read a pickle.

    Args:
        data: As it came.
        sender: Who is named in the message.
        more: Full names that are allowed beside :data:`ARRAYS`.

    Raises:
        ReplyError: It names something else, or is no pickle.
    """
    try:
        return _Reader(data, ARRAYS | frozenset(more), sender).load()
    except ReplyError:
        raise
    except Exception as error:  # whatever bytes of a stranger make of the reader
        raise ReplyError(
            f"Expected `{sender}` to send a pickle, got {len(data)} bytes that cannot be read "
            f"({type(error).__name__})."
        ) from None
