"""Clustering from sums alone: moments of a memory under shared centroids, and centroids from them.

Route ``secure`` of this package; the method it stands in for clusters local centroids on a server
(E. S. Lubana et al., ICML 2022, https://arxiv.org/abs/2205.11506, section 4). One exchange of
moments is one step of spherical k-means (I. S. Dhillon, D. S. Modha, "Concept Decompositions for
Large Sparse Text Data Using Clustering", Machine Learning 42, 2001) over all parties' samples, with
soft assignments. Clusters are kept equal in size as in Sinkhorn-Knopp: the scaling of a cluster
follows from its total size over all parties, which is a sum as well, one iteration per exchange.

Sensitivity: one sample adds (q z^T, q) to (S, n), with ||q||_2 <= ||q||_1 = 1 and ||z||_2 = 1, of
L2 norm sqrt(||q||^2 ||z||^2 + ||q||^2) <= sqrt(2).
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from orchestra_strategy.errors import ParameterError

__all__ = ["Moments", "SharedClusters", "clusters_from_moments", "moments"]

# A cluster with less than this share of an even one says nothing, or too much of one sample.
_MIN_SHARE = 0.05

# An empty cluster draws samples in by steps, since by the next exchange the centroids have moved.
_MAX_LOG_STEP = 5.0

# What it takes to reach the other side of the sphere at the default sharpness: 25 * (1 - -1).
_MAX_LOG_SCALING = 50.0


class Moments(NamedTuple):
    """Sums over samples; those of several parties add up to those of the pooled samples.

    Attributes:
        S: Sum of q_i z_i^T, shape (N_g, D).
        n: Sum of q_i, shape (N_g,): the clusters' sizes.
    """

    S: Tensor
    n: Tensor

    def __add__(self, other: "Moments") -> "Moments":  # type: ignore[override]
        return Moments(self.S + other.S, self.n + other.n)


class SharedClusters(NamedTuple):
    """What every party knows, bit for bit the same.

    Attributes:
        C: Unit-norm global centroids, shape (N_g, D).
        log_scaling: Logarithm of the clusters' scalings, shape (N_g,): larger draws samples in.
    """

    C: Tensor
    log_scaling: Tensor


@torch.no_grad()
def moments(Z: Tensor, clusters: SharedClusters, sharpness: float = 25.0) -> Moments:
    """Sum up a memory: S = sum_i q_i z_i^T, n = sum_i q_i.

    q_i = softmax(sharpness * z_i C^T + log_scaling), which is a Sinkhorn assignment whose cluster
    scalings are given.

    Args:
        Z: Unit-norm projections, shape (m, D).
        clusters: The shared centroids and scalings.
        sharpness: Inverse temperature of the assignments; that of :func:`sinkhorn` by default.

    Returns:
        The sums, float64; zeros for an empty memory.

    Raises:
        ParameterError: ``Z`` has another width than the centroids.

    >>> two = SharedClusters(torch.eye(2), torch.zeros(2))
    >>> S, n = moments(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), two)
    >>> S.round(decimals=6).tolist(), n.round(decimals=6).tolist()
    ([[2.0, 0.0], [0.0, 1.0]], [2.0, 1.0])
    """
    C = clusters.C.double()
    if Z.ndim != 2 or Z.shape[1] != C.shape[1]:
        raise ParameterError(
            f"Expected `Z` to be (m, {C.shape[1]}) like the centroids, got {tuple(Z.shape)}."
        )
    Z = Z.double().to(C.device)
    Q = torch.softmax(sharpness * Z @ C.T + clusters.log_scaling.double(), dim=1)
    return Moments(Q.T @ Z, Q.sum(dim=0))


@torch.no_grad()
def clusters_from_moments(total: Moments, clusters: SharedClusters) -> SharedClusters:
    """Return the next centroids and scalings: C_j = unit(S_j / n_j).

    Depends on ratios alone, so a common factor of the moments, such as that of a mean, is harmless.

    Args:
        total: Moments of all parties' samples, times any positive number.
        clusters: Those that the moments were taken under.

    Returns:
        New clusters. A centroid stays where its cluster has next to no samples, or where they
        cancel out; all stay where the total is zero. Scalings have mean 0 in the logarithm.

    >>> two = SharedClusters(torch.eye(2), torch.zeros(2))
    >>> new = clusters_from_moments(Moments(torch.eye(2).flip(1), torch.ones(2)), two)
    >>> new.C.tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    S, n = total.S.double(), total.n.double()  # sizes below zero: from masks, or noise
    even = n.mean()
    if not float(even) > 0:
        return clusters
    C = clusters.C.double()
    usable = (n >= _MIN_SHARE * even) & (S.norm(dim=1) > 1e-3 * n)
    C = torch.where(usable[:, None], F.normalize(S, dim=1), C)
    # Sinkhorn's r_j <- r_j / (N_g * share of j), floored for empty clusters.
    log_ratio = (n / even).clamp_min(math.exp(-_MAX_LOG_STEP)).log()
    log_scaling = clusters.log_scaling.double() - log_ratio
    log_scaling = (log_scaling - log_scaling.mean()).clamp(-_MAX_LOG_SCALING, _MAX_LOG_SCALING)
    return SharedClusters(C.to(clusters.C), log_scaling.to(clusters.log_scaling))
