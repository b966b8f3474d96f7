"""Objectives: functions of a model and a batch that return a loss.

The objective is the first of the package's four independent choices (objective, user type, privacy,
centroid route). Users call it without knowing which one it is.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from orchestra_strategy.errors import ParameterError

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

    >>> loss = LossParts(torch.tensor(2.0), {"pull": torch.tensor(2.0)}) + torch.tensor(0.5)
    >>> loss.total, loss.parts
    (tensor(2.5000), {'pull': tensor(2.)})
    """

    total: Tensor
    parts: Mapping[str, Tensor]

    def __add__(self, term: Any) -> "LossParts":
        """Add a term to the total; it is trained on, and not logged as a part.

        Raises:
            ParameterError: It is no tensor or number.
        """
        if not isinstance(term, Tensor | float | int):
            raise ParameterError(
                f"Expected a term to be added to a loss to be a scalar tensor, got "
                f"{type(term).__name__}; join two losses by their `total` and `parts`."
            )
        return LossParts(self.total + term, self.parts)

    def __radd__(self, term: Any) -> "LossParts":
        return LossParts.__add__(self, term)


class Objective(Protocol):
    """A callable ``f(model, batch)``; supervised cross entropy is one, Orchestra another."""

    def __call__(self, model: nn.Module, batch: Batch) -> LossParts | Tensor:
        """Return the loss of ``model`` on ``batch``, a scalar or its parts."""
        ...


_TAKEN = ("loss", "total")


def as_loss_parts(loss: LossParts | Tensor) -> LossParts:
    """Give what an objective returns the form of :class:`LossParts`, or refuse it.

    Raises:
        ParameterError: It is no scalar tensor with scalar parts.

    >>> as_loss_parts(torch.tensor(2.0)).parts
    {}
    """
    if isinstance(loss, Tensor):
        loss = LossParts(loss, {})
    if not isinstance(loss, LossParts):
        raise ParameterError(
            "Expected an objective to return a scalar tensor, or `LossParts(total, parts)`, got "
            f"{type(loss).__name__}{'; its `return` is missing' if loss is None else ''}."
        )
    if not isinstance(loss.total, Tensor) or loss.total.ndim:
        raise ParameterError(
            f"Expected the loss to be a scalar, got {_described(loss.total)}; reduce it by the "
            "mean over the batch."
        )
    for name, part in loss.parts.items():
        if not isinstance(name, str) or name in _TAKEN:
            raise ParameterError(
                f"Expected the parts of a loss to have names other than {_TAKEN}, which stand for "
                f"the whole, got {name!r}."
            )
        if not isinstance(part, Tensor) or part.ndim:
            raise ParameterError(
                f"Expected the part `{name}` of a loss to be a scalar tensor, got "
                f"{_described(part)}; what leaves a party of a batch is one mean."
            )
    return loss


def _described(value: Any) -> str:
    is_tensor = isinstance(value, Tensor)
    return f"shape {tuple(value.shape)}" if is_tensor else type(value).__name__


def l2_penalty(model: nn.Module) -> Tensor:
    """Return the sum of squares of all trainable parameters, a scalar with a gradient.

    >>> _ = nn.init.constant_((layer := nn.Linear(3, 1, bias=False)).weight, 2.0)
    >>> l2_penalty(layer).item()
    12.0
    """
    squares = [p.square().sum() for p in model.parameters() if p.requires_grad]
    return torch.stack(squares).sum()
