"""The shape of features: alignment, uniformity and effective rank, computed in float64.

T. Wang, P. Isola, "Understanding Contrastive Representation Learning through Alignment and
Uniformity on the Hypersphere", ICML 2020, https://arxiv.org/abs/2005.10242. O. Roy, M. Vetterli,
"The effective rank: a measure of effective dimensionality", EUSIPCO 2007.

One thread each: on cores that the parties use as well, threads that wait for each other made a
health check of milliseconds take seconds.
"""

import math

import torch
from torch import Tensor

from orchestra_strategy.errors import DataError, ParameterError
from orchestra_strategy.evaluation.array_checks import check_features
from orchestra_strategy.threads import torch_threads

__all__ = ["alignment", "effective_rank", "uniformity"]

_BLOCK_ENTRIES = 2**22  # distances held at a time: 32 MiB in float64


@torch.no_grad()
@torch_threads(1)
def alignment(z1: Tensor, z2: Tensor) -> float:
    """Return the mean squared distance between two views, mean_i |u(z1_i) - u(z2_i)|^2.

    u(z) = z / |z|, and a row of zeros stays zero. Collapsed features are perfectly aligned, so this
    number means something only beside :func:`uniformity`.

    Args:
        z1: Features of one view of each sample, shape (n, d), floating.
        z2: Those of another view of the same samples, in the same order.

    Returns:
        A number in [0, 4].

    Raises:
        DataError: The views are empty, not finite, or of different shapes.

    >>> alignment(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]]))
    2.0
    """
    check_features("z1", z1)
    check_features("z2", z2)
    if z1.shape != z2.shape:
        raise DataError(
            "Expected `z1` and `z2` to have one shape, row i of both for sample i, got "
            f"{tuple(z1.shape)} and {tuple(z2.shape)}."
        )
    return float((_unit(z1) - _unit(z2)).square().sum(dim=1).mean())


@torch.no_grad()
@torch_threads(1)
def uniformity(z: Tensor, t: float = 2.0) -> float:
    """Return log mean_{i<j} exp(-t |u(z_i) - u(z_j)|^2): how evenly features fill the sphere.

    u(z) = z / |z|, and a row of zeros stays zero. All n (n - 1) / 2 pairs count, so the time grows
    with n^2: give a sample of some hundred rows. Distances are held in blocks.

    Args:
        z: Features, shape (n, d), floating, n >= 2.
        t: The kernel's sharpness, > 0.

    Returns:
        A number in [-4 t, 0]; 0 if all rows point the same way.

    Raises:
        DataError: The features are empty, not finite, or a single row.
        ParameterError: ``t`` is not above 0.

    >>> uniformity(torch.tensor([[1.0, 0.0], [-5.0, 0.0]]))
    -8.0
    """
    check_features("z", z)
    n = len(z)
    if n < 2:
        raise DataError(f"Expected `z` to have at least 2 rows, to make a pair, got {n}.")
    if not 0 < t < math.inf:
        raise ParameterError(f"Expected `t` to be a finite number above 0, got {t}.")
    unit = _unit(z)
    squares = unit.square().sum(dim=1)
    parts, size = [], max(1, _BLOCK_ENTRIES // n)
    for start in range(0, n, size):
        block = unit[start : start + size]
        distances = squares[start : start + size, None] + squares - 2 * block @ unit.T
        exponents = distances.clamp_(min=0).mul_(-t)  # (b, n)
        # A row is no pair with itself: its exponent 0 would be the largest of all.
        exponents.diagonal(start).fill_(-math.inf)
        parts.append(exponents.flatten().logsumexp(0))
    return float(torch.stack(parts).logsumexp(0)) - math.log(n) - math.log(n - 1)


@torch.no_grad()
@torch_threads(1)
def effective_rank(z: Tensor) -> float:
    """Return exp(-sum_i p_i log p_i) with p = singular values of ``z`` / their sum.

    Columns are not centred, as in the source: features that are one constant vector have rank 1.

    Args:
        z: Features, shape (n, d), floating.

    Returns:
        A number in [1, min(n, d)]; 0 for a matrix of zeros.

    Raises:
        DataError: The features are empty or not finite.

    >>> round(effective_rank(torch.eye(3)), 6)
    3.0
    """
    check_features("z", z)
    matrix = z.double()
    largest = matrix.abs().max()
    if largest == 0:
        return 0.0
    matrix = matrix / largest  # squares of huge or tiny values would leave the range of float64
    # Eigenvalues of the smaller Gram matrix: several times as fast as the singular values. What
    # rounding leaves of those that are zero is dropped.
    gram = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
    eigenvalues = torch.linalg.eigvalsh(gram)
    floor = max(z.shape) * torch.finfo(torch.float64).eps * eigenvalues[-1]
    singular = eigenvalues[eigenvalues > floor].sqrt()
    p = singular / singular.sum()
    return float(torch.exp(-(p * p.log()).sum()))


def _unit(z: Tensor) -> Tensor:
    """Return the rows in float64 at length 1; a row of zeros stays zero."""
    tiny = torch.finfo(torch.float64).tiny
    # By the largest entry first, for the square of a tiny one is 0 and that of a huge one infinite.
    rows = z.double()
    rows = rows / rows.abs().amax(dim=1, keepdim=True).clamp(min=tiny)
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / lengths.clamp(min=tiny)
