"""Shared noise: each party adds a part, so that the sum over the parties carries the noise once.

Of K parties at most t pool what they know, their own parts of the noise included; with parts of
variance z^2 S^2 / (K - t) the others' still add up to z^2 S^2. So epsilon is a joint statement: it
holds against t of the parties together with the aggregator, as long as that gives out the sum alone
(C. Dwork et al., "Our Data, Ourselves: Privacy via Distributed Noise Generation", EUROCRYPT 2006,
https://doi.org/10.1007/11761679_29).

An aggregator computes with whole numbers. What is rounded after the noise was added would make each
party's error a function of its data, which the noise of the others does not cover. So the clean sum
and the noise are each rounded to one grid beforehand (P. Kairouz, Z. Liu, T. Steinke, "The
Distributed Discrete Gaussian Mechanism for Federated Learning with Secure Aggregation", ICML 2021,
https://arxiv.org/abs/2102.06387), after which sums are exact. Rounding moves a sum of d numbers by
at most sqrt(d) steps more: that is in the sensitivity. Sums of rounded Gaussian parts differ from a
rounded Gaussian by a factor of 1 + O(exp(-pi^2 (std / step)^2)), nothing in double precision from
16 steps on, and less is refused.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from orchestra_strategy.errors import PrivacyError
from orchestra_strategy.privacy.accounting import PrivacyLedger, Release
from orchestra_strategy.privacy.discrete_noise import discrete_gaussian
from orchestra_strategy.privacy.mechanism import GaussianMechanism, check_release
from orchestra_strategy.privacy.noise_source import NoiseSource

__all__ = ["STEPS", "Grid", "NoiseShare", "SharedGaussianMechanism"]

STEPS = 2**24
"""Whole numbers up to this are exact in float32, in which they travel."""

_REACH = 8.6  # standard deviations; the source gives no deviate beyond
_FINE = 16.0  # steps in a standard deviation


class Grid(NamedTuple):
    """The grid on which a party's sum and its part of the noise lie.

    Attributes:
        step: A power of two.
        most: What no coordinate of the clean sum exceeds; with the noise it stays below 2^24 steps.
        sensitivity: By how much one unit moves the rounded sum at most.
        std: Standard deviation of the party's part of the noise.
    """

    step: float
    most: float
    sensitivity: float
    std: float

    def rounded(self, values: Tensor) -> Tensor:
        """Return values on the grid, float64."""
        return (values.double().cpu() / self.step).round_().mul_(self.step)


class NoiseShare(NamedTuple):
    """How noise is shared out.

    Attributes:
        parties: K. To be shared, at least three: of two, each could take its own part off again.
            One adds all of the noise.
        max_colluding: t, how many of them may pool what they know, below K.
        units: How many users add up in one party's sum.
    """

    parties: int
    max_colluding: int
    units: int

    def grid(self, num_values: int, sensitivity: float, noise_multiplier: float) -> Grid:
        """Return the finest grid on which no sum can exceed 2^24 steps.

        Args:
            num_values: d, of the sum.
            sensitivity: Before rounding.
            noise_multiplier: z of the joint noise.

        Raises:
            PrivacyError: The noise is so little that rounding would show.

        >>> NoiseShare(5, 1, units=1).grid(10**6, 1.0, 2.0).sensitivity
        1.0009536743164062
        """
        most = self.units * sensitivity
        part = noise_multiplier / math.sqrt(self.parties - self.max_colluding)
        step = 2.0 ** math.floor(math.log2(most / STEPS))
        while True:
            wide = sensitivity + math.sqrt(num_values) * step
            if most + step + _REACH * part * wide <= STEPS * step:
                break
            step *= 2
        if part * wide < _FINE * step:
            raise PrivacyError(
                f"Expected noise of at least {_FINE:g} steps of the aggregator's whole numbers "
                f"with `noise='shared'`, got {part * wide / step:.2g}: raise `noise_multiplier`, "
                "or host fewer users at a party."
            )
        return Grid(step, most, wide, part * wide)

    def in_words(self) -> str:
        """Return under which condition epsilon holds."""
        return (
            f"at most {self.max_colluding} of {self.parties} parties pool what they know (each its "
            "own part of the noise), and the aggregator gives out sums alone"
        )


class SharedGaussianMechanism(GaussianMechanism):
    """Adds a party's part of the noise; all that is charged is the joint release.

    Args:
        ledger: See :class:`GaussianMechanism`.
        source: See there; of another stream at every party.
        share: How the noise is shared out.
        discrete: Whether noise is drawn as whole numbers, by
            :mod:`~orchestra_strategy.privacy.discrete_noise`, and not from ``source``.
    """

    def __init__(
        self,
        ledger: PrivacyLedger,
        source: NoiseSource,
        share: NoiseShare,
        discrete: bool = False,
    ) -> None:
        super().__init__(ledger, source)
        self.share = share
        self.discrete = discrete

    def add_noise(
        self, tensors: Sequence[Tensor], sensitivity: float, release: Release
    ) -> list[Tensor]:
        """Return the tensors on the grid of :meth:`NoiseShare.grid`, with a part of the noise.

        Coordinates that no sum of units can have are cut off, which moves no two sums apart.
        """
        check_release(tensors, sensitivity)
        d = sum(t.numel() for t in tensors)
        grid = self.share.grid(d, sensitivity, release.noise_multiplier)
        self.ledger.spend(release)
        return [
            (grid.rounded(t.detach().clamp(-grid.most, grid.most)) + grid.rounded(noise)).to(t)
            for t, noise in zip(tensors, self._part(tensors, grid), strict=True)
        ]

    def _part(self, tensors: Sequence[Tensor], grid: Grid) -> list[Tensor]:
        if not self.discrete:
            return self._noise(tensors, grid.std)
        scale, sizes = grid.std / grid.step, [t.numel() for t in tensors]
        drawn = torch.from_numpy(discrete_gaussian(sum(sizes), scale))
        # As the other source: beyond that lies less than 1e-17 of the probability.
        drawn = drawn.clamp(-_REACH * scale, _REACH * scale) * grid.step
        return [n.view(t.shape) for n, t in zip(torch.split(drawn, sizes), tensors, strict=True)]
