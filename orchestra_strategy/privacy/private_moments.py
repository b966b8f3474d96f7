"""The moments of clusters under differential privacy.

For unit-norm projections z_i and public global centroids C, every sample belongs to clusters with
weights q_i >= 0, sum_j q_ij <= 1, that follow from z_i and C alone. The moments are
S = sum_i q_i z_i^T and n = sum_i q_i. One sample adds (q z^T, q) to them, of L2 norm
sqrt(|q|^2 |z|^2 + |q|^2) <= sqrt(2).

Means of private moments are private: what is made of a private release needs no further budget
(post-processing). Sums of several parties' moments are what centroid route ``secure`` aggregates;
for route ``server`` a party turns its own into centroids.
"""

import math

import torch.nn.functional as F
from torch import Tensor

from orchestra_strategy.algorithms.moments import Moments
from orchestra_strategy.errors import ParameterError
from orchestra_strategy.privacy.accounting import Release
from orchestra_strategy.privacy.mechanism import GaussianMechanism

__all__ = [
    "MOMENTS_SENSITIVITY",
    "bounded",
    "centroids_of_moments",
    "nearest_moments",
    "privatise_moments",
    "user_moments",
]

MOMENTS_SENSITIVITY = math.sqrt(2.0)
"""L2 norm of what one sample, or one user with :func:`user_moments`, adds to (S, n) at most."""


def bounded(Z: Tensor) -> Tensor:
    """Return projections (m, D) whose L2 norm is at most 1: longer ones are shortened to it.

    Those that are not finite are left out: they count as zero.
    """
    Z = Z[Z.isfinite().all(dim=1)]
    lengths: Tensor = Z.norm(dim=1, keepdim=True)
    return Z / lengths.clamp(min=1.0)


def nearest_moments(Z: Tensor, C: Tensor) -> Moments:
    """Return the moments under hard assignments: q_i is 1 at the nearest centroid, else 0.

    Args:
        Z: Projections, shape (m, D); longer ones than 1 are shortened to 1.
        C: Global unit-norm centroids, shape (N_g, D).

    >>> import torch
    >>> nearest_moments(torch.tensor([[1.0, 0.0], [0.6, 0.8]]), torch.eye(2)).n
    tensor([1., 1.])
    """
    Z = bounded(Z)
    q = F.one_hot((Z @ C.T).argmax(dim=1), len(C)).to(Z)
    return Moments(q.T @ Z, q.sum(dim=0))


def user_moments(moments: Moments, num_samples: int) -> Moments:
    """Return one user's moments, scaled so that the user as a whole counts as one sample does.

    Args:
        moments: Those of the user's samples.
        num_samples: How many.
    """
    return Moments(moments.S / num_samples, moments.n / num_samples)


def privatise_moments(
    moments: Moments, noise_multiplier: float, mechanism: GaussianMechanism
) -> Moments:
    """Return the moments with noise of standard deviation z * sqrt(2) in every coordinate.

    Args:
        moments: A sum over samples, or over users of :func:`user_moments`.
        noise_multiplier: z.
        mechanism: Draws the noise and notes it.

    Raises:
        ParameterError: A length differs, so that the sensitivity would not be that of one release.
    """
    S, n = moments
    if S.ndim != 2 or n.shape != S.shape[:1]:
        raise ParameterError(
            f"Expected moments S (N_g, D) and n (N_g,), got {tuple(S.shape)} and {tuple(n.shape)}."
        )
    noisy = mechanism.add_noise([S, n], MOMENTS_SENSITIVITY, Release(noise_multiplier))
    return Moments(*noisy)


def centroids_of_moments(noisy: Moments, most: int, least: float) -> Tensor:
    """Return unit(S_j) of the clusters with the largest n_j, shape (<= most, D).

    Unit(S_j) is unit(S_j / n_j) for n_j > 0. The input must be private already.

    Args:
        noisy: Private moments.
        most: Largest number of centroids.
        least: Clusters with n_j below it are withheld; more than 0.

    >>> import torch
    >>> S = torch.tensor([[0.0, 2.0], [9.0, 0.0], [1.0, 1.0]])
    >>> centroids_of_moments(Moments(S, torch.tensor([2.0, 5.0, 0.5])), most=2, least=1.0)
    tensor([[1., 0.],
            [0., 1.]])
    """
    order = noisy.n.argsort(descending=True)[:most]
    order = order[(noisy.n[order] >= least) & (noisy.S[order].norm(dim=1) > 0)]
    return F.normalize(noisy.S[order], dim=1)
