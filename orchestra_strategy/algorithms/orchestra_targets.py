"""Target assignments of Orchestra: as published, or balanced and sharpened.

In the published loss nothing keeps a party's samples from sharing one cluster: what is clustered
evenly is centroids, and between two rounds assignments are free. Two additions that are common in
clustering without labels mend it, with no more than a mean:

- centring, the similarity to each centroid less its mean (M. Caron et al., "Emerging Properties in
  Self-Supervised Vision Transformers", ICCV 2021, https://arxiv.org/abs/2104.14294, section 3.1),
  so that no centroid is near all samples;
- sharpening, a lower temperature for the target than for the online network (the same paper; M.
  Assran et al., "Semi-Supervised Learning of Visual Features by Non-Parametrically Predicting View
  Assignments with Support Samples", ICCV 2021, https://arxiv.org/abs/2104.13963).

The mean is one over the party's memory, or the global clusters'. The first evens out a party's own
assignments, whatever classes it has; rows act on each other through it, also on those of later
batches. The second depends on nothing but what all parties know, so that skew between parties is
kept, and every row is by itself given the centroids.
"""

from typing import Literal

import torch
from torch import Tensor

__all__ = ["Balance", "assignments", "mean_similarity"]

Balance = Literal["none", "memory", "clusters"]
"""Which mean is subtracted: none, that over a party's memory, that over the global centroids."""


def mean_similarity(
    balance: Balance, C: Tensor, memory: Tensor, held: Tensor | None = None
) -> Tensor | None:
    """Return the mean similarity to each centroid, (N_g,), that targets are centred by.

    Global clusters are kept equal in size, so the mean of their centroids stands for the mean of
    all parties' projections: ``"clusters"`` needs no further exchange.

    Args:
        balance: Whose mean; ``"none"`` gives None.
        C: Global unit-norm centroids, shape (N_g, D).
        memory: Rows of the memory (m, D), with those of the present batch.
        held: Which of them count, (m,) bool, the others being 0; None is all. On a CPU all do.

    >>> mean_similarity("memory", torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])).tolist()
    [1.0, 0.0]
    >>> mean_similarity("clusters", torch.eye(2), torch.empty(0, 2)).tolist()
    [0.5, 0.5]
    """
    if balance == "none":
        return None
    rows = C if balance == "clusters" else memory.to(C)
    # An empty memory, of a network that has diverged, has no mean.
    if not len(rows):
        return None
    if balance == "clusters" or held is None or held.device.type == "cpu":
        return C @ rows.mean(dim=0)
    return C @ (rows.sum(dim=0) / held.sum().clamp(min=1))


def assignments(z: Tensor, C: Tensor, temperature: float, centre: Tensor | None = None) -> Tensor:
    """Return softmax((z C^T - centre) / T), shape (B, N_g).

    Args:
        z: Unit-norm projections, shape (B, D).
        C: Global unit-norm centroids, shape (N_g, D).
        temperature: T > 0.
        centre: Mean similarity to each centroid, shape (N_g,); None is 0.
    """
    similarity = z @ C.T
    if centre is not None:
        similarity = similarity - centre
    return torch.softmax(similarity / temperature, dim=1)
