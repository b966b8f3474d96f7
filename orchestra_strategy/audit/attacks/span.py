"""Samples from the span of a gradient: the attack that works on self-supervised losses too.

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

from orchestra_strategy.audit.answer import Answer
from orchestra_strategy.audit.attacks.domains import Domain, Pixels
from orchestra_strategy.audit.attacks.reply_attack import ReplyAttack
from orchestra_strategy.audit.settings import AuditConfig
from orchestra_strategy.errors import ModelError

__all__ = [
    "SpanAttack",
    "feature_layer",
    "misfit_of",
    "prepared",
    "row_space",
    "span_attack",
    "use_batch_statistics",
]

_STEP_SIZE = 0.05


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
    domain: Domain | None = None,
) -> Tensor:
    """Search for images whose features lie in the row space of a gradient.

    Args:
        model: The public model, with ``backbone``, whose copy takes the payload's parameters.
        server_payload: What the server sent.
        gradient: What came back, as a gradient: one tensor per parameter.
        count: How many images went through the layer: samples times views.
        shape: Of one image, (C, H, W), or of a table's row, (F,).
        steps: Length of the search.
        generator: Source of the first guesses.
        starts: First guesses, searched from side by side; at least ``count`` are taken.
        buffers: What came back with the gradient: see :func:`use_batch_statistics`.
        domain: What is known of samples; by default that they are images.

    Returns:
        Images (count, C, H, W) in [0, 1], or rows (count, F): the most different of those that fit
        best.

    Raises:
        ModelError: There is no linear layer after the backbone.
    """
    domain = Pixels() if domain is None else domain
    model = prepared(model, server_payload, buffers)
    names = [name for name, _ in model.named_parameters()]
    basis = row_space(gradient[names.index(feature_layer(model))], count)
    guesses = domain.start(max(starts, 2 * count), shape, generator).requires_grad_()
    optimizer = torch.optim.Adam([guesses], lr=_STEP_SIZE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        misfit, _ = misfit_of(model, domain.model_input(guesses), basis)
        value = (misfit + domain.unlikely(guesses)).sum()
        guesses.grad = torch.autograd.grad(value, [guesses])[0]
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            domain.keep(guesses)
    with torch.no_grad():
        misfit, inside = misfit_of(model, domain.model_input(guesses), basis)
    return domain.finish(guesses.detach()[_spread(misfit, inside, count)])


def prepared(
    model: nn.Module, server_payload: Mapping[str, Any], buffers: Sequence[Tensor] | None
) -> nn.Module:
    """Return a copy of a model with the payload's parameters, and the batches' own statistics."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for parameter, sent in zip(model.parameters(), server_payload["parameters"], strict=True):
            parameter.copy_(sent)
    model.train()
    if buffers:
        use_batch_statistics(model, buffers)
    return model


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


def misfit_of(model: Any, inputs: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Return the share of the features (B, d) outside of the span (B,), and the part inside.

    Args:
        model: With ``backbone``.
        inputs: On the model's scale, shape (B, ...).
        basis: See :func:`row_space`.
    """
    features = model.backbone(inputs)
    unit = features / features.norm(dim=1, keepdim=True).clamp_min(1e-8)
    inside = unit @ basis.T
    return 1 - inside.square().sum(1), inside


def _spread(misfit: Tensor, inside: Tensor, count: int) -> Tensor:
    """Return the rows of the best-fitting half that differ most: pivots of a QR decomposition."""
    best = misfit.argsort()[: max(count, len(misfit) // 2)]
    pivots = qr(inside[best].double().numpy().T, mode="r", pivoting=True)[1]
    order = best[torch.as_tensor(pivots.copy(), dtype=torch.int64)]
    return order[:count]


class SpanAttack(ReplyAttack):
    """The attack on a reply; it needs no knowledge of the loss."""

    name = "span"
    sees = (
        "the reply of a round: the gradient, or the change, of the first layer behind the "
        "network's body"
    )
    limits = (
        "It reads one layer, and as long as a batch has fewer views than the layer is wide "
        "(`hidden_dim`). With BatchNorm it knows the mean of the batches' statistics alone and "
        "mostly fails, which a stronger attack need not."
    )

    def views(self, answer: Answer) -> tuple[int, ...]:
        """Return the views that go through the trained network."""
        return answer.loss.online

    def recover(
        self, config: AuditConfig, answer: Answer, shape: Sequence[int], generator: torch.Generator
    ) -> Tensor:
        """Search for all views; ``shape`` is (n, V, ...)."""
        gradient = answer.plan.as_gradient(answer.shared["gradients"])
        count, steps = shape[0] * shape[1], config.attack_steps
        return span_attack(
            answer.model,
            answer.payload,
            gradient,
            count,
            shape[2:],
            steps,
            generator,
            buffers=answer.shared["buffers"],
            domain=answer.domain,
        )
