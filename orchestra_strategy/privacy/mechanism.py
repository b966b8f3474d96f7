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

__all__ = ["GaussianMechanism"]


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
        if not (np.isfinite(sensitivity) and sensitivity > 0):
            raise ParameterError(
                f"Expected `sensitivity` to be a positive number, got {sensitivity!r}."
            )
        if not all(bool(torch.isfinite(t).all()) for t in tensors):
            raise ParameterError("Expected finite tensors to add noise to, got NaN or infinity.")
        self.ledger.spend(release)
        std = release.noise_multiplier * sensitivity
        noise = torch.from_numpy(self.source.normal(sum(t.numel() for t in tensors))).mul_(std)
        parts = torch.split(noise, [t.numel() for t in tensors])
        return [
            (t.detach().double().cpu() + part.view(t.shape)).to(t)
            for t, part in zip(tensors, parts, strict=True)
        ]
