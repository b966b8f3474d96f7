"""The plan of one federated round: its releases, and how noise is shared out among them."""

import math
from collections import Counter
from typing import NamedTuple

from orchestra_strategy.privacy.accounting import Costs, Release

__all__ = ["RoundPlan", "record_level_plan", "user_level_plan"]


class RoundPlan(NamedTuple):
    """The releases of one party in one round.

    Attributes:
        steps: How many noisy updates or gradients.
        update: Each of them.
        moments: The release of the clusters' moments; None for a strategy without.
    """

    steps: int
    update: Release
    moments: Release | None = None

    def costs(self) -> Costs:
        """Return the releases with their numbers."""
        costs = Counter({self.update: self.steps})
        if self.moments is not None:
            costs[self.moments] += 1
        return costs


def user_level_plan(noise_multiplier: float, moments_share: float = 0.0) -> RoundPlan:
    """Share one noise multiplier out to the update and the moments.

    Two Gaussian releases with multipliers z_1 and z_2 cost exactly as much as one with
    1 / z^2 = 1 / z_1^2 + 1 / z_2^2. With a share s of 1 / z^2 for the moments, the round costs what
    a single release with ``noise_multiplier`` does.

    Args:
        noise_multiplier: z of the whole round.
        moments_share: s in [0, 1); 0 is for a strategy without moments.

    >>> user_level_plan(3.0, 0.1).moments.noise_multiplier == 3.0 / 0.1**0.5
    True
    """
    if not moments_share:
        return RoundPlan(1, Release(noise_multiplier))
    update = Release(noise_multiplier / math.sqrt(1.0 - moments_share))
    return RoundPlan(1, update, Release(noise_multiplier / math.sqrt(moments_share)))


def record_level_plan(
    noise_multiplier: float, probability: float, steps: int, moments_share: float = 0.0
) -> RoundPlan:
    """Return the round of DP-SGD with ``steps`` steps, and moments beside them.

    How noisy the moments are follows from the steps' joint cost as the central limit theorem
    approximates it, mu = q sqrt(T (exp(1 / z^2) - 1)) (Z. Bu et al., "Deep Learning with Gaussian
    Differential Privacy", 2020, https://arxiv.org/abs/1911.11607): their share of mu^2 is
    ``moments_share``. Only the choice is approximate; the accounting takes it as it is.

    Args:
        noise_multiplier: z of one step.
        probability: q, with which a record is in a step's batch.
        steps: T.
        moments_share: In [0, 1); 0 is for a strategy without moments.
    """
    update = Release(noise_multiplier, probability)
    if not moments_share:
        return RoundPlan(steps, update)
    # Sampling can only help: without it the cost is exactly mu^2 = T / z^2. That bounds the
    # approximation, which explodes where z is small.
    growth = math.expm1(min(noise_multiplier**-2, 500.0))
    sampled = probability * math.sqrt(steps * growth) if probability < 1 else math.inf
    mu = min(sampled, math.sqrt(steps) / noise_multiplier)
    moments = Release(math.sqrt((1.0 - moments_share) / moments_share) / mu)
    return RoundPlan(steps, update, moments)
