"""Images from the span of a gradient: the attack that works on self-supervised losses too.

For a linear layer the gradient of the weight is a sum of outer products: sum_i d_i f_i^T, f_i the
layer's input for image i and d_i whatever the loss sends back. So, as long as the batch is smaller
than the layer, the features of every image that went through lie in the row space of the gradient,
and few other features do: whatever the loss is, whatever its labels, targets and random views. The
search is for images whose features lie in that space.

Sources: the gradient of a linear layer as outer products of its inputs, L. T. Phong et al.,
"Privacy-Preserving Deep Learning via Additively Homomorphic Encryption", IEEE TIFS 2018; membership
in the span as a test of a guess, I. Petrov et al., "DAGER: Exact Gradient Inversion for Large
Language Models", NeurIPS 2024, https://arxiv.org/abs/2405.15586. Continuous images are found here
by gradient descent on the distance from the span, with total variation as the only prior.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from scipy.linalg import qr
from torch import Tensor, nn

from orchestra_strategy.errors import ModelError

__all__ = ["feature_layer", "row_space", "span_attack", "use_batch_statistics"]

_STEP_SIZE = 0.05
_TV_WEIGHT = 0.005
_BEYOND = 0.2  # views are noisy: pixels may leave [0, 1] by so much


def feature_layer(model: nn.Module) -> str:
    """Return the name of the first linear layer after ``model.backbone``: its weight is read.

    Raises:
        ModelError: There is none.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and not name.startswith("backbone."):
            return f"{name}.weight"
    raise ModelError(
        f"Expected `model` to have a linear layer after its `backbone`, got {type(model).__name__} "
        "without one; use another attack."
    )


def row_space(gradient: Tensor, rank: int) -> Tensor:
    """Return an orthonormal basis (r, d) of the strongest ``rank`` directions of the rows.

    Args:
        gradient: Of a linear layer's weight, shape (outputs, d).
        rank: How many features are behind it, at most; directions of rounding errors are left out.

    >>> row_space(torch.tensor([[0.0, 2.0], [0.0, 4.0]]), 2).abs()
    tensor([[0., 1.]])
    """
    _, strength, directions = torch.linalg.svd(gradient, full_matrices=False)
    real = int((strength > 1e-5 * strength[0]).sum())
    basis: Tensor = directions[: min(rank, real)]
    return basis


def span_attack(
    model: nn.Module,
    server_payload: Mapping[str, Any],
    gradient: Sequence[Tensor],
    count: int,
    shape: Sequence[int],
    steps: int,
    generator: torch.Generator,
    starts: int = 32,
    buffers: Sequence[Tensor] | None = None,
) -> Tensor:
    """Search for images whose features lie in the row space of a gradient.

    Args:
        model: The public model, with ``backbone``, whose copy takes the payload's parameters.
        server_payload: What the server sent.
        gradient: What came back, as a gradient: one tensor per parameter.
        count: How many images went through the layer: samples times views.
        shape: Of one image, (C, H, W).
        steps: Length of the search.
        generator: Source of the first guesses.
        starts: First guesses, searched from side by side; at least ``count`` are taken.
        buffers: What came back with the gradient: see :func:`use_batch_statistics`.

    Returns:
        Images (count, C, H, W) in [0, 1], the most different of those that fit best.

    Raises:
        ModelError: There is no linear layer after the backbone.
    """
    model = copy.deepcopy(model)
    with torch.no_grad():
        for parameter, sent in zip(model.parameters(), server_payload["parameters"], strict=True):
            parameter.copy_(sent)
    model.train()
    if buffers:
        use_batch_statistics(model, buffers)
    names = [name for name, _ in model.named_parameters()]
    basis = row_space(gradient[names.index(feature_layer(model))], count)
    images = torch.rand(max(starts, 2 * count), *shape, generator=generator).requires_grad_()
    optimizer = torch.optim.Adam([images], lr=_STEP_SIZE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        misfit, _ = _misfit(model, images, basis)
        value = (misfit + _TV_WEIGHT * _variation(images)).sum()
        images.grad = torch.autograd.grad(value, [images])[0]
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            images.clamp_(-_BEYOND, 1 + _BEYOND)
    with torch.no_grad():
        misfit, inside = _misfit(model, images, basis)
    return images.detach()[_spread(misfit, inside, count)].clamp(0, 1)


@torch.no_grad()
def use_batch_statistics(model: nn.Module, after: Sequence[Tensor]) -> None:
    """Let BatchNorm normalise by what the party's batches had, as its running statistics tell.

    A running statistic moves by r <- (1 - m) r + m b for a batch's own b. From r before and after
    k batches follows the mean of their b, weighted towards the last; this is what the user's
    features were normalised by, whatever batch a guess is in.

    Args:
        model: With the buffers that the server sent.
        after: The buffers that came back, in the order of ``model.buffers()``.
    """
    received = dict(zip((name for name, _ in model.named_buffers()), after, strict=True))
    for name, module in model.named_modules():
        if not isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            continue
        assert module.num_batches_tracked is not None
        batches = int(received[f"{name}.num_batches_tracked"] - module.num_batches_tracked)
        kept = (1 - (module.momentum or 0.1)) ** batches
        for statistic in ("running_mean", "running_var"):
            before, then = getattr(module, statistic), received[f"{name}.{statistic}"]
            if batches:
                before.copy_((then - kept * before) / (1 - kept))
        module.running_var.clamp_(min=0)  # type: ignore[union-attr]
        module.eval()


def _misfit(model: Any, images: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Return the share of the features (B, d) outside of the span (B,), and the part inside."""
    features = model.backbone(images * 2 - 1)
    unit = features / features.norm(dim=1, keepdim=True).clamp_min(1e-8)
    inside = unit @ basis.T
    return 1 - inside.square().sum(1), inside


def _spread(misfit: Tensor, inside: Tensor, count: int) -> Tensor:
    """Return the rows of the best-fitting half that differ most: pivots of a QR decomposition."""
    best = misfit.argsort()[: max(count, len(misfit) // 2)]
    pivots = qr(inside[best].double().numpy().T, mode="r", pivoting=True)[1]
    order = best[torch.as_tensor(pivots.copy(), dtype=torch.int64)]
    return order[:count]


def _variation(images: Tensor) -> Tensor:
    """Return each image's mean absolute difference between neighbouring pixels, shape (B,)."""
    return sum(
        (images.diff(dim=d).abs().flatten(1).mean(1) for d in (-1, -2)), torch.zeros(len(images))
    )
