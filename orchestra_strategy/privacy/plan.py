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
        within: The release of how many users are below the clip; None where that is fixed.
    """

    steps: int
    update: Release
    moments: Release | None = None
    within: Release | None = None

    def costs(self) -> Costs:
        """Return the releases with their numbers."""
        costs = Counter({self.update: self.steps})
        costs.update(release for release in (self.moments, self.within) if release is not None)
        return costs


def user_level_plan(
    noise_multiplier: float, moments_share: float = 0.0, count_share: float = 0.0
) -> RoundPlan:
    """Share one noise multiplier out to the update, the moments, and the count of users.

    Gaussian releases with multipliers z_1, z_2, ... cost exactly as much as one with
    1 / z^2 = 1 / z_1^2 + 1 / z_2^2 + ... With shares of 1 / z^2 for the others, the round costs
    what a single release with ``noise_multiplier`` does.

    Args:
        noise_multiplier: z of the whole round.
        moments_share: Share of the moments, in [0, 1); 0 is for a strategy without.
        count_share: Share of the count; 0 is for a fixed clip.

    >>> user_level_plan(3.0, 0.1).moments.noise_multiplier == 3.0 / 0.1**0.5
    True
    """

    def part(share: float) -> Release | None:
        return Release(noise_multiplier / math.sqrt(share)) if share else None

    update = part(1.0 - moments_share - count_share)
    assert update is not None
    return RoundPlan(1, update, part(moments_share), part(count_share))


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
