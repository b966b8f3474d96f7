"""The work of every self-supervised method around local training: its views' stream, its target."""

from collections.abc import Mapping
from typing import Any

from torch.nn.modules.batchnorm import _BatchNorm

from orchestra_strategy.algorithms.objective_bases import RowwiseObjective, TargetObjective
from orchestra_strategy.errors import DataError
from orchestra_strategy.party.data import PartyData
from orchestra_strategy.strategies.method import Method
from orchestra_strategy.strategies.target_network import NoTargetNetwork, TargetNetwork

__all__ = ["SelfSupervisedMethod"]


class SelfSupervisedMethod(Method):
    """Views from a stream of each round and user; a target network where the objective has one."""

    def __init__(self, party: Any) -> None:
        super().__init__(party)
        self.target_network = NoTargetNetwork()
        if isinstance(party.objective, TargetObjective):
            self.target_network = TargetNetwork(party.objective)

    def check_data(self, data: PartyData) -> None:
        """Refuse users with a single sample where it has to stand beside another one."""
        who, samples = self.party.smallest_user(data)
        reason = self._why_not_one()
        if reason is not None and samples < 2:
            raise DataError(f"Expected {who} to have at least 2 samples, got {samples}: {reason}.")
        if samples < 1:
            raise DataError(f"Expected {who} to have at least 1 sample, got 0: merge small users.")

    def _why_not_one(self) -> str | None:
        """Return what a single sample is too few for, with the remedy; None if for nothing."""
        if not isinstance(self.party.objective, RowwiseObjective):
            return (
                "the method compares samples with each other; merge small users, or use one that "
                "does not, such as 'fed_rotpred'"
            )
        if any(isinstance(module, _BatchNorm) for module in self.party.model.modules()):
            return (
                "BatchNorm has no statistics of one; merge small users, or use "
                "`orchestra_model(..., norm='group')`"
            )
        return None

    def configure(self) -> None:
        """Hand changed parameters on to the objective."""
        self.party.objective.settings = self.party.settings()
        self.party.objective.views = self.party.views()

    def start_anew(self) -> None:
        """Let the target network start from the model's weights."""
        self.target_network.restart(self.party.model)

    def start_round(self) -> None:
        """Let the target network follow the averaged one."""
        self.target_network.start_round(self.party.model)

    def start_user(self, user: int | None) -> None:
        """Give the views a random stream of this round and user.

        Where records are protected it has to be a secret one: which views a sample gets would
        otherwise follow from its place in the batch, and so from whether another sample is there.
        """
        party = self.party
        party.objective.generator = party.stream("views", user, party.exe_device)
        self.target_network.start_user(user)

    def end_user(self, user: int | None) -> dict[str, Any]:
        """Return how far a user's steps have moved the target network."""
        return {"moves": self.target_network.end_user()}

    def take_user(self, user: int | None, left: Any) -> None:
        """Note how far they have."""
        self.target_network.take_moves(left["moves"])

    def state_for_users(self) -> dict[str, Any]:
        """Return the target network that every user starts from."""
        return {"target": self.target_network.state_for_users()}

    def load_state_for_users(self, state: Mapping[str, Any]) -> None:
        """Take that target network."""
        self.target_network.load_state_for_users(state["target"])

    def finish_round(self) -> None:
        """Take the target network's local moves back."""
        self.target_network.finish_round()

    def recover(self) -> None:
        """Get rid of what is not finite in the target network."""
        self.target_network.recover(self.party.model)
