"""The weighted mean, in one place."""

from collections.abc import Callable, Sequence

import numpy as np

from orchestra_strategy.errors import ReplyError
from orchestra_strategy.exchange.half import widened
from orchestra_strategy.exchange.payload import FloatArray

__all__ = ["AggregateWeights", "check_alike", "weighted_mean"]

_BLOCK = 2**14

AggregateWeights = Callable[[Sequence[Sequence[FloatArray]], Sequence[float]], list[FloatArray]]
"""Takes one list of arrays per party and their numbers of samples; gives one list of arrays."""


def weighted_mean(
    weights_list: Sequence[Sequence[FloatArray]], sample_counts: Sequence[float]
) -> list[FloatArray]:
    """Average several parties' lists of arrays, array by array.

    Sums are taken in float64, in the order of the parties, so the result does not depend on where
    it runs.

    Args:
        weights_list: One list of float32 or float16 arrays per party, alike in length and shapes.
        sample_counts: The parties' weights, >= 0, with a positive sum.

    Returns:
        The averaged arrays, float32.

    Raises:
        ReplyError: Lengths or shapes differ (nothing is broadcast), or no weight is positive.

    >>> mean = weighted_mean([[np.float32([0.0])], [np.float32([4.0])]], [1, 3])
    >>> mean[0].tolist()
    [3.0]
    """
    check_alike(weights_list, sample_counts)
    total = float(sum(sample_counts))
    if min(sample_counts) < 0 or not total > 0 or not np.isfinite(total):
        raise ReplyError(
            "Expected `sample_counts` to be at least 0 with a positive sum, got "
            f"{list(sample_counts)}."
        )
    shares = [count / total for count in sample_counts]
    return [_mean_of(arrays, shares) for arrays in zip(*weights_list, strict=True)]


def _mean_of(arrays: Sequence[FloatArray], shares: Sequence[float]) -> FloatArray:
    """Return the sum of arrays times shares, a block at a time, which stays in the CPU's cache."""
    flat = [np.ascontiguousarray(array).reshape(-1) for array in arrays]
    mean = np.empty(flat[0].size, np.float32)
    for start in range(0, mean.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        total = np.zeros(mean[block].size, np.float64)
        for array, share in zip(flat, shares, strict=True):
            part = widened(array[block]).astype(np.float64)
            part *= share
            total += part
        mean[block] = total
    return mean.reshape(arrays[0].shape)


def check_alike(
    weights_list: Sequence[Sequence[FloatArray]], sample_counts: Sequence[float]
) -> None:
    """Refuse lists of arrays that do not belong together; nothing is ever broadcast.

    Raises:
        ReplyError: There are none, another number of counts, or lengths or shapes differ.
    """
    if len(weights_list) != len(sample_counts) or not weights_list:
        raise ReplyError(
            f"Expected as many `sample_counts` as parties, got {len(sample_counts)} for "
            f"{len(weights_list)} parties."
        )
    shapes = [[array.shape for array in weights] for weights in weights_list]
    for party, got in enumerate(shapes):
        if got != shapes[0]:
            raise ReplyError(
                f"Expected the arrays of all parties to have the same shapes, got {got} from "
                f"party {party} and {shapes[0]} from party 0."
            )
