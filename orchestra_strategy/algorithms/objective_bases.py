"""The bases of self-supervised objectives: views, heads, target networks.

An objective of this family draws views of a batch, runs the model on those that its loss compares,
and keeps nothing of the batch but what its method keeps. Losses are pure functions in the method's
own file.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchestra_strategy.algorithms.ema import ema_update, follow, frozen_copy
from orchestra_strategy.algorithms.model import parts_of
from orchestra_strategy.algorithms.objective import Batch, LossParts
from orchestra_strategy.algorithms.precision import in_fp32
from orchestra_strategy.errors import DataError

__all__ = [
    "RowwiseObjective",
    "SelfSupervisedObjective",
    "TargetObjective",
    "ThreeViews",
    "require_other_rows",
    "two_projections",
]

ThreeViews = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor, Tensor, Tensor]]
"""x (B, ...) -> (x1, x2, x3, a): two views, a transformed view, and which transformation (B,)."""


class SelfSupervisedObjective:
    """An objective on views of a batch.

    Args:
        model: A model with the parts that are needed; it is not kept.
        views: Draws the views.
        settings: Hyper-parameters, a named tuple of the method's file.
        generator: Source of the views' randomness; replaced every round by the owner.

    Raises:
        ModelError: The model lacks a part.
    """

    heads: ClassVar[tuple[str, ...]] = ()
    """Heads that the model must have, by name; it may have others."""

    settings_class: ClassVar[Any]
    """The named tuple of hyper-parameters; its fields are parameters of the strategy."""

    def __init__(
        self, model: nn.Module, views: ThreeViews, settings: Any, generator: torch.Generator
    ) -> None:
        parts_of(model, self.heads)
        self.views = views
        self.settings = settings
        self.generator = generator

    def __call__(self, model: nn.Module, batch: Batch) -> LossParts:
        """Return the loss of one local step.

        Args:
            model: The online network.
            batch: ``inputs`` (B, ...) and, where a method keeps samples apart, ``ids`` (B,).
        """
        raise NotImplementedError(f"{type(self).__name__} must define `__call__`.")

    @in_fp32
    def draw(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw the views of a batch: x1, x2, x3 and the transformation of x3."""
        return self.views(batch["inputs"], self.generator)

    def state_dict(self) -> dict[str, Any]:
        """Return all that must survive at the party; by default there is nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the state of :meth:`state_dict`."""


class RowwiseObjective(SelfSupervisedObjective):
    """An objective whose loss is a mean over rows that do not act on each other.

    It splits a step in two, for per-example clipping: what happens once for the batch, and a pure
    function of the outcome. Contrastive losses cannot be split: a row's loss depends on the others.
    """

    def __call__(self, model: nn.Module, batch: Batch) -> LossParts:
        """Return the loss of one local step; a target network or a memory moves on."""
        loss, prepared = self.per_example(model, batch)
        return loss(model, prepared)

    def per_example(
        self, model: nn.Module, batch: Batch
    ) -> tuple[Callable[[nn.Module, Batch], LossParts], Batch]:
        """Draw views and move the state on, once; return the loss that is left, and its batch.

        Args:
            model: The online network.
            batch: ``inputs`` (B, ...) and, where a method keeps samples apart, ``ids`` (B,).

        Returns:
            A pure function of (model, prepared batch), and the prepared batch of B rows.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `per_example`.")


class TargetObjective(RowwiseObjective):
    """An objective with a target network, which stays at the party.

    Within a round the target follows the party's own encoder, step by step. Between rounds
    :meth:`settle` lets it follow the averaged one instead, so that the targets of all parties stay
    near each other. The published code has the server average the targets for that; here no target
    leaves its party.

    Attributes:
        target: Moving average of the encoder.
        moves: How often it has moved since it was last settled.
    """

    def __init__(
        self, model: nn.Module, views: ThreeViews, settings: Any, generator: torch.Generator
    ) -> None:
        super().__init__(model, views, settings, generator)
        self.target = frozen_copy(parts_of(model).encoder)
        self.moves = 0

    def follow(self, model: nn.Module, *views: Tensor) -> list[Tensor]:
        """Move the target towards the model's encoder; return its projections (B, p) of views."""
        self.moves += 1
        return follow(self.target, parts_of(model).encoder, self.settings.ema_decay, *views)

    def settle(self, averaged: nn.Module, moves: int) -> None:
        """Move the target towards the averaged model as far as ``moves`` steps would.

        t <- tau^moves t + (1 - tau^moves) o, with the averaged encoder for o.
        """
        ema_update(self.target, parts_of(averaged).encoder, self.settings.ema_decay**moves)

    def empty_step(self, model: nn.Module) -> None:
        """Move on what moves with every step, where a step's random sample is empty."""
        if "ema_decay" in self.settings._fields:
            self.moves += 1
            ema_update(self.target, parts_of(model).encoder, self.settings.ema_decay)

    def state_dict(self) -> dict[str, Any]:
        """Return what must survive at the party: the target network and its moves."""
        target = {k: v.clone() for k, v in self.target.state_dict().items()}
        return {"target": target, "moves": self.moves}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the state of :meth:`state_dict`."""
        self.target.load_state_dict(state["target"])
        self.moves = state["moves"]


def two_projections(model: nn.Module, x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
    """Return the unit-norm projections (B, p) of two views, each view a batch of its own."""
    encoder = parts_of(model).encoder
    return F.normalize(encoder(x1), dim=1), F.normalize(encoder(x2), dim=1)


def require_other_rows(rows: int, loss: str) -> None:
    """Refuse a batch of one sample for a loss that compares samples with each other.

    Raises:
        DataError: Fewer than two rows.
    """
    if rows < 2:
        raise DataError(
            f"Expected at least 2 samples in a batch for the {loss} loss, which compares a sample "
            f"with the others, got {rows}. Give every party 2 samples or more; per-example "
            "clipping, which takes samples one by one, cannot be used with it."
        )
