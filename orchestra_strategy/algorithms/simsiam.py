"""SimSiam: predict one view's projection from the other's, with a stop-gradient and no negatives.

X. Chen, K. He, "Exploring Simple Siamese Representation Learning", CVPR 2021,
https://arxiv.org/abs/2011.10566, eq. 1 to 4 and algorithm 1. Where we deviate: projector and
predictor have two layers and the widths of the other methods here.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from orchestra_strategy.algorithms.model import parts_of
from orchestra_strategy.algorithms.objective import Batch, LossParts
from orchestra_strategy.algorithms.objective_bases import RowwiseObjective
from orchestra_strategy.algorithms.precision import in_fp32

__all__ = ["SimSiamObjective", "SimSiamSettings", "negative_cosine", "simsiam_loss"]


class SimSiamSettings(NamedTuple):
    """Hyper-parameters: there are none."""


@in_fp32
def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    """D(p, stopgrad(z)) = -mean_b cos(p_b, z_b).

    Args:
        p: Predictions, shape (B, D); takes the gradient.
        z: What they are to match, shape (B, D); no gradient flows here.
    """
    # Without the stop-gradient the constant projection is a minimum that is soon reached.
    return -F.cosine_similarity(p, z.detach(), dim=1).mean()


def simsiam_loss(p1: Tensor, p2: Tensor, z1: Tensor, z2: Tensor) -> Tensor:
    """D(p1, stopgrad(z2)) / 2 + D(p2, stopgrad(z1)) / 2, in [-1, 1].

    Args:
        p1: Predictions from view 1, shape (B, D).
        p2: Predictions from view 2, shape (B, D).
        z1: Projections of view 1, shape (B, D); no gradient flows here.
        z2: Projections of view 2, shape (B, D); no gradient flows here.

    >>> import torch
    >>> p, z = torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]])
    >>> round(simsiam_loss(p, p, z, z).item(), 4)
    -0.6
    """
    return negative_cosine(p1, z2) / 2 + negative_cosine(p2, z1) / 2


class SimSiamObjective(RowwiseObjective):
    """Negative cosine between two views; see :class:`SelfSupervisedObjective` for arguments."""

    heads = ("predictor",)
    settings_class = SimSiamSettings

    def per_example(
        self, model: nn.Module, batch: Batch
    ) -> tuple[Callable[[nn.Module, Batch], LossParts], Batch]:
        """Draw the views; what is left is a pure function of them.

        Args:
            model: The online network.
            batch: ``inputs`` (B, ...).

        Returns:
            The loss, and the batch it takes: ``inputs`` (view 1) and ``inputs2`` (view 2).
        """
        x1, x2, _, _ = self.draw(batch)

        def loss(model: nn.Module, prepared: Batch) -> LossParts:
            encoder, (predictor,) = parts_of(model, self.heads)
            z1, z2 = encoder(prepared["inputs"]), encoder(prepared["inputs2"])
            return LossParts(simsiam_loss(predictor(z1), predictor(z2), z1, z2), {})

        return loss, {"inputs": x1, "inputs2": x2}
