"""The accounting of a privacy budget, by Google's dp-accounting.

All mechanisms here are Gaussian, with or without Poisson sampling; neighbours differ by the
presence of one unit (a record, or a user), "add or remove one".

Sources:
    - I. Mironov, "Renyi Differential Privacy", CSF 2017, https://arxiv.org/abs/1702.07476.
    - I. Mironov, K. Talwar, L. Zhang, "Renyi Differential Privacy of the Sampled Gaussian
      Mechanism", 2019, https://arxiv.org/abs/1908.10530.
    - C. Canonne, G. Kamath, T. Steinke, "The Discrete Gaussian for Differential Privacy", NeurIPS
      2020, https://arxiv.org/abs/2004.00010, proposition 12 (from RDP to epsilon).
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import dp_accounting
import numpy as np
import numpy.typing as npt
from dp_accounting import rdp

from orchestra_strategy.errors import ParameterError, PrivacyError
from orchestra_strategy.privacy.pld_bound import pld_epsilon

__all__ = [
    "ACCOUNTANTS",
    "Costs",
    "PrivacyLedger",
    "Release",
    "epsilon_of",
    "find_noise_multiplier",
]

ACCOUNTANTS = ("rdp", "pld")

_FEWEST, _MOST = 1e-2, 1e5  # noise multipliers that are searched
_SEARCH_STEPS = 60
_PRECISION = 1e-3  # of the logarithm
_PLD_GAIN = 2.0  # by which PLD seldom needs less noise than RDP
_MANY_ROUNDS = 10**7
_NEVER = 1e-15  # a probability that counts as none

# The default orders leave gaps above 64, where the best one lies for an epsilon below 0.5; and
# have more fractions than a hundredth of epsilon asks for, which cost most of the time.
_ORDERS = sorted(
    {
        *(1 + i / 10 for i in range(1, 20)),
        *(3 + i / 4 for i in range(20)),
        *range(8, 64),
        *(int(64 * 1.1**i) for i in range(30)),
    }
)


class Release(NamedTuple):
    """One draw of Gaussian noise, as the accounting sees it.

    Attributes:
        noise_multiplier: Standard deviation of the noise over the L2 sensitivity, > 0.
        sampling_probability: With which each unit took part, drawn independently (Poisson); 1 is
            without sampling.
    """

    noise_multiplier: float
    sampling_probability: float = 1.0

    def event(self) -> dp_accounting.DpEvent:
        """Return it in the terms of dp-accounting."""
        gaussian = dp_accounting.GaussianDpEvent(self.noise_multiplier)
        if self.sampling_probability == 1.0:
            return gaussian
        return dp_accounting.PoissonSampledDpEvent(self.sampling_probability, gaussian)


Costs = Mapping[Release, int]
"""How often each kind of release happened, or will."""


@lru_cache(maxsize=4096)
def _rdp_of(release: Release) -> npt.NDArray[np.float64]:
    accountant = rdp.RdpAccountant(_ORDERS)
    accountant.compose(release.event())
    return np.array(accountant.rdp, np.float64)


def epsilon_of(costs: Costs, delta: float, accountant: str = "rdp") -> float:
    """Return epsilon at ``delta`` of all releases together.

    Args:
        costs: Releases with their numbers; none gives 0.
        delta: In (0, 1).
        accountant: ``"rdp"`` (fast) or ``"pld"`` (tighter, slower with many kinds of release; where
            there is so little noise that epsilon is in the millions, it is RDP's).

    >>> round(epsilon_of({Release(4.0): 10}, 1e-5), 3)
    3.617
    """
    costs = {release: count for release, count in costs.items() if count}
    if not costs:
        return 0.0
    total = sum(count * _rdp_of(release) for release, count in costs.items())
    epsilon = float(rdp.compute_epsilon(_ORDERS, total, delta)[0])
    if accountant == "rdp":
        return epsilon
    farthest = float(rdp.compute_epsilon(_ORDERS, total, _NEVER)[0])
    tighter = pld_epsilon({(z, q): n for (z, q), n in costs.items()}, delta, farthest)
    # Both are upper bounds, so the lower one is.
    return epsilon if tighter is None else min(epsilon, tighter)


class PrivacyLedger:
    """All releases of one party; :class:`~orchestra_strategy.privacy.GaussianMechanism` writes it.

    Args:
        accountant: ``"rdp"`` or ``"pld"``.

    Raises:
        ParameterError: An unknown accountant.

    >>> ledger = PrivacyLedger()
    >>> ledger.spend(Release(4.0), 10)
    >>> round(ledger.epsilon(1e-5), 3), ledger.rounds_left({Release(4.0): 1}, 5.0, 1e-5)
    (3.617, 7)
    """

    def __init__(self, accountant: str = "rdp") -> None:
        if accountant not in ACCOUNTANTS:
            raise ParameterError(
                f"Expected `accountant` to be one of {', '.join(map(repr, ACCOUNTANTS))}, got "
                f"{accountant!r}."
            )
        self.accountant = accountant
        self.spent: Counter[Release] = Counter()

    def spend(self, release: Release, count: int = 1) -> None:
        """Note releases.

        Raises:
            ParameterError: The multiplier is not positive, or the probability not in (0, 1].
        """
        z, q = release
        if not (math.isfinite(z) and z > 0 and 0 < q <= 1 and count >= 0):
            raise ParameterError(
                "Expected a release with a positive `noise_multiplier` and a "
                f"`sampling_probability` in (0, 1], got {release} {count} times."
            )
        self.spent[release] += count

    def epsilon(self, delta: float, further: Costs | None = None) -> float:
        """Return epsilon at ``delta`` of what has been spent, and of ``further`` releases."""
        return epsilon_of(self.spent + Counter(further or {}), delta, self.accountant)

    def rounds_left(self, round_costs: Costs, max_epsilon: float, delta: float) -> int:
        """Return how many more rounds of ``round_costs`` stay within ``max_epsilon``."""

        def fits(rounds: int) -> bool:
            further = {release: rounds * n for release, n in round_costs.items()}
            return self.epsilon(delta, further) <= max_epsilon

        low, high = 0, 1
        while high < _MANY_ROUNDS and fits(high):
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return low

    def state(self) -> dict[str, Any]:
        """Return what has been spent as plain types, for a checkpoint."""
        return {"accountant": self.accountant, "spent": [[*r, n] for r, n in self.spent.items()]}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take the state of :meth:`state`.

        Raises:
            ParameterError: It is that of another accountant, or of another form.
        """
        if set(state) != {"accountant", "spent"} or state["accountant"] != self.accountant:
            raise ParameterError(
                f"Expected the state of an {self.accountant!r} ledger, got "
                f"{ {k: v for k, v in state.items() if k != 'spent'} }."
            )
        self.spent = Counter()
        for z, q, count in state["spent"]:
            self.spend(Release(float(z), float(q)), int(count))


def find_noise_multiplier(
    costs_of: Callable[[float], Costs],
    target_epsilon: float,
    delta: float,
    rounds: int,
    accountant: str = "rdp",
) -> float:
    """Return the smallest noise multiplier with which ``rounds`` rounds cost ``target_epsilon``.

    Args:
        costs_of: From a noise multiplier to the releases of one round.
        target_epsilon: > 0; never exceeded by the result, and met to 1 %.
        delta: In (0, 1).
        rounds: Number of rounds.
        accountant: ``"rdp"`` or ``"pld"``.

    Raises:
        PrivacyError: No multiplier up to 100,000 is enough.

    >>> z = find_noise_multiplier(lambda z: {Release(z): 1}, 2.0, 1e-5, rounds=10)
    >>> round(z, 1), round(epsilon_of({Release(z): 10}, 1e-5), 1)
    (6.8, 2.0)
    """

    def epsilon(z: float) -> float:
        costs = {release: rounds * n for release, n in costs_of(z).items()}
        return epsilon_of(costs, delta, accountant)

    if accountant == "pld":
        # RDP needs at least as much noise, and costs nothing to try.
        high = math.log(find_noise_multiplier(costs_of, target_epsilon, delta, rounds))
        low = high - math.log(_PLD_GAIN)
        while low > math.log(_FEWEST) and epsilon(math.exp(low)) <= target_epsilon:
            low, high = low - math.log(_PLD_GAIN), low
    else:
        low = high = math.log(_FEWEST)
    while epsilon(math.exp(high)) > target_epsilon:
        low, high = high, high + math.log(4.0)
        if high > math.log(_MOST):
            raise PrivacyError(
                f"Expected `target_epsilon` to be within reach, got {target_epsilon:g} at `delta` "
                f"{delta:g} for {rounds} rounds, for which no noise is enough; raise it."
            )
    for _ in range(_SEARCH_STEPS):
        if high - low < _PRECISION:
            break
        middle = (low + high) / 2
        low, high = (low, middle) if epsilon(math.exp(middle)) <= target_epsilon else (middle, high)
    return math.exp(high)
