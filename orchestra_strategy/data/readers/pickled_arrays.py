"""Stand-ins for what pickles name: arrays of numbers, their dtypes, and bytes written as text."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from orchestra_strategy.errors import DataError

__all__ = ["CALLS", "Name", "PickledArray", "PickledDtype"]

_DTYPES = ("b1", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8")
_ORDERS = ("|", "<", ">", "=")
_MOST_AXES = 32  # numpy's own limit


class Name(NamedTuple):
    """Something that numpy or Python write into a pickle by its name."""

    module: str
    name: str

    @classmethod
    def allowed(cls, module: Any, name: Any) -> "Name":
        """Return the name as numpy 1 writes it.

        Raises:
            DataError: It is none of those that an array or bytes need.
        """
        found = cls(_text(module).replace("numpy._core", "numpy.core"), _text(name))
        if found not in CALLS and found != _NDARRAY:
            shown = f"{found.module}.{found.name}"[:100]
            raise DataError(
                f"Expected arrays, numbers and names alone, got a pickle that refers to `{shown}`, "
                "which could run a program: get it anew from a source that you trust."
            )
        return found


class PickledDtype:
    """A dtype of plain numbers.

    Args:
        code: Kind and bytes, such as ``"u1"``; any other dtype is refused.
        align: Of structures; not used.
        copy: Not used.
    """

    def __init__(self, code: Any, align: Any = 0, copy: Any = 0) -> None:
        self._code = _text(code)
        if self._code not in _DTYPES:
            raise DataError(
                f"Expected an array of plain numbers ({', '.join(_DTYPES)}), got dtype "
                f"{self._code[:20]!r}; an array of objects can read memory: get it anew from a "
                "source that you trust."
            )
        self.dtype = np.dtype(self._code)

    def set_state(self, version: Any, order: Any, *rest: Any) -> None:
        """Take the order of bytes; everything else that a dtype can have is refused."""
        # Fields of structures, their names and sizes; empty for plain numbers.
        if _text(order) not in _ORDERS or rest != (None, None, None, -1, -1, 0):
            raise DataError("Expected the dtype of plain numbers, got one with a structure.")
        self.dtype = np.dtype(_text(order) + self._code)


class PickledArray:
    """An array, empty until its state has been set.

    Attributes:
        array: Its numbers, read-only, in the bytes that were in the file; None before.
    """

    def __init__(self) -> None:
        self.array: NDArray[Any] | None = None

    def set_state(self, version: Any, shape: Any, dtype: Any, fortran: Any, content: Any) -> None:
        """Lay the shape over the bytes.

        Raises:
            DataError: They do not fit each other, or are not what an array is written as.
        """
        self.array = _laid_over(content, dtype, shape, "F" if fortran else "C")


def _reconstruct(kind: Any, shape: Any, code: Any) -> PickledArray:
    """Stand in for what numpy begins an array with; the arguments are always the same."""
    if kind != _NDARRAY or shape != (0,) or _text(code) != "b":
        raise DataError("Expected the beginning of a plain array, got another kind of array.")
    return PickledArray()


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> PickledArray:
    """Stand in for what numpy writes an array by in protocol 5."""
    if order not in ("C", "F"):
        raise DataError("Expected an array in C or Fortran order, got another.")
    made = PickledArray()
    made.array = _laid_over(content, dtype, shape, order)
    return made


def _laid_over(content: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any]:
    if type(content) is not bytes or type(dtype) is not PickledDtype or type(shape) is not tuple:
        raise DataError("Expected the shape, dtype and bytes of an array, got others.")
    if len(shape) > _MOST_AXES or not all(type(n) is int and 0 <= n < 2**48 for n in shape):
        raise DataError("Expected the shape of an array to be of sizes from 0 on, got others.")
    expected = math.prod(shape) * dtype.dtype.itemsize
    if expected != len(content):
        raise DataError(
            f"Expected an array of shape {shape} and dtype {dtype.dtype} to have {expected} bytes, "
            f"got {len(content)}."
        )
    return np.frombuffer(content, dtype.dtype).reshape(shape, order=order)


def _encode(text: Any, encoding: Any) -> bytes:
    """Stand in for how Python 3 writes bytes in the protocols of Python 2."""
    if type(text) is not str or _text(encoding) != "latin1":
        raise DataError("Expected a pickle to hold plain bytes, got encoded ones.")
    return text.encode("latin1")


def _text(value: Any) -> str:
    """Return a name that Python 2 may have written as bytes."""
    if isinstance(value, bytes):
        value = value.decode("latin1")
    if not isinstance(value, str):
        raise DataError(f"Expected a name, got {type(value).__name__}.")
    return value


_NDARRAY = Name("numpy", "ndarray")

CALLS: dict[Name, Callable[..., Any]] = {
    Name("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    Name("numpy.core.numeric", "_frombuffer"): _from_buffer,
    Name("numpy", "dtype"): PickledDtype,
    Name("_codecs", "encode"): _encode,
}
"""What may be called, and by what."""
