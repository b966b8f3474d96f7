"""Local clustering of Orchestra.

E. S. Lubana, C. I. Tang, F. Kawsar, R. P. Dick, A. Mathur, "Orchestra: Unsupervised Federated
Learning via Globally Consistent Clustering", ICML 2022 (PMLR 162), https://arxiv.org/abs/2205.11506,
section 4. Where we deviate: local clusters are made equal in size by an exact balanced rounding, so
that every centroid is the mean of at least ``k_min`` samples (the published code can send the
projection of a single one).
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from orchestra_strategy.algorithms.sinkhorn import sinkhorn
from orchestra_strategy.errors import ParameterError

__all__ = [
    "LocalClusters",
    "balanced_rounding",
    "compactness",
    "local_clustering",
    "random_unit_rows",
]

_LOCAL_SINKHORN_ITERS = 10


class LocalClusters(NamedTuple):
    """What local clustering yields.

    Attributes:
        centroids: Unit-norm means, shape (K, D), in order of their cluster.
        sizes: How many samples each is the mean of, shape (K,), int64, all >= ``k_min``.
    """

    centroids: Tensor
    sizes: Tensor


def random_unit_rows(rows: int, dim: int, generator: torch.Generator) -> Tensor:
    """Draw ``rows`` directions, uniform on the unit sphere, shape (rows, dim)."""
    return F.normalize(torch.randn(rows, dim, generator=generator), dim=1)


def balanced_rounding(A: Tensor) -> Tensor:
    """Assign every row to one cluster, clusters equal in size, with the largest total weight.

    Sizes are floor(N/K) or ceil(N/K). Solved exactly as a linear assignment of rows to seats:
    each cluster has floor(N/K) seats that must be filled and one more that may be.

    Args:
        A: Soft assignments, shape (N, K).

    Returns:
        Cluster of each row, shape (N,), int64.

    >>> balanced_rounding(torch.tensor([[0.9, 0.1], [0.8, 0.2]])).tolist()
    [0, 1]
    """
    N, K = A.shape
    base = N // K
    weight = A.double().cpu().numpy()
    # A must-fill seat outbids any sum of weights, so all of them are taken first.
    seats = np.concatenate([np.repeat(weight + 2.0 * N, base, axis=1), weight], axis=1)
    cluster_of_seat = np.concatenate([np.repeat(np.arange(K), base), np.arange(K)])
    rows, columns = linear_sum_assignment(seats, maximize=True)
    labels = np.empty(N, dtype=np.int64)
    labels[rows] = cluster_of_seat[columns]
    return torch.from_numpy(labels)


@torch.no_grad()
def local_clustering(
    Z: Tensor, num_clusters: int, *, k_min: int, generator: torch.Generator, iterations: int = 5
) -> LocalClusters:
    """Cluster a party's memory into clusters of equal size.

    Args:
        Z: Unit-norm projections of distinct samples, shape (m, D).
        num_clusters: N_l; must leave every cluster at least ``k_min`` samples.
        k_min: The least number of samples behind a centroid (k-anonymity), >= 2.
        generator: Draws which rows the centroids start from.
        iterations: Rounds of assignment and averaging.

    Returns:
        The centroids and their sizes. A cluster whose mean is the zero vector (its samples cancel
        out) has no direction and is withheld, so there may be fewer than ``num_clusters``.

    Raises:
        ParameterError: A range is violated, or m < num_clusters * k_min.
    """
    m = len(Z)
    if k_min < 2:
        raise ParameterError(f"Expected `k_min` to be at least 2, got {k_min}.")
    if num_clusters < 1 or num_clusters * k_min > m:
        raise ParameterError(
            f"Expected `num_clusters` to be in [1, samples // k_min] so that every centroid is the "
            f"mean of at least {k_min} samples, got {num_clusters} clusters for {m} samples."
        )
    start = torch.randperm(m, generator=generator)[:num_clusters].to(Z.device)
    centroids = Z[start]
    means, sizes = centroids, torch.zeros(num_clusters, dtype=torch.int64)
    labels = torch.empty(0, dtype=torch.int64)
    for _ in range(iterations):
        A = sinkhorn(Z @ centroids.T, max_iters=_LOCAL_SINKHORN_ITERS)
        before, labels = labels, balanced_rounding(A)
        if torch.equal(labels, before):  # nothing would change any more
            break
        members = F.one_hot(labels, num_clusters)  # (m, N_l)
        sizes = members.sum(dim=0)
        means = (members.to(Z).T @ Z) / sizes.to(Z)[:, None]
        centroids = F.normalize(means, dim=1)
    has_direction = means.norm(dim=1).cpu() > 1e-6
    return LocalClusters(centroids[has_direction.to(Z.device)], sizes[has_direction])


@torch.no_grad()
def compactness(Z: Tensor, centroids: Tensor) -> float:
    """Return how close rows are to their centroids: the mean cosine to the nearest, in [0, 1].

    Args:
        Z: Unit-norm projections, shape (m, D).
        centroids: Unit-norm local centroids, shape (K, D).

    Returns:
        1 where every row is a centroid; 0 where rows point away from all, or there is nothing to
        compare.

    >>> compactness(torch.eye(2), torch.tensor([[1.0, 0.0]]))  # cosines 1 and 0
    0.5
    """
    if len(Z) == 0 or len(centroids) == 0:
        return 0.0
    cosines = F.normalize(Z, dim=1) @ F.normalize(centroids, dim=1).T
    return float(cosines.max(dim=1).values.mean().clamp(0, 1))
