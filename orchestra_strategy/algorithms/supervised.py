"""Supervised learning in the same harness: cross entropy of a sample's class.

B. McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
AISTATS 2017, https://arxiv.org/abs/1602.05629, is this objective with federated users that do
several local steps. As in the other methods here, a step sees one view of each sample, and the
projector lies between backbone and classifier.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from orchestra_strategy.algorithms.model import parts_of
from orchestra_strategy.algorithms.objective import Batch, LossParts
from orchestra_strategy.algorithms.objective_bases import RowwiseObjective
from orchestra_strategy.algorithms.precision import in_fp32
from orchestra_strategy.errors import DataError

__all__ = ["ClassObjective", "ClassSettings", "class_loss"]


class ClassSettings(NamedTuple):
    """Hyper-parameters: there are none."""


@in_fp32
def class_loss(logits: Tensor, labels: Tensor) -> LossParts:
    """-mean_b log softmax(logits_b)[labels_b], with the accuracy as a part to be logged.

    Args:
        logits: One per class, shape (B, K).
        labels: The samples' classes, shape (B,), int64.

    >>> import torch
    >>> loss = class_loss(torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1]))
    >>> round(loss.total.item(), 4), loss.parts["accuracy"].item()  # log 2
    (0.6931, 0.5)
    """
    right = (logits.detach().argmax(dim=1) == labels).float().mean()
    return LossParts(F.cross_entropy(logits, labels), {"accuracy": right})


class ClassObjective(RowwiseObjective):
    """Cross entropy of the class; see :class:`SelfSupervisedObjective` for the arguments."""

    heads = ("classifier",)
    settings_class = ClassSettings

    def per_example(
        self, model: nn.Module, batch: Batch
    ) -> tuple[Callable[[nn.Module, Batch], LossParts], Batch]:
        """Draw a view; what is left is a pure function of it and of the labels.

        Args:
            model: The online network.
            batch: ``inputs`` (B, ...) and ``labels`` (B,).

        Returns:
            The loss, and the batch it takes: ``inputs`` (view 1) and ``labels``.

        Raises:
            DataError: The batch has no labels.
        """
        if "labels" not in batch:
            raise DataError(
                f"Expected `labels` for a supervised objective, got a batch of {sorted(batch)}; a "
                "strategy gets them with `needs_labels = True`."
            )
        x1, _, _, _ = self.draw(batch)

        def loss(model: nn.Module, prepared: Batch) -> LossParts:
            encoder, (head,) = parts_of(model, self.heads)
            return class_loss(head(encoder(prepared["inputs"])), prepared["labels"])

        return loss, {"inputs": x1, "labels": batch["labels"]}
