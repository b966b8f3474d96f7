"""How good a party's clusters are: this package's own factor of its weight in the server's mean."""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["compactness"]


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
