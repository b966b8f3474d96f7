"""A target network over the rounds of a party."""

import torch
from torch import Tensor, nn

from orchestra_strategy.algorithms.model import parts_of
from orchestra_strategy.algorithms.objective_bases import TargetObjective
from orchestra_strategy.users.optimizers import all_finite

__all__ = ["NoTargetNetwork", "TargetNetwork"]


class NoTargetNetwork:
    """What a method without a target network does between and within rounds: nothing."""

    def start_round(self, model: nn.Module) -> None:
        """Begin a round with the averaged model."""

    def start_user(self, user: int | None) -> None:
        """Begin a user's local steps; None is the party itself."""

    def end_user(self) -> int:
        """End a user's local steps; return how often the target has moved in them."""
        return 0

    def take_moves(self, moves: int) -> None:
        """Note how often it has."""

    def state_for_users(self) -> list[Tensor]:
        """Return what a copy of the party needs for the users of a round."""
        return []

    def load_state_for_users(self, state: list[Tensor]) -> None:
        """Take the state of :meth:`state_for_users`."""

    def finish_round(self) -> None:
        """End the round."""

    def recover(self, model: nn.Module) -> None:
        """Get rid of what is not finite."""

    def restart(self, model: nn.Module) -> None:
        """Begin anew with a model that is not the party's own."""


class TargetNetwork(NoTargetNetwork):
    """One target network per party, whatever the number of its virtual users.

    With user-level privacy, virtual users start each round from the averaged network as target.

    Args:
        objective: Holds the network, and moves it in every step.
    """

    def __init__(self, objective: TargetObjective) -> None:
        self.objective = objective
        self._held: list[Tensor] = []  # the target's own tensors
        self._start: list[Tensor] = []  # what was in them when the round began

    def start_round(self, model: nn.Module) -> None:
        """Let the target follow the averaged network, by the moves of the round before."""
        self.objective.settle(model, self.objective.moves)
        self.objective.moves = 0
        self._begin()

    @torch.no_grad()
    def load_state_for_users(self, state: list[Tensor]) -> None:
        """Take the tensors of the target; users of a round start from them."""
        self._begin()
        for now, then in zip(self._held, state, strict=True):
            now.copy_(then)
        self._begin()

    def state_for_users(self) -> list[Tensor]:
        """Return the tensors of the target when the round began."""
        return self._start

    def _begin(self) -> None:
        """Let every user of the round start from the target as it is now."""
        self._held = [
            t for t in self.objective.target.state_dict().values() if isinstance(t, Tensor)
        ]
        self._start = [t.clone() for t in self._held]
        self._moves = 0

    def start_user(self, user: int | None) -> None:
        """Give a virtual user the target network of the round."""
        if user is not None:
            # One target network per party: kept for each user, it would be a model per user.
            self._go_back()
            self.objective.moves = 0

    def end_user(self) -> int:
        """Return how often a user's steps have moved the target."""
        return self.objective.moves

    def take_moves(self, moves: int) -> None:
        """Keep the most moves of any user."""
        self._moves = max(self._moves, moves)

    def finish_round(self) -> None:
        """Take the round's local moves back; the averaged network will make them."""
        self._go_back()
        self.objective.moves = self._moves

    @torch.no_grad()
    def _go_back(self) -> None:
        """Put the target where it was when the round began."""
        for now, then in zip(self._held, self._start, strict=True):
            now.copy_(then)

    def recover(self, model: nn.Module) -> None:
        """Start the target network anew from the average if anything in it is not finite."""
        if not all_finite(self.objective.target.state_dict().values()):
            # A moving average never gets rid of a NaN.
            self.restart(model)

    def restart(self, model: nn.Module) -> None:
        """Start from the model's encoder."""
        self.objective.target.load_state_dict(parts_of(model, ()).encoder.state_dict())
        self.objective.moves = 0
