"""Per-example clipping by a plain loop: the reference, and the way for models that vmap cannot do.

M. Abadi et al., "Deep Learning with Differential Privacy", CCS 2016,
https://arxiv.org/abs/1607.00133, algorithm 1: each example's gradient g_i, over all parameters
together, becomes g_i * min(1, C / |g_i|), and the batch's gradient is their mean. An example whose
loss or gradient is not finite counts as zero: no factor could bound it, and an error would tell of
it.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from orchestra_strategy.algorithms.objective import Batch, LossParts, Objective, as_loss_parts
from orchestra_strategy.errors import DataError, ModelError

__all__ = [
    "ClippedMean",
    "batch_size",
    "clip_factors",
    "clipped_mean_by_loop",
    "loss_gradients",
    "mean_loss",
    "refuse_batch_statistics",
    "scalar_loss",
]


class ClippedMean(NamedTuple):
    """The outcome of one clipped step.

    Attributes:
        gradients: Mean of the clipped per-example gradients, one tensor per parameter in the order
            of ``model.parameters()``; zeros for a parameter that is frozen or unused.
        loss: Mean over the examples of the loss and of its parts, detached.
    """

    gradients: list[Tensor]
    loss: LossParts


def clip_factors(norms: Tensor, clip_norm: float) -> Tensor:
    """Return min(1, C / norm), shape (B,), by which each example's gradient is multiplied.

    Args:
        norms: L2 norm of each example's gradient over all parameters, shape (B,).
        clip_norm: C > 0.

    Returns:
        The factors; 0 where the norm is not finite. Such a gradient must be left out of the sum:
        0 times infinity is no zero.

    >>> clip_factors(torch.tensor([0.0, 1.0, 4.0, float("nan")]), 2.0)
    tensor([1.0000, 1.0000, 0.5000, 0.0000])
    """
    # A zero gradient has the factor C / 0 = inf, which the bound of 1 takes care of.
    factors = torch.clamp(clip_norm / norms, max=1.0)
    return torch.where(torch.isfinite(norms), factors, 0.0)


def scalar_loss(objective: Objective, model: nn.Module, batch: Batch) -> LossParts:
    """Call an objective and check that its loss can be differentiated.

    Raises:
        ParameterError: The loss is no scalar, or its parts are none.
    """
    return as_loss_parts(objective(model, batch))


def batch_size(batch: Batch) -> int:
    """Return the number of rows B of a batch.

    Raises:
        DataError: The batch is empty, or its tensors have different numbers of rows.
    """
    rows = {name: len(tensor) for name, tensor in batch.items()}
    if len(set(rows.values())) != 1 or 0 in rows.values():
        raise DataError(
            f"Expected all tensors of a batch to have the same B >= 1 rows, got {rows}."
        )
    return next(iter(rows.values()))


def refuse_batch_statistics(model: nn.Module) -> None:
    """Refuse BatchNorm that would normalise by the batch.

    A single example has no batch to be normalised by, and in a batch every example's gradient would
    depend on all the others, which clipping cannot bound.

    Raises:
        ModelError: Naming the layer and the two remedies.
    """
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
            raise ModelError(
                "Expected a model without batch statistics for `per_example_clipping`, got "
                f"{type(module).__name__} at `{name}` that normalises by the batch. Use GroupNorm, "
                "or let the server send buffers, so that the model runs in eval mode with the "
                "server's running statistics."
            )


def clipped_mean_by_loop(
    objective: Objective, model: nn.Module, batch: Batch, clip_norm: float
) -> ClippedMean:
    """Clip example by example, each in a batch of its own.

    Args:
        objective: What is differentiated, on batches of one row.
        model: Called as it is, in train or eval mode.
        batch: Tensors of B rows.
        clip_norm: C > 0.
    """
    rows = batch_size(batch)
    parameters = list(model.parameters())
    total = [torch.zeros_like(p) for p in parameters]
    losses = []
    for row in range(rows):
        example = {name: tensor[row : row + 1] for name, tensor in batch.items()}
        loss = scalar_loss(objective, model, example)
        gradient = loss_gradients(loss.total, parameters)
        losses.append(loss)
        norm = torch.stack([torch.linalg.vector_norm(g) for g in gradient if g is not None]).norm()
        if not (torch.isfinite(norm) and torch.isfinite(loss.total)):
            continue
        factor = clip_factors(norm, clip_norm)
        for summed, g in zip(total, gradient, strict=True):
            if g is not None:
                summed.add_(g * factor)
    return ClippedMean([t / rows for t in total], mean_loss(losses))


def mean_loss(losses: Sequence[LossParts]) -> LossParts:
    """Average losses and their parts, detached."""
    names = losses[0].parts
    parts: Mapping[str, Tensor] = {
        name: torch.stack([loss.parts[name].detach() for loss in losses]).mean() for name in names
    }
    return LossParts(torch.stack([loss.total.detach() for loss in losses]).mean(), parts)


def loss_gradients(loss: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor | None]:
    """Return the gradient by parameter; None where one is frozen or the loss does not use it."""
    trained = [p for p in parameters if p.requires_grad]
    found = iter(torch.autograd.grad(loss, trained, allow_unused=True))
    return [next(found) if p.requires_grad else None for p in parameters]
