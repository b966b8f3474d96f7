"""The header of a numpy array in a file, read and checked before memory is set aside for it."""

import io
import math
import struct
import tokenize
from collections.abc import Callable
from typing import IO, Any, NamedTuple

import numpy as np

from orchestra_strategy.errors import DataError

__all__ = ["MOST_BYTES", "ArrayHeader", "read_header"]

MOST_BYTES = 2**31
"""Of an array that has to be in memory as a whole, 2 GiB."""

_LONGEST = 4096  # bytes; numpy writes 118 for an array of numbers
_UNREADABLE = (ValueError, TypeError, SyntaxError, LookupError, tokenize.TokenError)
_KINDS = "biufUS"  # numpy's codes for booleans, numbers and texts
_LENGTHS = {b"\x01\x00": "<H", b"\x02\x00": "<I"}  # by version


class ArrayHeader(NamedTuple):
    """What a file says of its array.

    Attributes:
        shape: Of the array.
        fortran: Whether the first axis runs fastest.
        dtype: Of numbers or texts.
        start: Bytes of the header, behind which the values are.
    """

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    start: int

    @property
    def size(self) -> int:
        """How many values there are."""
        return math.prod(self.shape)


def read_header(stream: IO[bytes], length: int, what: str) -> ArrayHeader:
    """Read a header from the start of ``stream``.

    Args:
        stream: A ``.npy`` file.
        length: Bytes of the whole file.
        what: The array, for messages.

    Raises:
        DataError: It is no header, of an array of other things than numbers or texts, or does not
            fit the length.
    """
    broken = DataError(f"Expected {what} to be an array as numpy saves it, got broken bytes.")
    start = stream.read(8)
    form = _LENGTHS.get(start[6:]) if start[:6] == b"\x93NUMPY" else None
    if form is None:
        raise broken
    written = stream.read(struct.calcsize(form))
    count = struct.unpack(form, written)[0] if len(written) == struct.calcsize(form) else _LONGEST
    text = stream.read(count) if count < _LONGEST else b""
    if not text or len(text) != count:
        raise broken
    parse: Callable[[IO[bytes]], Any] = np.lib.format.read_array_header_1_0
    if form == "<I":
        parse = np.lib.format.read_array_header_2_0
    try:
        shape, fortran, dtype = parse(io.BytesIO(written + text))
    # The header is small, so what runs out is not the memory but the depth of Python's parser.
    except (*_UNREADABLE, MemoryError, RecursionError):
        raise broken from None
    header = ArrayHeader(shape, fortran, dtype, len(start) + len(written) + count)
    _check(header, length, what)
    return header


def _check(header: ArrayHeader, length: int, what: str) -> None:
    if header.dtype.kind not in _KINDS:
        raise DataError(
            f"Expected {what} to hold plain numbers or texts, got dtype {header.dtype.name}; "
            "object arrays are refused, since reading them can run code: save plain numbers."
        )
    if not all(type(n) is int and n >= 0 for n in header.shape) or len(header.shape) > 32:
        raise DataError(f"Expected {what} to have sizes from 0 on, got others.")
    # Python's integers do not overflow.
    expected = header.start + header.size * header.dtype.itemsize
    if expected != length:
        raise DataError(
            f"Expected {what} to have {expected} bytes, as its header says, got {length}: it is "
            "cut off or damaged; get it anew."
        )
