"""Gradient matching: images whose gradient is the one received, found by descent.

J. Geiping, H. Bauermeister, H. Dröge, M. Moeller, "Inverting Gradients: How easy is it to break
privacy in federated learning?", NeurIPS 2020, https://arxiv.org/abs/2003.14053.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from orchestra_strategy.audit.attacks.known_losses import KnownLoss

__all__ = ["Plan", "reconstruct", "simulated_gradient"]

_RESTARTS = 8  # first guesses of a single step
_MAX_ORDERS = (
    24  # first guesses of several steps: orders of the classes, drawn where there are more
)
_STEP_SIZE = 0.1  # of pixels in [0, 1], the same for every pixel because Adam sees only signs
_TV_WEIGHT = 1e-3


@dataclass(frozen=True)
class Plan:
    """The training that the server asked for; it is the server's own setting, no secret.

    Attributes:
        shares: ``"gradient"``, or ``"update"`` for local minus server parameters.
        steps: Local steps per query; the samples are split evenly between them, in order.
        lr: Local learning rate; of no meaning for one gradient.
    """

    shares: str = "gradient"
    steps: int = 1
    lr: float = 1.0

    def as_gradient(self, shared: Sequence[Tensor]) -> list[Tensor]:
        """Return the mean gradient over the steps that the shared tensors stand for."""
        if self.shares == "gradient":
            return list(shared)
        return [-s / (self.lr * self.steps) for s in shared]


def reconstruct(
    model: nn.Module,
    loss: KnownLoss,
    gradient: Sequence[Tensor],
    classes: Tensor,
    plan: Plan,
    shape: Sequence[int],
    steps: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Search for images whose gradient has the direction of the one received.

    Several first guesses run for an eighth of the steps; the best of them by the objective, which
    the server can see, goes on. With several local steps each order of the classes is a guess,
    because it matters which sample came first: their factorial, so this is for a handful.

    Args:
        model: With the server's parameters.
        loss: See :func:`attack`, and there for what is returned.
        gradient: See :meth:`Plan.as_gradient`.
        classes: Assumed classes, shape (n,).
        plan: See :func:`attack`.
        shape: See :func:`attack`.
        steps: See :func:`attack`.
        generator: See :func:`attack`.
    """
    received = _flat(gradient)
    orders = _orders(classes, plan.steps, generator)
    if len(orders) == 1:
        orders = orders * _RESTARTS
    tried = []
    for guess in orders:
        start = torch.rand(len(classes), *shape, generator=generator)
        outcome = _search(model, loss, received, start, guess, plan, max(steps // 8, 1))
        tried.append((guess, *outcome))
    guess, images, _ = min(tried, key=lambda outcome: outcome[2])
    return guess, _search(model, loss, received, images, guess, plan, steps)[0]


def _orders(classes: Tensor, steps: int, generator: torch.Generator) -> list[Tensor]:
    """Return the orders that differ in which classes a step has; at most so many, drawn."""
    if steps == 1:
        return [classes]
    found = {
        tuple(i for chunk in torch.tensor(order).chunk(steps) for i in sorted(chunk.tolist()))
        for order in set(permutations(classes.tolist()))
    }
    orders = [torch.tensor(order) for order in sorted(found)]
    drawn = torch.randperm(len(orders), generator=generator)[:_MAX_ORDERS]
    return [orders[i] for i in sorted(drawn.tolist())]


def _search(
    model: nn.Module,
    loss: KnownLoss,
    received: Tensor,
    start: Tensor,
    classes: Tensor,
    plan: Plan,
    steps: int,
) -> tuple[Tensor, float]:
    """Return images and the last objective: 1 - cosine similarity + total variation.

    Adam on the gradient's sign, the step cut on the way, as Geiping et al.; pixels stay in [0, 1].
    """
    images = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([images], lr=_STEP_SIZE)
    milestones = [int(steps * part) for part in (3 / 8, 5 / 8, 7 / 8)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.1)
    value = torch.tensor(0.0)
    for _ in range(steps):
        own = _flat(simulated_gradient(model, loss, images, classes, plan))
        value = 1 - F.cosine_similarity(own, received, dim=0) + _TV_WEIGHT * _variation(images)
        images.grad = torch.autograd.grad(value, [images])[0].sign()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            images.clamp_(0, 1)
    return images.detach(), value.item()


class _Step(nn.Module):
    """The loss as a module, so that it can be run with other parameters than the model's own."""

    def __init__(self, model: nn.Module, loss: KnownLoss) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, images: Tensor, classes: Tensor) -> Tensor:
        return self.loss(self.model, images, classes)


def simulated_gradient(
    model: nn.Module, loss: KnownLoss, images: Tensor, classes: Tensor, plan: Plan
) -> list[Tensor]:
    """Run the plan's SGD steps on images (n, ...), differentiably; no parameter is changed.

    Returns the mean gradient over the steps, a tensor per parameter (zeros where the loss does not
    use it): see :meth:`Plan.as_gradient`.
    """
    step_of = _Step(model, loss)
    start = {f"model.{name}": p for name, p in model.named_parameters()}
    now: dict[str, Tensor] = dict(start)
    for batch, truth in zip(images.chunk(plan.steps), classes.chunk(plan.steps), strict=True):
        value = torch.func.functional_call(step_of, now, (batch, truth))
        step = torch.autograd.grad(value, list(now.values()), create_graph=True, allow_unused=True)
        now = {
            name: p if g is None else p - plan.lr * g
            for (name, p), g in zip(now.items(), step, strict=True)
        }
    return [(start[name] - now[name]) / (plan.lr * plan.steps) for name in start]


def _variation(images: Tensor) -> Tensor:
    """Return the mean absolute difference between neighbouring pixels."""
    return images.diff(dim=-1).abs().mean() + images.diff(dim=-2).abs().mean()


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.flatten() for t in tensors])
