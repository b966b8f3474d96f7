"""User-level privacy: a federated user's whole update is clipped, and noise added to the sum.

H. B. McMahan, D. Ramage, K. Talwar, L. Zhang, "Learning Differentially Private Recurrent Language
Models", ICLR 2018, https://arxiv.org/abs/1710.06963, algorithm 1. Neighbours differ by one user's
contribution: it takes part, or an update of zero stands in its place. Where we deviate: users have
equal weights; the users of a round are not a Poisson sample, so no amplification by sampling is
claimed; and each party adds the whole noise to the sum of its own users, so that a party's
guarantee needs no trust in the server or in the other parties.
"""

import math
import struct
from collections.abc import Sequence

import torch
from torch import Tensor

from orchestra_strategy.errors import ParameterError
from orchestra_strategy.privacy.accounting import Release
from orchestra_strategy.privacy.mechanism import GaussianMechanism
from orchestra_strategy.privacy.silence import Silence

__all__ = ["UserLevelPrivacy", "clip_update", "next_clip", "update_norm"]


def update_norm(update: Sequence[Tensor]) -> float:
    """Return the L2 norm over all tensors together; it may be infinite or NaN."""
    return float(torch.stack([torch.linalg.vector_norm(t.double()) for t in update]).norm())


def next_clip(clip_norm: float, below: float, quantile: float, rate: float) -> float:
    """Return the clip of the next round: it grows where fewer than the quantile are below it.

    G. Andrew, O. Thakkar, H. B. McMahan, S. Ramaswamy, "Differentially Private Learning with
    Adaptive Clipping", NeurIPS 2021, https://arxiv.org/abs/1905.03871, section 2.1.

    Args:
        clip_norm: C.
        below: Share of the users whose update is no longer than C; noise may have taken it out of
            [0, 1].
        quantile: Which share it should be.
        rate: Of the logarithm of C.

    Returns:
        A number of float32's precision, the same wherever it is computed.

    >>> round(next_clip(1.0, below=0.1, quantile=0.5, rate=0.2), 3), next_clip(1.0, 0.5, 0.5, 0.2)
    (1.083, 1.0)
    """
    moved = clip_norm * math.exp(rate * (quantile - min(max(below, 0.0), 1.0)))
    return struct.unpack("f", struct.pack("f", moved))[0]  # type: ignore[no-any-return]


def clip_update(update: Sequence[Tensor], clip_norm: float) -> list[Tensor]:
    """Return ``update`` times min(1, C / its L2 norm over all tensors together).

    Args:
        update: Differences local - server, or gradients, one tensor per parameter.
        clip_norm: C > 0.

    Returns:
        The clipped update; zeros if the norm is not finite, since no factor could bound it.

    >>> clip_update([torch.tensor([3.0]), torch.tensor([4.0])], 1.0)
    [tensor([0.6000]), tensor([0.8000])]
    """
    norm = update_norm(update)
    if not norm < float("inf"):  # NaN, too
        return [torch.zeros_like(t) for t in update]
    factor = min(1.0, clip_norm / norm) if norm > 0 else 1.0
    return [t * factor for t in update]


class UserLevelPrivacy:
    """Protects what a user, or several in one place, share.

    Args:
        clip_norm: C, the largest L2 norm of one user's update.
        noise_multiplier: z; the noise on the sum of the users' updates has standard deviation
            z * C.
        mechanism: Draws the noise and notes it.
        silence: Keeps errors of single users back.

    Attributes:
        within: How many more users than half of those so far have had an update no longer than C,
            each counting 1/2: one user moves it by 1/2.
        released: The last sum of clipped updates, with noise, a tensor per trained parameter.

    Raises:
        ParameterError: ``clip_norm`` is not positive.
    """

    def __init__(
        self,
        clip_norm: float,
        noise_multiplier: float,
        mechanism: GaussianMechanism,
        silence: Silence | None = None,
    ) -> None:
        if not clip_norm > 0:
            raise ParameterError(f"Expected `clip_norm` to be positive, got {clip_norm!r}.")
        self.clip_norm = clip_norm
        self.noise_multiplier = noise_multiplier
        self.mechanism = mechanism
        self.silence = Silence() if silence is None else silence
        self.within = 0.0
        self.released: list[Tensor] = []

    def clip(self, update: Sequence[Tensor]) -> list[Tensor]:
        """Bound one user's update, see :func:`clip_update`, and count it."""
        self.within += 0.5 if update_norm(update) <= self.clip_norm else -0.5
        return clip_update(update, self.clip_norm)

    def noisy_mean(
        self, mean: Sequence[Tensor], users: int = 1, expected: int | None = None
    ) -> list[Tensor]:
        """Return (sum of clipped updates + noise) / ``expected``.

        Args:
            mean: Mean, with equal weights, of ``users`` clipped updates.
            users: How many there were.
            expected: How many were asked, a number that no user's data can change; by default
                ``users``.
        """
        count = users if expected is None else expected
        total = [t.double() * users for t in mean]
        release = Release(self.noise_multiplier)
        self.released = self.mechanism.add_noise(total, self.clip_norm, release)
        return [(n / count).to(t) for n, t in zip(self.released, mean, strict=True)]

    def describe(self) -> str:
        """Return what it does, in one sentence."""
        return (
            f"user level: each update clipped to an L2 norm of {self.clip_norm:g}, Gaussian noise "
            f"of standard deviation {self.noise_multiplier * self.clip_norm:g} on the sum"
        )
