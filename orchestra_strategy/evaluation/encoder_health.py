"""Health of features without labels: what says that a training collapses before any label does.

Alignment, uniformity and effective rank are those of
:mod:`orchestra_strategy.evaluation.geometry`; the balance of the clusters is the entropy of their
sizes, as a fraction of the highest one.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from orchestra_strategy.errors import DataError, ParameterError
from orchestra_strategy.evaluation.array_checks import Array, as_numpy, check_labels
from orchestra_strategy.evaluation.geometry import alignment, effective_rank, uniformity

__all__ = [
    "Health",
    "alignment",
    "cluster_balance",
    "collapse_reason",
    "effective_rank",
    "health_of",
    "uniformity",
]


class Health(NamedTuple):
    """Label-free health of a batch of features.

    Attributes:
        alignment: See :func:`alignment`; 0 is best, two independent uniform views have 2.
        uniformity: See :func:`uniformity`; lower is better, 0 is total collapse.
        effective_rank: See :func:`effective_rank`; from 1 to the number of columns.
        cluster_balance: See :func:`cluster_balance`; None where nothing was assigned.
    """

    alignment: float
    uniformity: float
    effective_rank: float
    cluster_balance: float | None = None


def cluster_balance(assignments: Array, num_clusters: int) -> float:
    """Return entropy(cluster sizes / n) / log(num_clusters): how evenly the clusters are used.

    Args:
        assignments: Cluster of each sample, shape (n,), integers in [0, num_clusters).
        num_clusters: How many clusters there are, empty ones included; at least 2.

    Returns:
        A number in [0, 1]: 1 if all clusters are equal in size, 0 if one holds all samples.

    Raises:
        DataError: ``assignments`` is empty, or no integers in the range.
        ParameterError: ``num_clusters`` is below 2.

    >>> cluster_balance(torch.tensor([0, 0, 1, 1]), num_clusters=4)
    0.5
    """
    if num_clusters < 2:
        raise ParameterError(f"Expected `num_clusters` to be at least 2, got {num_clusters}.")
    check_labels("assignments", assignments, len(assignments))
    if not len(assignments):
        raise DataError("Expected `assignments` to have at least one sample, got none.")
    clusters = torch.from_numpy(as_numpy(assignments).astype("int64"))
    if int(clusters.max()) >= num_clusters:
        raise DataError(
            f"Expected `assignments` to be below `num_clusters` = {num_clusters}, got "
            f"{int(clusters.max())}."
        )
    p = torch.bincount(clusters).double() / len(clusters)
    return float(torch.special.entr(p).sum()) / math.log(num_clusters)  # entr(0) is 0


def health_of(
    z1: Tensor,
    z2: Tensor,
    assignments: Array | None = None,
    num_clusters: int | None = None,
) -> Health:
    """Measure two views of the same samples: alignment of both, the rest on ``z1``.

    Args:
        z1: Features of one view, shape (n, d), floating, n >= 2.
        z2: Those of another view of the same samples.
        assignments: Cluster of each sample, shape (n,); together with ``num_clusters``.
        num_clusters: How many clusters there are.

    Raises:
        DataError: The features or the assignments cannot be measured, or do not match.
        ParameterError: One of ``assignments`` and ``num_clusters`` is missing, or out of range.
    """
    if (assignments is None) != (num_clusters is None):
        missing = "assignments" if assignments is None else "num_clusters"
        raise ParameterError(
            f"Expected `assignments` and `num_clusters` together, got no `{missing}`."
        )
    balance = None
    if assignments is not None and num_clusters is not None:
        check_labels("assignments", assignments, len(z1))
        balance = cluster_balance(assignments, num_clusters)
    return Health(alignment(z1, z2), uniformity(z1), effective_rank(z1), balance)


def collapse_reason(
    health: Health,
    min_effective_rank: float = 2.0,
    max_uniformity: float = -0.01,
    min_cluster_balance: float = 0.01,
) -> str | None:
    """Say why features count as collapsed, or return None if they do not.

    The bounds are wide: they tell a dead training from a living one, not a good from a better one.

    Args:
        health: What :func:`health_of` measured.
        min_effective_rank: Below it the features span too little.
        max_uniformity: Above it (it is at most 0) all features point the same way.
        min_cluster_balance: Below it one cluster holds all samples, or all but a few.

    >>> collapse_reason(Health(alignment=0.0, uniformity=0.0, effective_rank=1.0))
    'All features point nearly the same way: the uniformity is 0.000, above -0.01.'
    """
    numbers = {name: value for name, value in health._asdict().items() if value is not None}
    broken = [name for name, value in numbers.items() if not math.isfinite(value)]
    if broken:
        return f"Not finite: {', '.join(broken)}. The training has diverged."
    if health.uniformity > max_uniformity:
        return (
            "All features point nearly the same way: the uniformity is "
            f"{health.uniformity:.3f}, above {max_uniformity:g}."
        )
    if health.effective_rank < min_effective_rank:
        return (
            f"The features span too few directions: their effective rank is "
            f"{health.effective_rank:.2f}, below {min_effective_rank:g}."
        )
    balance = health.cluster_balance
    if balance is not None and balance < min_cluster_balance:
        return (
            f"One cluster holds nearly all samples: the balance of the clusters is {balance:.3f}, "
            f"below {min_cluster_balance:g}."
        )
    return None
