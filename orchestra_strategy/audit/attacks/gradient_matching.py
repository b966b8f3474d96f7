"""Gradient matching: labels read off a gradient, and images searched with it.

The server is honest but curious: it keeps to the protocol and sends ordinary parameters. All that
these functions get is what it has anyway: the model, the payload it sent, the ``shared_data`` it
received, the training plan it set itself, and the loss as far as it knows it (see
:mod:`orchestra_strategy.audit.attacks.known_losses`).

Sources: B. Zhao, K. R. Mopuri, H. Bilen, "iDLG: Improved Deep Leakage from Gradients", 2020,
https://arxiv.org/abs/2001.02610 (one label); A. Wainakh et al., "User-Level Label Leakage from
Gradients in Federated Learning", PoPETs 2022, https://arxiv.org/abs/2105.09369 (labels of batches).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from orchestra_strategy.audit.answer import Answer
from orchestra_strategy.audit.attacks.known_losses import KnownLoss, ViewsAlone
from orchestra_strategy.audit.attacks.reply_attack import ReplyAttack
from orchestra_strategy.audit.attacks.scene import Scene
from orchestra_strategy.audit.attacks.search import Plan, reconstruct
from orchestra_strategy.audit.settings import AuditConfig
from orchestra_strategy.errors import ParameterError

__all__ = [
    "GradientMatching",
    "LossAttack",
    "attack",
    "classes_of",
    "load_parameters",
    "recover_labels",
]


def attack(
    model: nn.Module,
    loss: KnownLoss,
    server_payload: Mapping[str, Any],
    shared_data: Mapping[str, Any],
    plan: Plan,
    shape: Sequence[int],
    steps: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Recover classes and images of one reply. An aggregate is attacked as if it were one user.

    Args:
        model: The public model; its parameters become the payload's.
        loss: What the server knows of the loss.
        server_payload: What the server sent.
        shared_data: What came back; ``num_data_points`` must be told.
        plan: The training between the two.
        shape: Of what the loss looks at for one sample: (1, 8, 8), or with views (V, 1, 8, 8).
        steps: Length of the search for images.
        generator: Source of the first guesses.

    Returns:
        Classes (n,), zeros where the loss has none, and images (n, ...) in [0, 1], in the order of
        the attack's best guess.

    Raises:
        ParameterError: The number of samples is not told.
    """
    load_parameters(model, server_payload)
    classes = classes_of(model, loss, shared_data, plan, shape, generator)
    gradient = plan.as_gradient(shared_data["gradients"])
    return reconstruct(model, loss, gradient, classes, plan, shape, steps, generator)


@torch.no_grad()
def load_parameters(model: nn.Module, server_payload: Mapping[str, Any]) -> None:
    """Give a model the parameters that the server sent."""
    for parameter, sent in zip(model.parameters(), server_payload["parameters"], strict=True):
        parameter.copy_(sent)


def classes_of(
    model: nn.Module,
    loss: KnownLoss,
    shared_data: Mapping[str, Any],
    plan: Plan,
    shape: Sequence[int],
    generator: torch.Generator,
) -> Tensor:
    """Return the classes (n,) behind a reply, zeros where the loss has none.

    Args:
        model: With the server's parameters.
        loss: See :func:`attack`, as for the other arguments.
        shared_data: What came back.
        plan: The training.
        shape: Of what the loss looks at for one sample.
        generator: Source of guessed images, of which the classes' logits are taken.

    Raises:
        ParameterError: The number of samples is not told.
    """
    count = shared_data["metadata"]["num_data_points"]
    if count is None:
        raise ParameterError("Expected `num_data_points` to be told, got None; see its flag.")
    if loss.class_bias is None:
        return torch.zeros(count, dtype=torch.int64)
    with torch.no_grad():
        # The true images are not known, but an untrained model says much the same of any image.
        guesses = torch.rand(256, *shape, generator=generator)
        expected = loss.logits(model, guesses).softmax(1).mean(0)
    names = [name for name, _ in model.named_parameters()]
    bias = plan.as_gradient(shared_data["gradients"])[names.index(loss.class_bias)]
    return recover_labels(bias / loss.class_weight, expected, count)


def recover_labels(bias_gradient: Tensor, expected: Tensor, count: int) -> Tensor:
    """Read the labels off the gradient of the last layer's bias.

    For cross entropy that gradient is mean(softmax) - frequency of the labels, so with ``expected``
    for the mean softmax, ``count * (expected - bias_gradient)`` is how often each label occurs.
    For one sample this is iDLG's rule: the label is where the gradient is negative. The rotations
    of a pretext task are labels in this sense.

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


class LossAttack(ReplyAttack):
    """An attack that needs the loss, and images."""

    def reason_against(self, scene: Scene) -> str | None:
        """Refuse tables, and losses that are somebody's own."""
        if scene.split.members.ndim == 2:
            return "it searches images"
        if any(isinstance(answer.loss, ViewsAlone) for answer in scene.answers):
            return "the audit does not know the loss of this objective"
        return None


class GradientMatching(LossAttack):
    """Search images with the gradient received, by the loss as far as the server knows it."""

    name = "matching"
    sees = "the whole reply of a round, compared with what guessed images would have given"
    limits = "It works for a handful of images and small networks; a longer search may find more."

    def recover(
        self, config: AuditConfig, answer: Answer, shape: Sequence[int], generator: torch.Generator
    ) -> Tensor:
        """Search for all views."""
        known = (answer.model, answer.loss, answer.payload, answer.shared, answer.plan)
        return attack(*known, shape[1:], config.attack_steps, generator)[1]
