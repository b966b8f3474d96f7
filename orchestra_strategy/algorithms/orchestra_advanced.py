"""What ``orchestra_advanced`` adds to Orchestra: an L2 term, and how good a party's clusters are.

Orchestra is E. S. Lubana et al., ICML 2022, https://arxiv.org/abs/2205.11506; the two additions are
this package's own, as an example of a further loss term and of a custom aggregation.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["compactness", "l2_penalty"]


def l2_penalty(model: nn.Module) -> Tensor:
    """Return the sum of squares of all trainable parameters, a scalar with a gradient.

    >>> _ = nn.init.constant_((layer := nn.Linear(3, 1, bias=False)).weight, 2.0)
    >>> l2_penalty(layer).item()
    12.0
    """
    squares = [p.square().sum() for p in model.parameters() if p.requires_grad]
    return torch.stack(squares).sum()


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
