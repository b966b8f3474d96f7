"""The Gaussian mechanism: the one place that draws noise, and that writes it into the ledger.

C. Dwork, A. Roth, "The Algorithmic Foundations of Differential Privacy", 2014, appendix A,
https://doi.org/10.1561/0400000042.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from orchestra_strategy.errors import ParameterError
from orchestra_strategy.privacy.accounting import PrivacyLedger, Release
from orchestra_strategy.privacy.noise_source import NoiseSource

__all__ = ["GaussianMechanism", "check_release"]


class GaussianMechanism:
    """Adds Gaussian noise; there is no way to have the noise without paying for it.

    Args:
        ledger: Where every draw is noted, before it is made.
        source: Where the randomness comes from.
    """

    def __init__(self, ledger: PrivacyLedger, source: NoiseSource) -> None:
        self.ledger = ledger
        self.source = source

    def add_noise(
        self, tensors: Sequence[Tensor], sensitivity: float, release: Release
    ) -> list[Tensor]:
        """Return new tensors with independent noise in every coordinate.

        The noise has standard deviation ``release.noise_multiplier * sensitivity``, in the units of
        the tensors; sums are made in float64 and rounded to the tensors' dtype.

        Args:
            tensors: Floating-point tensors, which are one release together.
            sensitivity: By how much, in the L2 norm over all tensors together, one unit can move
                them at most, > 0.
            release: What is charged.

        Raises:
            ParameterError: The sensitivity is not positive, or a tensor is not finite; nothing is
                charged.
        """
        check_release(tensors, sensitivity)
        self.ledger.spend(release)
        std = release.noise_multiplier * sensitivity
        return [
            (t.detach().double().cpu() + noise).to(t)
            for t, noise in zip(tensors, self._noise(tensors, std), strict=True)
        ]

    def _noise(self, tensors: Sequence[Tensor], std: float) -> list[Tensor]:
        """Return float64 noise of the tensors' shapes."""
        drawn = torch.from_numpy(self.source.normal(sum(t.numel() for t in tensors))).mul_(std)
        parts = torch.split(drawn, [t.numel() for t in tensors])
        return [part.view(t.shape) for t, part in zip(tensors, parts, strict=True)]


def check_release(tensors: Sequence[Tensor], sensitivity: float) -> None:
    """Refuse what cannot be released, before anything is charged.

    Raises:
        ParameterError: The sensitivity is not positive, or a tensor is not finite.
    """
    if not (np.isfinite(sensitivity) and sensitivity > 0):
        raise ParameterError(
            f"Expected `sensitivity` to be a positive number, got {sensitivity!r}."
        )
    if not all(bool(torch.isfinite(t).all()) for t in tensors):
        raise ParameterError("Expected finite tensors to add noise to, got NaN or infinity.")
