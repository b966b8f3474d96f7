"""The weighted mean, in one place."""

from collections.abc import Callable, Sequence

import numpy as np

from orchestra_strategy.errors import ReplyError
from orchestra_strategy.exchange.payload import FloatArray

__all__ = ["AggregateWeights", "check_alike", "weighted_mean"]

AggregateWeights = Callable[[Sequence[Sequence[FloatArray]], Sequence[float]], list[FloatArray]]
"""Takes one list of arrays per party and their numbers of samples; gives one list of arrays."""


def weighted_mean(
    weights_list: Sequence[Sequence[FloatArray]], sample_counts: Sequence[float]
) -> list[FloatArray]:
    """Average several parties' lists of arrays, array by array.

    Sums are taken in float64, in the order of the parties, so the result does not depend on where
    it runs.

    Args:
        weights_list: One list of float32 arrays per party, alike in length and shapes.
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
    means = []
    for arrays in zip(*weights_list, strict=True):
        weighted = sum(
            np.asarray(array, np.float64) * (count / total)
            for array, count in zip(arrays, sample_counts, strict=True)
        )
        means.append(np.asarray(weighted, np.float32))
    return means


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
