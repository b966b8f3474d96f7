"""The scale of images: uint8, or floats in [0, 1], and how other numbers are brought there."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestra_strategy.errors import DataError, ParameterError

__all__ = ["PIXELS_REMEDY", "blocks", "check_value_range", "in_unit_range", "to_unit_range"]

PIXELS_REMEDY = (
    "give their scale by `value_range=(black, white)`, an option of `load_local`, `fed_from_paths` "
    "and `fed_ndarray` (of the trainer, in `data_options`); or use `x.astype('uint8')` for whole "
    "numbers from 0 to 255; images normalised by mean and deviation need that undone, since the "
    "model normalises them itself"
)
"""The end of the sentence that refuses other pixels."""

_BLOCK = 2**20  # values that are looked at in one go
_ROUNDING = 1e-6  # what arithmetic in float32 may leave above 1


def blocks(x: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield a large array in pieces with their first rows: a mask of all of it is as large."""
    rows = max(1, _BLOCK * len(x) // max(x.size, 1))
    for start in range(0, len(x), rows):
        yield start, x[start : start + rows]


def in_unit_range(x: NDArray[Any], values: bool = True) -> bool:
    """Whether an array is no image, or one whose pixels are uint8 or in [0, 1].

    Args:
        x: (N, ...) numbers; a table (N, F) has no common scale.
        values: Whether they are looked at; else the dtype alone decides, and floats pass.

    >>> in_unit_range(np.full((1, 2, 2), 16.0)), in_unit_range(np.full((1, 2), 16.0))
    (False, True)
    """
    if x.ndim < 3 or x.dtype == np.uint8:
        return True
    if not values:
        return x.dtype.kind == "f"
    # NaN compares false on both sides: it is another fault, which is told elsewhere.
    return not any(((b < -_ROUNDING) | (b > 1 + _ROUNDING)).any() for _, b in blocks(x))


def check_value_range(value_range: Any) -> tuple[float, float] | None:
    """Return the option ``value_range`` as two floats, None for None.

    Raises:
        ParameterError: It is no pair of finite numbers, the lower one first.

    >>> check_value_range([0, 4095])
    (0.0, 4095.0)
    """
    if value_range is None:
        return None
    pair = isinstance(value_range, (tuple, list)) and len(value_range) == 2
    numbers = pair and all(
        isinstance(v, (int, float, np.integer, np.floating)) and not isinstance(v, bool)
        for v in value_range
    )
    low, high = map(float, value_range) if numbers else (math.nan, math.nan)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ParameterError(
            "Expected `value_range` to be (black, white), two finite numbers, the lower one first, "
            f"such as (0, 4095) for 12 bits, got {value_range!r}."
        )
    return low, high


def to_unit_range(x: NDArray[Any], value_range: tuple[float, float]) -> NDArray[np.float32]:
    """Return images as float32 in [0, 1]: black is 0, white is 1, what is beyond is the nearer one.

    Args:
        x: (N, H, W) or (N, C, H, W) numbers.
        value_range: Black and white, as from :func:`check_value_range`.

    Raises:
        DataError: They are no images of numbers.

    >>> to_unit_range(np.array([[[-1000, 0, 3000]]]), (-1000.0, 1000.0)).tolist()
    [[[0.0, 0.5, 1.0]]]
    """
    if not isinstance(x, np.ndarray) or x.ndim < 3 or x.dtype.kind not in "iuf":
        got = f"{x.dtype} {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__
        raise DataError(
            "Expected images (N, H, W) or (N, C, H, W) of numbers for `value_range`, got "
            f"{got}; the columns of a table have scales of their own."
        )
    low, high = value_range
    scaled = np.empty(x.shape, np.float32)
    for start, block in blocks(x):
        # In float64: a range far from 0 would lose its digits in float32.
        unit = (block.astype(np.float64) - low) / (high - low)
        scaled[start : start + len(block)] = np.clip(unit, 0.0, 1.0)
    return scaled
