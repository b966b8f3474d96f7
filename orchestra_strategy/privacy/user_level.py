"""User-level privacy: a federated user's whole update is clipped, and noise added to the sum.

H. B. McMahan, D. Ramage, K. Talwar, L. Zhang, "Learning Differentially Private Recurrent Language
Models", ICLR 2018, https://arxiv.org/abs/1710.06963, algorithm 1. Neighbours differ by one user's
contribution: it takes part, or an update of zero stands in its place. Where we deviate: users have
equal weights; the users of a round are not a Poisson sample, so no amplification by sampling is
claimed; and each party adds the whole noise to the sum of its own users, so that a party's
guarantee needs no trust in the server or in the other parties.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from orchestra_strategy.errors import ParameterError
from orchestra_strategy.privacy.accounting import Release
from orchestra_strategy.privacy.mechanism import GaussianMechanism
from orchestra_strategy.privacy.silence import Silence

__all__ = ["UserLevelPrivacy", "clip_update"]


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
    norm = torch.stack([torch.linalg.vector_norm(t.double()) for t in update]).norm().item()
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

    def clip(self, update: Sequence[Tensor]) -> list[Tensor]:
        """Bound one user's update; see :func:`clip_update`."""
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
        noisy = self.mechanism.add_noise(total, self.clip_norm, Release(self.noise_multiplier))
        return [(n / count).to(t) for n, t in zip(noisy, mean, strict=True)]

    def describe(self) -> str:
        """Return what it does, in one sentence."""
        return (
            f"user level: each update clipped to an L2 norm of {self.clip_norm:g}, Gaussian noise "
            f"of standard deviation {self.noise_multiplier * self.clip_norm:g} on the sum"
        )
