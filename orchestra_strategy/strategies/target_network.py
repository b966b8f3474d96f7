"""A target network over the rounds of a party."""

import copy

from torch import nn

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

    def end_user(self) -> None:
        """End a user's local steps."""

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

    def start_round(self, model: nn.Module) -> None:
        """Let the target follow the averaged network, by the moves of the round before."""
        self.objective.settle(model, self.objective.moves)
        self.objective.moves = 0
        self._start = copy.deepcopy(self.objective.target.state_dict())
        self._moves = 0

    def start_user(self, user: int | None) -> None:
        """Give a virtual user the target network of the round."""
        if user is not None:
            # One target network per party: kept for each user, it would be a model per user.
            self.objective.target.load_state_dict(self._start)
            self.objective.moves = 0

    def end_user(self) -> None:
        """Note how far a user's steps have moved the target."""
        self._moves = max(self._moves, self.objective.moves)

    def finish_round(self) -> None:
        """Take the round's local moves back; the averaged network will make them."""
        self.objective.target.load_state_dict(self._start)
        self.objective.moves = self._moves

    def recover(self, model: nn.Module) -> None:
        """Start the target network anew from the average if anything in it is not finite."""
        if not all_finite(self.objective.target.state_dict().values()):
            # A moving average never gets rid of a NaN.
            self.restart(model)

    def restart(self, model: nn.Module) -> None:
        """Start from the model's encoder."""
        self.objective.target.load_state_dict(parts_of(model, ()).encoder.state_dict())
        self.objective.moves = 0
