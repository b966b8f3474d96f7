"""What a curious server can try: labels from a gradient, and images from a gradient.

The server is honest but curious: it keeps to the protocol and sends ordinary parameters. All that
these functions get is what it has anyway: the model, the payload it sent, the ``shared_data`` it
received, and the training plan it set itself.

Sources:
    Labels: B. Zhao, K. R. Mopuri, H. Bilen, "iDLG: Improved Deep Leakage from Gradients", 2020,
    https://arxiv.org/abs/2001.02610 (one sample); A. Wainakh et al., "User-Level Label Leakage from
    Gradients in Federated Learning", PoPETs 2022, https://arxiv.org/abs/2105.09369 (batches).
    Images: J. Geiping, H. Bauermeister, H. Dröge, M. Moeller, "Inverting Gradients: How easy is it
    to break privacy in federated learning?", NeurIPS 2020, https://arxiv.org/abs/2003.14053.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from orchestra_strategy.errors import ParameterError

__all__ = ["Plan", "attack", "reconstruct", "recover_labels", "simulated_gradient"]

IMAGE_SHAPE = (1, 8, 8)
_RESTARTS = 8  # first guesses of a single step; several steps have one per order of the labels
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


def attack(
    model: nn.Module,
    server_payload: Mapping[str, Any],
    shared_data: Mapping[str, Any],
    plan: Plan,
    steps: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Recover labels and images of one reply. An aggregate is attacked as if it were one user.

    Args:
        model: The public model; its parameters become the payload's.
        server_payload: What the server sent.
        shared_data: What came back; ``num_data_points`` must be told.
        plan: The training between the two.
        steps: Length of the search for images.
        generator: Source of the first guesses.

    Returns:
        Labels (n,) and images (n, 1, 8, 8), in the order of the attack's best guess.

    Raises:
        ParameterError: The number of samples is not told.
    """
    count = shared_data["metadata"]["num_data_points"]
    if count is None:
        raise ParameterError("Expected `num_data_points` to be told, got None; see its flag.")
    with torch.no_grad():
        for parameter, sent in zip(model.parameters(), server_payload["parameters"], strict=True):
            parameter.copy_(sent)
        # The true images are not known, but an untrained model says much the same of any image.
        guesses = torch.rand(256, *IMAGE_SHAPE, generator=generator)
        expected = model(guesses).softmax(1).mean(0)
    gradient = plan.as_gradient(shared_data["gradients"])
    labels = recover_labels(gradient[-1], expected, count)
    return reconstruct(model, gradient, labels, plan, steps, generator)


def recover_labels(bias_gradient: Tensor, expected: Tensor, count: int) -> Tensor:
    """Read the labels off the gradient of the last layer's bias.

    For cross entropy that gradient is mean(softmax) - frequency of the labels, so with ``expected``
    for the mean softmax, ``count * (expected - bias_gradient)`` is how often each label occurs.
    For one sample this is iDLG's rule: the label is where the gradient is negative.

    Args:
        bias_gradient: Shape (classes,).
        expected: Assumed mean softmax, shape (classes,).
        count: Number of samples.

    Returns:
        Sorted labels, shape (count,).

    >>> one_of_each = torch.tensor([0.25, -0.25, -0.25, 0.25])
    >>> recover_labels(one_of_each, torch.full((4,), 0.25), 2)
    tensor([1, 2])
    """
    left = count * (expected - bias_gradient)
    found: list[int] = []
    for _ in range(count):  # one label at a time, so that the counts are whole and sum up
        found.append(int(left.argmax()))
        left = left - F.one_hot(torch.tensor(found[-1]), len(left))
    return torch.tensor(sorted(found))


def reconstruct(
    model: nn.Module,
    gradient: Sequence[Tensor],
    labels: Tensor,
    plan: Plan,
    steps: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Search for images whose gradient has the direction of the one received.

    Several first guesses run for an eighth of the steps; the best of them by the objective, which
    the server can see, goes on. With several local steps each order of the labels is a guess,
    because it matters which sample came first: their factorial, so this is for a handful.

    Args:
        model: With the server's parameters.
        gradient: See :meth:`Plan.as_gradient`.
        labels: Assumed labels, shape (n,).
        plan: See :func:`attack`, and there for what is returned.
        steps: See :func:`attack`.
        generator: See :func:`attack`.
    """
    received = _flat(gradient)
    orders = [tuple(labels.tolist())] * _RESTARTS
    if plan.steps > 1:
        orders = sorted(set(permutations(labels.tolist())))
    tried = []
    for order in orders:
        start = torch.rand(len(labels), *IMAGE_SHAPE, generator=generator)
        guess = torch.tensor(order)
        tried.append((guess, *_search(model, received, start, guess, plan, max(steps // 8, 1))))
    guess, images, _ = min(tried, key=lambda outcome: outcome[2])
    return guess, _search(model, received, images, guess, plan, steps)[0]


def _search(
    model: nn.Module, received: Tensor, start: Tensor, labels: Tensor, plan: Plan, steps: int
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
        own = _flat(simulated_gradient(model, images, labels, plan))
        value = 1 - F.cosine_similarity(own, received, dim=0) + _TV_WEIGHT * _variation(images)
        images.grad = torch.autograd.grad(value, [images])[0].sign()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            images.clamp_(0, 1)
    return images.detach(), value.item()


def simulated_gradient(
    model: nn.Module, images: Tensor, labels: Tensor, plan: Plan
) -> list[Tensor]:
    """Run the plan's SGD steps on images (n, 1, 8, 8), differentiably; nothing is changed.

    Returns the mean gradient over the steps, a tensor per parameter: see :meth:`Plan.as_gradient`.
    """
    start: dict[str, Tensor] = dict(model.named_parameters())
    now = start
    for batch, truth in zip(images.chunk(plan.steps), labels.chunk(plan.steps), strict=True):
        loss = F.cross_entropy(torch.func.functional_call(model, now, (batch,)), truth)
        step = torch.autograd.grad(loss, list(now.values()), create_graph=True)
        now = {name: p - plan.lr * g for (name, p), g in zip(now.items(), step, strict=True)}
    return [(start[name] - now[name]) / (plan.lr * plan.steps) for name in start]


def _variation(images: Tensor) -> Tensor:
    """Return the mean absolute difference between neighbouring pixels."""
    return images.diff(dim=-1).abs().mean() + images.diff(dim=-2).abs().mean()


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.flatten() for t in tensors])
