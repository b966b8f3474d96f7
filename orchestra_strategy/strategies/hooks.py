"""The hooks of a strategy: what whoever writes one may override.

None of them carries any of the method's own work (:mod:`~orchestra_strategy.strategies.method`),
so that ``super()`` need not be called; where it is, nothing happens. Those that give something
(``make_objective``, ``loss_terms``, ``aggregate_weights``, ``draw_views`` and the like) take the
place of what they override.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from orchestra_strategy.aggregation.weighted import weighted_mean
from orchestra_strategy.algorithms.ema import frozen_statistics
from orchestra_strategy.algorithms.model import network_of
from orchestra_strategy.algorithms.objective import Batch, LossParts, Objective
from orchestra_strategy.data.augmentation.view_set import ViewSet
from orchestra_strategy.exchange.manifest import Entry
from orchestra_strategy.exchange.payload import FloatArray
from orchestra_strategy.party.data import PartyData
from orchestra_strategy.party.worker import PartyWorker

__all__ = ["StrategyHooks"]


class StrategyHooks(PartyWorker):
    """A party's worker with the hooks of its strategy; see :class:`FederatedStrategy`.

    Attributes:
        metric_names: All losses that reach the driver: ``train_loss``, and ``train_NAME`` for each
            part of the loss. Neither more nor fewer may come.
        protected_entries: Which of ``extra_entries`` may leave with ``privacy``: they carry noise
            of their own.
        needs_labels: Whether batches are to have ``labels`` (B,), those of ``fit(x, y)``; they stay
            at the party.
    """

    metric_names: ClassVar[tuple[str, ...]] = ("train_loss",)
    protected_entries: ClassVar[tuple[str, ...]] = ()
    objective: Objective

    # ---- The loss --------------------------------------------------------------------------

    def make_objective(self) -> Objective:
        """Return the objective; called once, after the model has been built.

        A loss of torch, such as ``nn.CrossEntropyLoss()``, is one of the model's outputs and the
        labels, with ``needs_labels``.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `make_objective`.")

    def loss_terms(self, model: nn.Module, batch: Batch) -> LossParts | Tensor:
        """Return the loss of one local step; by default the objective's."""
        return self.objective(model, batch)

    # ---- On the server ---------------------------------------------------------------------

    @staticmethod
    def aggregate_weights(
        weights_list: Sequence[Sequence[FloatArray]], sample_counts: Sequence[int]
    ) -> list[FloatArray]:
        """Combine the parties' weights on the server; by default the mean by sample count."""
        return weighted_mean(weights_list, sample_counts)

    # ---- Labels ----------------------------------------------------------------------------

    def num_classes(self) -> int | None:
        """Return K, if labels are to be whole numbers from 0 to K - 1; None if any are fine."""
        return None

    # ---- A round at the party --------------------------------------------------------------

    def set_up(self) -> None:
        """Run once, when objective and method have been made."""

    def check_data(self, data: PartyData) -> None:
        """Refuse data that this strategy cannot use, beside what the method refuses."""

    def forget_data(self) -> None:
        """Drop what is tied to the samples of a former fit: there are other ones."""

    def start_round(self) -> None:
        """Run at the party when a round begins."""

    def before_local_training(self, user: int | None) -> None:
        """Run before a user's local steps.

        Args:
            user: The number of the virtual user; None if the party itself is the user.
        """

    def after_local_training(self, user: int | None) -> None:
        """Run after a user's local steps, not if they failed, and before the method sums them up.

        Args:
            user: As in :meth:`before_local_training`.
        """

    def finish_round(self) -> None:
        """Run at the party when all its users are done, before anything is sent."""

    def recover(self) -> None:
        """Get rid of what is not finite, after this party's reply has been left out of a round.

        Weights need nothing: the others' average has replaced them. What a strategy keeps of its
        own does, or it would spoil every round to come.
        """

    def needs_initial_pass(self) -> bool:
        """Whether round 0 (no training) is still to be done for this strategy's own sake."""
        return False

    def initial_pass(self, batches: Iterable[Batch]) -> None:
        """Do round 0 on a user's data, in place of local steps."""

    # ---- What travels beside the weights, and beside what the method sends -----------------

    def extra_entries(self) -> tuple[Entry, ...]:
        """Return the manifest's entries for what travels to the server."""
        return ()

    def extras(self) -> dict[str, FloatArray]:
        """Return the arrays for :meth:`extra_entries`."""
        return {}

    def reply_entries(self) -> tuple[Entry, ...]:
        """Return the entries that the server sends back."""
        return ()

    def receive_extras(self, arrays: Mapping[str, FloatArray]) -> None:
        """Take the arrays of :meth:`reply_entries`."""

    # ---- Checkpoints -----------------------------------------------------------------------

    def kept_state(self) -> dict[str, Any]:
        """Return what a strategy keeps of its own between rounds.

        Tensors and plain values, in nested dictionaries and lists. Model, objective, optimizer and
        what the method keeps are in a checkpoint in any case.
        """
        return {}

    def load_kept_state(self, state: dict[str, Any]) -> None:
        """Take the state of :meth:`kept_state`."""

    # ---- What is asked of the network ------------------------------------------------------

    def draw_views(self, inputs: Tensor, generator: torch.Generator) -> ViewSet | None:
        """Return views of samples for the check of the encoder's health; None skips the check."""
        return None

    def project(self, x: Tensor) -> Tensor:
        """Return what the health is measured on, (B, d), for model inputs (B, ...)."""
        with torch.no_grad(), frozen_statistics(self.model):
            projections: Tensor = network_of(self.model)(x)
        return projections

    def assign_clusters(self, z: Tensor) -> tuple[Tensor, int] | None:
        """Return the clusters (B,) of unit-norm projections (B, p), and their number, or None."""
        return None

    @classmethod
    def overrides(cls, hook: str) -> bool:
        """Whether a subclass has a hook of its own.

        >>> StrategyHooks.overrides("loss_terms")
        False
        """
        # By name: the host wraps a worker's methods, and keeps their names.
        own: str = getattr(cls, hook).__qualname__
        return own != f"StrategyHooks.{hook}"
