"""The tight epsilon by privacy loss distributions, on a grid that fits into memory.

Google's dp-accounting keeps the distribution of the privacy loss on a grid whose losses are rounded
up, so that epsilon is an upper bound on any grid. With little noise losses are large, and a grid of
a fixed fineness takes gigabytes; here its fineness follows from the range of the losses.

Sources:
    - S. Meiser, E. Mohammadi, "Tight on Budget? Tight Bounds for r-Fold Approximate Differential
      Privacy", CCS 2018, https://eprint.iacr.org/2017/1034.
    - B. Balle, Y.-X. Wang, "Improving the Gaussian Mechanism for Differential Privacy", ICML 2018,
      https://arxiv.org/abs/1805.06530, theorem 8 (Gaussians without sampling, exactly).
"""

import math
from collections.abc import Mapping

import dp_accounting
from dp_accounting.pld import PLDAccountant
from scipy.optimize import brentq
from scipy.special import log_ndtr

__all__ = ["gaussian_epsilon", "pld_epsilon"]

_FINEST = 1e-4  # of the grid, in units of epsilon
_MOST_CELLS = 2**18  # half a second and 100 MB
_COARSEST = 100.0  # from there on exp(loss) overflows; epsilon is beyond a million then
_TAIL = 10.0  # standard deviations of the noise that are looked at, as in dp-accounting


def gaussian_epsilon(shift: float, delta: float) -> float:
    """Return epsilon at ``delta`` of Gaussian noise without sampling, exactly.

    Args:
        shift: L2 sensitivity over the standard deviation, > 0; of several releases the root of the
            sum of squares.
        delta: In (0, 1).

    >>> round(gaussian_epsilon(1.0, 1e-5), 4)
    4.3772
    """

    def excess(epsilon: float) -> float:
        """Return log(delta of ``epsilon``) - log(delta); it falls."""
        first = float(log_ndtr(shift / 2 - epsilon / shift))
        second = epsilon + float(log_ndtr(-shift / 2 - epsilon / shift))
        difference = -math.expm1(second - first)
        return (first + math.log(difference) if difference > 0 else -math.inf) - math.log(delta)

    if excess(0.0) <= 0:
        return 0.0
    most = shift**2 / 2 + shift * math.sqrt(2 * math.log(1 / delta))  # the tail bound of the loss
    return float(brentq(lambda e: max(excess(e), -1e3), 0.0, most + 1e-9, xtol=1e-10, rtol=1e-12))


def pld_epsilon(
    costs: Mapping[tuple[float, float], int], delta: float, range_of_loss: float
) -> float | None:
    """Return an upper bound of epsilon at ``delta``, nearly tight.

    Args:
        costs: (noise multiplier, sampling probability) -> how often; not empty.
        delta: In (0, 1).
        range_of_loss: What the loss of all together exceeds by chance only, such as an epsilon at
            a tiny delta.

    Returns:
        None where there is too little noise for a grid.
    """
    if not math.isfinite(range_of_loss):
        return None
    shift = math.sqrt(sum(n / z**2 for (z, q), n in costs.items() if q == 1))
    sampled = {(z, q): n for (z, q), n in costs.items() if q < 1}
    if not sampled:
        return gaussian_epsilon(shift, delta)
    multipliers = [z for z, _ in sampled] + ([1 / shift] if shift else [])
    of_one = max(1 / (2 * z**2) + _TAIL / z for z in multipliers)
    interval = max(_FINEST, 2 * max(of_one, range_of_loss) / _MOST_CELLS)
    if not interval <= _COARSEST:
        return None
    accountant = PLDAccountant(value_discretization_interval=interval)
    for (z, q), n in sampled.items():
        event = dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(z))
        accountant.compose(event, n)
    if shift:
        accountant.compose(dp_accounting.GaussianDpEvent(1 / shift))
    return float(accountant.get_epsilon(delta))
