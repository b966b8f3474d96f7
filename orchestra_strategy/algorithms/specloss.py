"""Spectral contrastive loss: projections that factorise the graph of views of the same sample.

J. Z. HaoChen, C. Wei, A. Gaidon, T. Ma, "Provable Guarantees for Self-Supervised Deep Learning with
Spectral Contrastive Loss", NeurIPS 2021, https://arxiv.org/abs/2106.04156, eq. 6. Where we deviate:
the authors cut projections longer than sqrt(mu) back to that length; ours all have it, as the
projector's normalised output is longer anyway.
"""

from typing import NamedTuple

from torch import Tensor, nn

from orchestra_strategy.algorithms.objective import Batch, LossParts
from orchestra_strategy.algorithms.objective_bases import (
    SelfSupervisedObjective,
    require_other_rows,
    two_projections,
)
from orchestra_strategy.algorithms.precision import in_fp32

__all__ = ["SpecLossObjective", "SpecLossSettings", "spectral_loss"]


class SpecLossSettings(NamedTuple):
    """Hyper-parameters: mu, the squared length that unit-norm projections are scaled to."""

    scale: float = 1.0


@in_fp32
def spectral_loss(z1: Tensor, z2: Tensor, scale: float) -> Tensor:
    """-2 E[f(x)^T f(x+)] + E[(f(x)^T f(x-))^2], with f = sqrt(scale) * z.

    x+ is the other view of x; x- runs over the other views of the B - 1 other samples.

    Args:
        z1: Unit-norm projections of view 1, shape (B, D), B >= 2.
        z2: Unit-norm projections of view 2, shape (B, D), in the same order.
        scale: mu > 0.

    Raises:
        DataError: B is less than 2: there is no x-.

    >>> import torch
    >>> z1, z2 = torch.eye(2), torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    >>> round(spectral_loss(z1, z2, 1.0).item(), 4)  # -(1 + 0.8) + 0.6**2 / 2
    -1.62
    """
    rows = len(z1)
    require_other_rows(rows, "spectral contrastive")
    products = scale * (z1 @ z2.T)
    positive = products.diagonal()
    squares = products.square()
    negative = (squares.sum() - squares.diagonal().sum()) / (rows * (rows - 1))
    return -2 * positive.mean() + negative


class SpecLossObjective(SelfSupervisedObjective):
    """Spectral loss between two views; see :class:`SelfSupervisedObjective` for the arguments."""

    settings_class = SpecLossSettings
    settings: SpecLossSettings

    def __call__(self, model: nn.Module, batch: Batch) -> LossParts:
        """Return the loss of one local step on ``inputs`` (B, ...), B >= 2."""
        x1, x2, _, _ = self.draw(batch)
        z1, z2 = two_projections(model, x1, x2)
        return LossParts(spectral_loss(z1, z2, self.settings.scale), {})
