"""Robust means of weights, which a minority of parties cannot move far.

D. Yin, Y. Chen, K. Ramchandran, P. Bartlett, "Byzantine-Robust Distributed Learning: Towards
Optimal Statistical Rates", ICML 2018, https://arxiv.org/abs/1803.01498: the coordinate-wise median
and the coordinate-wise trimmed mean. Both count every party once, whatever its number of samples:
a number of samples is what the party itself says, and a party that lies could say any.

A block of an array is stacked at a time, so the memory beyond the payloads is the answer.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestra_strategy.aggregation.weighted import check_alike
from orchestra_strategy.errors import ParameterError
from orchestra_strategy.exchange.half import widened
from orchestra_strategy.exchange.payload import FloatArray

__all__ = ["check_trim", "coordinate_median", "trimmed_mean", "trimmed_parties"]

_BLOCK = 2**14


def coordinate_median(
    weights_list: Sequence[Sequence[FloatArray]], sample_counts: Sequence[float]
) -> list[FloatArray]:
    """Return the median over parties of each number: med_i w_i, not weighted.

    With an even number of parties it is the mean of the middle two. As long as fewer than half of
    the parties lie, every number stays within those of the honest ones.

    Args:
        weights_list: One list of finite float32 arrays per party, alike in length and shapes.
        sample_counts: One number per party; none of them counts.

    Returns:
        The medians, float32, in the shapes of the arrays.

    Raises:
        ReplyError: There are no parties, or lengths or shapes differ.

    >>> parties = [[np.float32([1.0])], [np.float32([2.0])], [np.float32([1e6])]]
    >>> coordinate_median(parties, [1, 1, 100])[0].tolist()
    [2.0]
    """
    check_alike(weights_list, sample_counts)
    # In float64, where the middle two of any float32 add up.
    return _by_block(weights_list, lambda stacked: np.median(stacked, axis=0, overwrite_input=True))


def trimmed_mean(
    weights_list: Sequence[Sequence[FloatArray]],
    sample_counts: Sequence[float],
    trim: float = 0.1,
    parties: int | None = None,
) -> list[FloatArray]:
    """Return the mean of each number over parties without its lowest and highest, not weighted.

    Of n parties, k = int(trim * n) are cut at each end, number by number:
    (w_(k+1) + ... + w_(n-k)) / (n - 2k) of the sorted w_(1) <= ... <= w_(n). As long as at most k
    parties lie, every number stays within those of the honest ones.

    Where replies have been left out, those that are here are cut as often as all would have been:
    a reply that cannot be used is no sign that fewer of the others lie. Of m replies that are 2k or
    fewer, as many are cut as leave one or two, which is the median: then fewer than m/2 may lie.

    Args:
        weights_list: One list of finite float32 arrays per party, alike in length and shapes.
        sample_counts: One number per party; none of them counts.
        trim: Fraction cut at each end, in [0, 0.5); 0 cuts none.
        parties: Of how many, by default of those that are here; more where some were left out.

    Returns:
        The means, float32, in the shapes of the arrays.

    Raises:
        ReplyError: There are no parties, or lengths or shapes differ.
        ParameterError: ``trim`` leaves nobody, or is above 0 and yet cuts nobody.

    >>> parties = [[np.float32([value])] for value in (-1e6, 1.0, 2.0, 6.0, 1e6)]
    >>> trimmed_mean(parties, [1, 1, 1, 1, 1], trim=0.2)[0].tolist()  # (1 + 2 + 6) / 3
    [3.0]
    """
    check_alike(weights_list, sample_counts)
    here = len(weights_list)
    cut = min(trimmed_parties(trim, parties or here), (here - 1) // 2)
    return _by_block(weights_list, lambda stacked: _mean_of_middle(stacked, cut))


def check_trim(trim: float) -> None:
    """Refuse a fraction that would leave nobody.

    Raises:
        ParameterError: It is not a number in [0, 0.5).
    """
    if isinstance(trim, bool) or not isinstance(trim, int | float) or not 0 <= trim < 0.5:
        raise ParameterError(
            f"Expected `trim` to be in [0, 0.5), got {trim!r}: so much is cut at each end, and "
            "half of the parties at both leaves nobody."
        )


def trimmed_parties(trim: float, parties: int) -> int:
    """Return how many parties are cut at each end: int(trim * parties).

    Raises:
        ParameterError: ``trim`` leaves nobody; or it is above 0 and cuts nobody, which would be a
            plain mean under a name that promises more.

    >>> trimmed_parties(0.2, 5)
    1
    """
    check_trim(trim)
    cut = int(trim * parties)
    if trim > 0 and cut == 0:
        raise ParameterError(
            f"Expected `trim` to cut at least one of {parties} parties at each end, got {trim}, "
            f"which cuts none (int({trim} * {parties}) = 0); "
            + (
                f"use at least {np.ceil(1000 / parties) / 1000:g}, or 0 for a plain mean."
                if parties > 2
                else "use `aggregation='mean'`, since of so few parties none can be cut."
            )
        )
    return cut


def _mean_of_middle(stacked: npt.NDArray[np.float64], cut: int) -> Any:
    """Return the mean over the first axis without the lowest and the highest ``cut``."""
    end = len(stacked) - cut
    ordered = np.partition(stacked, (cut, end - 1), axis=0)
    return ordered[cut:end].mean(axis=0)


def _by_block(
    weights_list: Sequence[Sequence[FloatArray]], combine: Callable[[npt.NDArray[np.float64]], Any]
) -> list[FloatArray]:
    """Combine arrays of all parties number by number: ``combine`` takes (n, numbers) in float64."""
    combined = []
    for arrays in zip(*weights_list, strict=True):
        flat = [np.ascontiguousarray(array).reshape(-1) for array in arrays]
        found = np.empty(flat[0].size, np.float32)
        # No block of one number: numpy would add that one up in another order.
        ends = [*range(_BLOCK, found.size - 1, _BLOCK), found.size]
        for start, end in zip([0, *ends], ends, strict=False):
            stacked = np.stack([widened(one[start:end]) for one in flat]).astype(np.float64)
            if end > start:
                found[start:end] = combine(stacked)
        combined.append(found.reshape(arrays[0].shape))
    return combined
