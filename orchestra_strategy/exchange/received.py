"""Arrays that travel: what each has to be, and how what a peer sent is shown in a message.

The same rules hold at both ends and on both routes. What costs nothing is looked at first: types,
then shapes (by who knows them), then values.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestra_strategy.errors import ReplyError

__all__ = [
    "HALF_PREFIX",
    "STEPS",
    "UPDATE_PREFIX",
    "check_plain",
    "check_values",
    "described",
    "listed",
    "named",
    "shown",
]

HALF_PREFIX = "weights/"
"""What begins the names of arrays that may travel as float16."""

UPDATE_PREFIX = "rounded/"
"""What begins the names of arrays that travel as whole numbers."""

STEPS = "rounded_steps"
"""The array with the units of those."""

_LONGEST_SHOWN = 80
_MOST_LISTED = 10
_LONGEST_INTEGER = 2**53

_LARGEST = 2.0**63  # up to here the square of a float32 is finite, and so are norms and sums
_LARGEST_SQUARE = 2.0**124
_LARGEST_STEP = 2.0**48  # times a number of 16 bits
_HALF_INFINITY = 0x7C00
_UNIT_TOLERANCE = 1e-3
_NOT_NEGATIVE = ("running_var", "num_batches_tracked")
_DIRECTIONS = ("local_centroids", "global_centroids")


def check_plain(name: str, array: Any, who: str, on_wire: bool = False) -> None:
    """Refuse what is no plain float32 array, without a look at any value.

    Not even a subclass passes: a masked array hides what is under its mask from every check.

    Args:
        name: Of the array.
        array: What came.
        who: Named in the message.
        on_wire: Whether it is as it travels: a weight may be float16 then, and a rounded update has
            to be whole numbers.

    Raises:
        ReplyError: It is something else.
    """
    allowed: tuple[type, ...] = (np.float32,)
    numbers = "float32"
    if on_wire and name.startswith(HALF_PREFIX):
        allowed = (np.float16, np.float32)
    if on_wire and name.startswith(UPDATE_PREFIX):
        allowed, numbers = (np.uint8, np.int8, np.int16), "uint8, int8 or int16"
    if type(array) is not np.ndarray or array.dtype not in allowed or not array.dtype.isnative:
        raise ReplyError(
            f"Expected `{named(name)}` of {who} to be a plain numpy array of {numbers}, got "
            f"{described(array)}."
        )


def check_values(
    arrays: Mapping[str, npt.NDArray[Any]], who: str, no_centroids: bool = False
) -> None:
    """Refuse values that no honest sender has.

    They are finite and within 2**63; variances and counts are not below zero; rows of centroids
    have length 1, to a thousandth.

    Args:
        arrays: Plain arrays by name.
        who: Named in the message.
        no_centroids: Whether ``global_centroids`` may be zeros: there have been none so far.

    Raises:
        ReplyError: There is another one.
    """
    for name, array in arrays.items():
        _check_size(name, array, who)
        if name.rpartition(".")[2].rpartition("/")[2] in _NOT_NEGATIVE and (array < 0).any():
            raise ReplyError(
                f"Expected `{named(name)}` of {who} to be at least 0, as a variance or a count is, "
                f"got {array.min():.4g}."
            )
        if name == STEPS and not ((array >= 0) & (array <= _LARGEST_STEP)).all():
            raise ReplyError(
                f"Expected `{STEPS}` of {who} to be from 0 to 2**48, got {array.min():.4g} to "
                f"{array.max():.4g}."
            )
        none_yet = no_centroids and name == "global_centroids" and not array.any()
        if name in _DIRECTIONS and not none_yet:
            _check_directions(name, array, who)


def _check_size(name: str, array: npt.NDArray[Any], who: str) -> None:
    if _is_small(array):
        return
    largest = float(np.abs(array).max(initial=0.0))  # NaN if there is one
    if not np.isfinite(largest):
        raise ReplyError(f"Expected `{named(name)}` of {who} to be finite, got NaN or infinity.")
    if largest > _LARGEST:
        raise ReplyError(
            f"Expected `{named(name)}` of {who} to be within 2**63 in absolute value, beyond which "
            f"squares overflow, got {largest:.4g}: the training has diverged; lower `lr`."
        )


def _is_small(array: npt.NDArray[Any]) -> bool:
    """Whether all values are finite and within 2**62, which a sum of squares shows at once.

    It is one pass without a copy; where it overflows or is NaN, each value has to be looked at.
    """
    flat = array.reshape(-1)
    if flat.dtype.kind in "iu":
        return True
    if flat.dtype == np.float16:  # finite, it is small; the bits of infinity and NaN are on top
        return bool((flat.view(np.uint16) & 0x7FFF).max(initial=0) < _HALF_INFINITY)
    return bool(np.dot(flat, flat) <= _LARGEST_SQUARE)


def _check_directions(name: str, rows: npt.NDArray[Any], who: str) -> None:
    if rows.ndim != 2:
        raise ReplyError(f"Expected `{name}` of {who} to have two axes, got shape {rows.shape}.")
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    if len(rows) and np.abs(lengths - 1).max() > _UNIT_TOLERANCE:
        raise ReplyError(
            f"Expected the rows of `{name}` of {who} to have length 1, got lengths from "
            f"{lengths.min():.4g} to {lengths.max():.4g}."
        )


def described(value: Any) -> str:
    """Return what a peer sent in place of an array, in a few words.

    >>> described(np.zeros((2, 3))), described([1.0] * 1000)
    ('float64 (2, 3)', 'list')
    """
    if type(value) is np.ndarray:
        return f"{str(value.dtype)[:_LONGEST_SHOWN]} {value.shape}"
    return type(value).__name__[:_LONGEST_SHOWN]


def named(name: str) -> str:
    """Return an array's name for a message: a sender could make it long, or of several lines."""
    return repr(name[:_LONGEST_SHOWN])[1:-1]


def listed(names: Iterable[Any]) -> list[str]:
    """Return some of the names for a message: there could be many, and of any type.

    >>> listed(["b", 5, "a"])
    ['5', 'a', 'b']
    """
    texts = sorted(named(name) if isinstance(name, str) else shown(name) for name in names)
    return texts[:_MOST_LISTED]


def shown(value: Any) -> str:
    """Return a value for a message: a sender could make it long, or one that has no text."""
    if isinstance(value, str):
        return repr(value[:_LONGEST_SHOWN])
    if value is None or isinstance(value, bool | float | np.number):
        return repr(value)
    if isinstance(value, int):
        short = abs(value) < _LONGEST_INTEGER
        return repr(value) if short else f"one of {value.bit_length()} bits"
    return type(value).__name__[:_LONGEST_SHOWN]
