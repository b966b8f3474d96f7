"""Sinkhorn-Knopp balanced assignment: the only one in this package, used everywhere.

R. Sinkhorn, P. Knopp, "Concerning nonnegative matrices and doubly stochastic matrices", Pacific
Journal of Mathematics 21(2), 1967; its use for assigning samples to clusters of equal size follows
M. Cuturi, "Sinkhorn Distances", NeurIPS 2013, https://arxiv.org/abs/1306.0895.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from orchestra_strategy.errors import ParameterError

__all__ = ["BalancedAssignment", "balanced_assignment", "sinkhorn"]

# exp(-300) and exp(300) are both finite in float64. Scalings differ between rows by at most the
# range of log P, so with this floor no product below can overflow, whatever the input.
_LOG_FLOOR = -300.0


class BalancedAssignment(NamedTuple):
    """Soft assignments with clusters of equal total weight.

    Attributes:
        A: Shape (N, K); every row sums to 1.
        scaling: r, of each cluster, shape (K,): where the next one may start.
    """

    A: Tensor
    scaling: Tensor


def sinkhorn(
    S: Tensor,
    *,
    max_iters: int = 100,
    tol: float = 1e-2,
    check_every: int = 10,
    sharpness: float = 25.0,
) -> Tensor:
    """Turn similarities into soft assignments with clusters of equal total weight.

    See :func:`balanced_assignment`, of which this is the assignment alone, from no scaling.

    Returns:
        Soft assignments, shape (N, K), dtype of ``S``; every row sums to 1. No gradient.

    Raises:
        ParameterError: ``S`` is not a non-empty finite matrix.

    >>> sinkhorn(torch.zeros(2, 4)).tolist()[0]
    [0.25, 0.25, 0.25, 0.25]
    """
    return balanced_assignment(
        S, max_iters=max_iters, tol=tol, check_every=check_every, sharpness=sharpness
    ).A


@torch.no_grad()
def balanced_assignment(
    S: Tensor,
    *,
    start: Tensor | None = None,
    max_iters: int = 100,
    tol: float = 1e-2,
    check_every: int = 10,
    sharpness: float = 25.0,
    dtype: torch.dtype = torch.float64,
) -> BalancedAssignment:
    """Assign samples to clusters of equal total weight, by Sinkhorn-Knopp.

    P = softmax(sharpness * S) over clusters; scalings r (K,) and c (N,) are sought such that
    diag(r) P^T diag(c) has row sums 1/K and column sums 1/N.

    Args:
        S: Similarities, shape (N, K), any finite values; rows are samples, columns clusters.
        start: The ``scaling`` of similarities that were nearly these, shape (K,); few iterations
            do then. None starts from equal weights of the samples.
        max_iters: Upper limit of the iterations.
        tol: Stop when sum |c / c_new - 1| falls below it; 0 never stops early.
        check_every: How many iterations lie between two checks of ``tol``.
        sharpness: Inverse temperature of the softmax.
        dtype: What it is computed in; float32 holds the scalings of cosines, and not of any values.

    Returns:
        The assignments, in the dtype of ``S``, and the clusters' scaling. No gradient.

    Raises:
        ParameterError: ``S`` is not a non-empty finite matrix.
    """
    if S.ndim != 2 or 0 in S.shape:
        raise ParameterError(f"Expected `S` to be a non-empty (N, K) matrix, got {tuple(S.shape)}.")
    if not bool(torch.isfinite(S).all()):
        raise ParameterError("Expected `S` to be finite, got NaN or infinite similarities.")
    N, K = S.shape
    log_P = torch.log_softmax(sharpness * S.to(dtype), dim=1).T
    P = log_P.clamp_min(_LOG_FLOOR).exp()  # (K, N), strictly positive
    P_T = P.T.contiguous()
    c = S.new_full((N,), 1.0 / N, dtype=dtype)
    r = S.new_full((K,), 1.0 / K, dtype=dtype)
    if start is not None:
        c = torch.mv(P_T, start.to(dtype)).reciprocal_().div_(N)
    for iteration in range(1, max_iters + 1):
        # In place, since this loop is what global clustering spends most of its time in.
        r = torch.mv(P, c).reciprocal_().div_(K)
        c_new = torch.mv(P_T, r).reciprocal_().div_(N)
        check = iteration % check_every == 0 and iteration < max_iters
        settled = check and float((c / c_new - 1).abs().sum()) < tol
        c = c_new
        if settled:
            break
    A = (r[:, None] * P * c).T
    return BalancedAssignment((A / A.sum(dim=1, keepdim=True)).to(S.dtype), r)
