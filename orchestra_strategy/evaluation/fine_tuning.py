"""Supervised training of a whole network: the settings, the linear head and the loop."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchestra_strategy.algorithms.model_input import to_model_input
from orchestra_strategy.data.batches import round_batches
from orchestra_strategy.errors import ParameterError
from orchestra_strategy.global_randomness import drawing_from
from orchestra_strategy.rng import SeededStreams, torch_generator

__all__ = ["Augment", "FineTuning", "new_head", "train_network"]

Augment = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class FineTuning:
    """Settings of a fine-tuning.

    Attributes:
        epochs: Walks through the labelled rows.
        batch_size: Labelled rows per step, at least 2; the last two batches share what is left.
        optimizer: ``"sgd"`` or ``"adam"``.
        lr: Learning rate of the first epoch; cosine schedule to 0.
        momentum: Of SGD.
        weight_decay: Of either.
        augment: ``augment(batch as stored, generator) -> model input``, for example
            ``lambda x, g: views(x, g).x1``; None trains on the samples as they are.
        torch_threads: CPU threads of torch. The results depend on it in their last digits, and
            small networks on busy cores are many times as fast with one.

    Raises:
        ParameterError: A setting is out of its range.
    """

    epochs: int = 60
    batch_size: int = 64
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 0.0
    augment: Augment | None = None
    torch_threads: int = 1

    def __post_init__(self) -> None:
        """Refuse settings that cannot train."""
        for name in ("epochs", "torch_threads"):
            if getattr(self, name) < 1:
                raise ParameterError(
                    f"Expected `{name}` to be at least 1, got {getattr(self, name)}."
                )
        if self.batch_size < 2:
            raise ParameterError(
                f"Expected `batch_size` to be at least 2, since BatchNorm has no statistics of one "
                f"row, got {self.batch_size}."
            )
        if self.optimizer not in ("sgd", "adam"):
            raise ParameterError(
                f"Expected `optimizer` to be 'sgd' or 'adam', got {self.optimizer!r}."
            )
        if not 0 < self.lr < math.inf:
            raise ParameterError(f"Expected `lr` to be a finite number above 0, got {self.lr}.")
        if not 0 <= self.momentum < 1:
            raise ParameterError(f"Expected `momentum` to be in [0, 1), got {self.momentum}.")
        if not 0 <= self.weight_decay < math.inf:
            raise ParameterError(
                "Expected `weight_decay` to be a finite number of at least 0, got "
                f"{self.weight_decay}."
            )


def new_head(width: int, num_classes: int, seed: int) -> nn.Linear:
    """Return a linear layer drawn as torch draws it, but from a generator of its own."""
    head = nn.Linear(width, num_classes, device="meta").to_empty(device="cpu")
    generator, bound = torch_generator(seed, "fine-tuning", 0, "head"), width**-0.5
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
    return head


def train_network(
    network: nn.Module, samples: Tensor, targets: Tensor, settings: FineTuning, seed: int
) -> None:
    """Train on all of ``samples``; what is random inside the network comes from the seed too."""
    optimizer = _optimizer(network, settings)
    draws = torch_generator(seed, "fine-tuning", 0, "augment")
    device = next(network.parameters()).device
    order = list(
        round_batches(len(samples), settings.batch_size, settings.epochs, seed, "fine-tuning", 0)
    )
    network.train()
    with drawing_from(SeededStreams(seed), "fine-tuning", 0, "inside the network", device):
        for step, indices in enumerate(order):
            epoch = step * settings.epochs // len(order)
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * (1 + math.cos(math.pi * epoch / settings.epochs)) / 2
            batch = _as_input(samples, indices, settings.augment, draws).to(device)
            loss = F.cross_entropy(network(batch), targets[indices].to(device))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def _as_input(
    samples: Tensor,
    indices: npt.NDArray[np.int64],
    augment: Augment | None,
    generator: torch.Generator,
) -> Tensor:
    rows = samples[torch.from_numpy(indices)]
    return to_model_input(rows) if augment is None else augment(rows, generator)


def _optimizer(network: nn.Module, settings: FineTuning) -> torch.optim.Optimizer:
    parameters, decay = network.parameters(), settings.weight_decay
    if settings.optimizer == "adam":
        return torch.optim.Adam(parameters, settings.lr, weight_decay=decay)
    return torch.optim.SGD(parameters, settings.lr, settings.momentum, weight_decay=decay)
