"""SimCLR: two views of a sample are to be nearer to each other than to any other view.

T. Chen, S. Kornblith, M. Norouzi, G. Hinton, "A Simple Framework for Contrastive Learning of Visual
Representations", ICML 2020 (PMLR 119), https://arxiv.org/abs/2002.05709, eq. 1 and algorithm 1.
Where we deviate: each view is a batch of its own for BatchNorm; negatives come from the party's own
batch, since no projection leaves it.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchestra_strategy.algorithms.objective import Batch, LossParts
from orchestra_strategy.algorithms.objective_bases import (
    SelfSupervisedObjective,
    require_other_rows,
    two_projections,
)
from orchestra_strategy.algorithms.precision import in_fp32

__all__ = ["SimCLRObjective", "SimCLRSettings", "nt_xent"]


class SimCLRSettings(NamedTuple):
    """Hyper-parameters: T of the softmax over similarities."""

    temperature: float = 0.5


@in_fp32
def nt_xent(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross entropy over the 2B views of a batch.

    For view i with partner j: l = -log(exp(s_ij / T) / sum_{k != i} exp(s_ik / T)), s the cosine;
    the loss is the mean of l over all 2B views.

    Args:
        z1: Unit-norm projections of view 1, shape (B, D), B >= 2.
        z2: Unit-norm projections of view 2, shape (B, D), in the same order.
        temperature: T > 0.

    Raises:
        DataError: B is less than 2: there are no negatives.

    >>> e = torch.eye(2)
    >>> round(nt_xent(e, e, 1.0).item(), 4)  # log(e + 1 + 1) - 1
    0.5514
    """
    rows = len(z1)
    require_other_rows(rows, "NT-Xent")
    z = torch.cat([z1, z2])
    similarity = z @ z.T / temperature
    # A view is no negative of itself.
    itself = torch.eye(2 * rows, dtype=torch.bool, device=z.device)
    partner = torch.arange(2 * rows, device=z.device).roll(rows)
    return F.cross_entropy(similarity.masked_fill(itself, float("-inf")), partner)


class SimCLRObjective(SelfSupervisedObjective):
    """NT-Xent between two views; see :class:`SelfSupervisedObjective` for the arguments."""

    settings_class = SimCLRSettings
    settings: SimCLRSettings

    def __call__(self, model: nn.Module, batch: Batch) -> LossParts:
        """Return the loss of one local step on ``inputs`` (B, ...), B >= 2."""
        x1, x2, _, _ = self.draw(batch)
        z1, z2 = two_projections(model, x1, x2)
        return LossParts(nt_xent(z1, z2, self.settings.temperature), {})
