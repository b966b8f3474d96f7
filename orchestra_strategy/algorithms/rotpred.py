"""Rotation prediction: tell by how many quarters a sample has been turned.

S. Gidaris, P. Singh, N. Komodakis, "Unsupervised Representation Learning by Predicting Image
Rotations", ICLR 2018, https://arxiv.org/abs/1803.07728, eq. 2 and 3. Where we deviate: a step sees
one rotation of each sample, drawn at random, and not all four at once, so that a step costs as much
as the other methods'; the projector lies between backbone and classifier, as in Orchestra, of which
this is the second loss alone. Rows of a table are rolled by quarters.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from orchestra_strategy.algorithms.model import parts_of
from orchestra_strategy.algorithms.objective import Batch, LossParts
from orchestra_strategy.algorithms.objective_bases import RowwiseObjective
from orchestra_strategy.algorithms.precision import in_fp32

__all__ = ["RotPredObjective", "RotPredSettings", "rotation_loss"]


class RotPredSettings(NamedTuple):
    """Hyper-parameters: there are none."""


@in_fp32
def rotation_loss(logits: Tensor, rotation: Tensor) -> Tensor:
    """-mean_b log softmax(logits_b)[rotation_b].

    Args:
        logits: One per rotation, shape (B, 4).
        rotation: By how many quarters each sample was turned, shape (B,), int64.

    >>> import torch
    >>> round(rotation_loss(torch.zeros(2, 4), torch.tensor([0, 3])).item(), 4)  # log 4
    1.3863
    """
    return F.cross_entropy(logits, rotation)


class RotPredObjective(RowwiseObjective):
    """Cross entropy of the rotation; see :class:`SelfSupervisedObjective` for the arguments."""

    heads = ("degeneracy_head",)
    settings_class = RotPredSettings

    def per_example(
        self, model: nn.Module, batch: Batch
    ) -> tuple[Callable[[nn.Module, Batch], LossParts], Batch]:
        """Draw the turned view; what is left is a pure function of it.

        Args:
            model: The online network.
            batch: ``inputs`` (B, ...).

        Returns:
            The loss, and the batch it takes: ``inputs`` (view 3) and ``rotation`` (B,).
        """
        _, _, x3, rotation = self.draw(batch)

        def loss(model: nn.Module, prepared: Batch) -> LossParts:
            encoder, (head,) = parts_of(model, self.heads)
            return LossParts(
                rotation_loss(head(encoder(prepared["inputs"])), prepared["rotation"]), {}
            )

        return loss, {"inputs": x3, "rotation": rotation}
