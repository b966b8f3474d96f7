"""The attacks of the package ``breaching``, on replies of self-supervised users.

J. Geiping's framework (https://github.com/JonasGeiping/breaching) attacks supervised users. What it
needs of a model is a loss as a function of images: here that is the loss as the server knows it,
with all views of a sample as the channels of one image, and the classes (rotations) read off the
gradient before. Its public functions are used as they are.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from orchestra_strategy.audit.answer import Answer
from orchestra_strategy.audit.attacks.gradient_matching import (
    LossAttack,
    classes_of,
    load_parameters,
)
from orchestra_strategy.audit.attacks.known_losses import KnownLoss
from orchestra_strategy.audit.attacks.search import Plan
from orchestra_strategy.audit.settings import AuditConfig
from orchestra_strategy.errors import ParameterError

__all__ = ["Breaching", "breaching_attack", "require_breaching"]

_SETUP = {"device": torch.device("cpu"), "dtype": torch.float32}
_ATTACK = "invertinggradients"


def require_breaching() -> Any:
    """Return the package.

    Raises:
        ParameterError: It is not installed.
    """
    try:
        import breaching  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise ParameterError(
            f"Expected the package `breaching` for attack 'breaching', got {error}; install it: "
            "pip install 'orchestra-strategy[audit]'."
        ) from error
    return breaching


class _LossOfImages(nn.Module):
    """A model whose output is the known loss of images (n, V * C, H, W) with fixed classes."""

    def __init__(
        self, model: nn.Module, loss: KnownLoss, classes: Tensor, shape: Sequence[int]
    ) -> None:
        super().__init__()
        self.model = model
        self.known = loss
        self.classes = classes
        self.shape = tuple(shape)

    def forward(self, images: Tensor) -> Tensor:
        """Return the mean loss, a scalar; of one step's images where there are several steps."""
        value: Tensor = self.known(
            self.model, images.reshape(-1, *self.shape), self.classes[: len(images)]
        )
        return value


class _Loss(nn.Module):
    """The loss is the model's output."""

    def forward(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the loss; labels have been used already."""
        return outputs


def breaching_attack(
    model: nn.Module,
    loss: KnownLoss,
    server_payload: Mapping[str, Any],
    shared_data: Mapping[str, Any],
    plan: Plan,
    shape: Sequence[int],
    steps: int,
    generator: torch.Generator,
) -> Tensor:
    """Recover images by ``breaching``'s attack ``invertinggradients``.

    Args:
        model: See ``attack`` of :mod:`~orchestra_strategy.audit.attacks.gradient_matching`, as for
            the other arguments.
        loss: What the server knows of the loss.
        server_payload: What the server sent.
        shared_data: What came back.
        plan: The training between the two; ``breaching`` simulates plain SGD.
        shape: Of what the loss looks at for one sample: (V, C, H, W).
        steps: Iterations of its optimizer.
        generator: Source of the seed for its first guess.

    Returns:
        Images (n, V, C, H, W) in [0, 1].

    Raises:
        ParameterError: ``breaching`` is not installed.
    """
    breaching = require_breaching()
    load_parameters(model, server_payload)
    classes = classes_of(model, loss, shared_data, plan, shape, generator)
    channels = math.prod(shape[:-2])
    seen = SimpleNamespace(
        shape=(channels, *shape[-2:]),
        modality="vision",
        mean=[0.0] * channels,
        std=[1.0] * channels,
        classes=int(classes.max()) + 1,
    )
    payload = {
        "parameters": list(server_payload["parameters"]),
        "buffers": list(model.buffers()),
        "metadata": seen,
    }
    shared = {
        "gradients": list(shared_data["gradients"]),
        "buffers": None,
        "metadata": {
            "num_data_points": len(classes),
            "labels": classes,
            "local_hyperparams": _hyperparams(plan, classes),
        },
    }
    # It draws from torch's global generator, which is put back afterwards.
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of hydra, which it calls without a version
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        settings = breaching.get_attack_config(_ATTACK)
        settings.optim.max_iterations = steps
        settings.optim.callback = steps  # it tells its progress so often
        settings.regularization = None  # its total variation is for three channels
        wrapped = _LossOfImages(model, loss, classes, shape).eval()
        attacker = breaching.attacks.prepare_attack(wrapped, _Loss(), settings, _SETUP)
        found, _ = attacker.reconstruct([payload], [shared], {})
    images: Tensor = found["data"].detach().reshape(len(classes), *shape)
    return images.clamp(0, 1)


def _hyperparams(plan: Plan, classes: Tensor) -> dict[str, Any] | None:
    if plan.shares == "gradient":
        return None
    labels = list(classes.chunk(plan.steps))
    size = len(labels[0])
    return {"lr": plan.lr, "steps": plan.steps, "data_per_step": size, "labels": labels}


class Breaching(LossAttack):
    """The attack of the package."""

    name = "breaching"
    sees = "the whole reply of a round, as `matching` does, by another search"
    limits = "It simulates plain steps, and searches images alone."

    def recover(
        self, config: AuditConfig, answer: Answer, shape: Sequence[int], generator: torch.Generator
    ) -> Tensor:
        """Search for all views."""
        known = (answer.model, answer.loss, answer.payload, answer.shared, answer.plan)
        return breaching_attack(*known, shape[1:], config.attack_steps, generator)
