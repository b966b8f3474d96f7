"""Objectives: functions of a model and a batch that return a loss.

The objective is the first of the package's four independent choices (objective, user type, privacy,
centroid route). Users call it without knowing which one it is.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

__all__ = ["Batch", "LossParts", "Objective", "as_loss_parts", "l2_penalty"]

Batch = Mapping[str, Tensor]
"""Named tensors of one batch, all with B rows: ``inputs`` (or ``input_ids``), perhaps ``labels``,
and, where an objective needs them, ``ids`` (B,) int64: the samples' positions in the party's data.
"""


class LossParts(NamedTuple):
    """A loss with its parts, so that training and logging share one computation.

    Attributes:
        total: Scalar, what ``backward`` is called on.
        parts: Scalars by name, for the log; detached by whoever logs them.
    """

    total: Tensor
    parts: Mapping[str, Tensor]


class Objective(Protocol):
    """A callable ``f(model, batch)``; supervised cross entropy is one, Orchestra another."""

    def __call__(self, model: nn.Module, batch: Batch) -> LossParts | Tensor:
        """Return the loss of ``model`` on ``batch``, a scalar or its parts."""
        ...


def as_loss_parts(loss: LossParts | Tensor) -> LossParts:
    """Give a bare scalar the form of :class:`LossParts`.

    >>> as_loss_parts(torch.tensor(2.0)).parts
    {}
    """
    return loss if isinstance(loss, LossParts) else LossParts(torch.as_tensor(loss), {})


def l2_penalty(model: nn.Module) -> Tensor:
    """Return the sum of squares of all trainable parameters, a scalar with a gradient.

    >>> _ = nn.init.constant_((layer := nn.Linear(3, 1, bias=False)).weight, 2.0)
    >>> l2_penalty(layer).item()
    12.0
    """
    squares = [p.square().sum() for p in model.parameters() if p.requires_grad]
    return torch.stack(squares).sum()
