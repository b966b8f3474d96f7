"""Weights as float16 on the way (``payload_dtype``): half the bytes, rounded to 11 bits.

Both ends compute in float32. A float16 has 11 significant bits between 2**-14 and 65504, and less
below: so trained parameters travel as such, and the rest does not. Running statistics follow the
scale of the data, which has no limit; centroids are compared to a thousandth of their length; what
else is sent has a meaning of its own. All of that is a few bytes.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from orchestra_strategy.errors import ReplyError
from orchestra_strategy.exchange.manifest import Entry
from orchestra_strategy.exchange.received import HALF_PREFIX, named

__all__ = ["LARGEST_HALF", "as_sent", "halved", "narrowed", "widened"]

LARGEST_HALF = 65504.0
"""The largest float16."""


def halved(entries: Iterable[Entry], kept: Collection[str]) -> tuple[Entry, ...]:
    """Return a manifest's entries with the trained weights in float16.

    Args:
        entries: In float32.
        kept: Names of weights that stay as they are: those of running statistics.
    """
    return tuple(
        (
            entry._replace(dtype="float16", meaning=f"{entry.meaning}, rounded to float16")
            if entry.name.startswith(HALF_PREFIX) and entry.name not in kept
            else entry._replace(meaning=f"{entry.meaning}; stays float32 beside float16 weights")
        )
        for entry in entries
    )


def narrowed(
    arrays: Mapping[str, npt.NDArray[Any]],
    entries: Mapping[str, Entry],
    who: str,
    finite: bool = True,
) -> dict[str, npt.NDArray[Any]]:
    """Return arrays in the types of a manifest: float32 to the nearest float16, ties to even.

    Args:
        arrays: Float32 arrays by name.
        entries: The manifest's by name; arrays that it does not have stay as they are.
        who: The sender, named in the message.
        finite: Whether the sender refuses what no float16 is; else it travels as infinity or NaN,
            for the receiver to find.

    Raises:
        ReplyError: A value is beyond 65504, infinite or NaN.
    """
    wanted = {name for name, entry in entries.items() if entry.dtype == "float16"}
    return _narrowed(arrays, wanted, who, finite)


def as_sent(
    arrays: Mapping[str, npt.NDArray[Any]], like: Mapping[str, npt.NDArray[Any]], who: str
) -> dict[str, npt.NDArray[Any]]:
    """Return float32 arrays in the types that came in under their names; see :func:`narrowed`."""
    wanted = {name for name, array in like.items() if array.dtype == np.float16}
    return _narrowed(arrays, wanted, who, finite=True)


def widened(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return an array of float16 or float32 as float32, which changes no value."""
    if array.dtype != np.float16:
        return array
    single: npt.NDArray[np.float32] = torch.from_numpy(_writable(array)).float().numpy()
    return single


def _narrowed(
    arrays: Mapping[str, npt.NDArray[Any]], wanted: Collection[str], who: str, finite: bool
) -> dict[str, npt.NDArray[Any]]:
    for name, array in arrays.items() if finite else ():
        if name in wanted:
            _check_range(name, array, who)
    return {
        name: _to_half(array) if name in wanted and _is_float32(array) else array
        for name, array in arrays.items()
    }


def _is_float32(array: Any) -> bool:
    return type(array) is np.ndarray and array.dtype == np.float32


def _check_range(name: str, array: Any, who: str) -> None:
    if not _is_float32(array):
        return  # not for here to say what is wrong with it
    largest = float(np.abs(array).max(initial=0.0))  # NaN if there is one
    if not largest <= LARGEST_HALF:
        raise ReplyError(
            f"Expected `{named(name)}` of {who} to be finite and within {LARGEST_HALF:.0f} in "
            f"absolute value with `payload_dtype='float16'`, got {largest:.6g}: a float16 holds no "
            "more. Use `payload_dtype='float32'`; if the training has diverged, lower `lr`."
        )


# By torch, which converts with the CPU's instructions for it; numpy computes each number.
def _to_half(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    half: npt.NDArray[np.float16] = torch.from_numpy(_writable(array)).half().numpy()
    return half


def _writable(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the array, or a copy if it is read-only, as those of other processes are."""
    return array if array.flags.writeable else array.copy()
