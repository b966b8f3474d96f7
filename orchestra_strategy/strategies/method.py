"""A method's own work around local training: its state beside the model, and what it sends.

A strategy is an objective, a method and hooks. Objectives are losses; hooks are for whoever derives
a strategy from one of ours. Everything that a method needs in order to work is here and in its
subclasses, so that an overridden hook adds to the method and takes nothing from it.
"""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from orchestra_strategy.algorithms.objective import Batch
from orchestra_strategy.exchange.manifest import Entry
from orchestra_strategy.exchange.payload import FloatArray
from orchestra_strategy.party.data import PartyData

__all__ = ["Method"]


class Method:
    """A method that keeps nothing beside its objective, and sends weights alone.

    Args:
        party: The strategy, with its objective.

    Attributes:
        protected_entries: Which of :meth:`entries` carry noise of their own with ``privacy``.
    """

    protected_entries: ClassVar[tuple[str, ...]] = ()

    def __init__(self, party: Any) -> None:
        self.party = party

    # ---- Data and parameters ---------------------------------------------------------------

    def check_data(self, data: PartyData) -> None:
        """Refuse data that the method cannot use."""

    def forget_data(self) -> None:
        """Drop what is tied to the samples of a former fit."""

    def configure(self) -> None:
        """Take changed parameters."""

    def start_anew(self) -> None:
        """Go on from weights of elsewhere, to which nothing that is kept belongs."""

    # ---- A round ---------------------------------------------------------------------------

    def needs_initial_pass(self) -> bool:
        """Whether round 0, without training, is still to be done."""
        return False

    def initial_pass(self, batches: Iterable[Batch]) -> None:
        """Do round 0 on a user's data."""

    def start_round(self) -> None:
        """Begin a round with the averaged model."""

    def start_user(self, user: int | None) -> None:
        """Begin a user's local steps; None is the party itself."""

    def end_user(self, user: int | None) -> Any:
        """End a user's local steps; return what they leave at the party, for :meth:`take_user`."""

    def take_user(self, user: int | None, left: Any) -> None:
        """Take what a user's steps have left; users come in their order, wherever they trained."""

    def finish_round(self) -> None:
        """End the round, before anything is sent."""

    def recover(self) -> None:
        """Get rid of what is not finite, after the party has been left out of a round."""

    # ---- Users in processes of their own ---------------------------------------------------

    def state_for_users(self) -> dict[str, Any]:
        """Return what a copy of the party needs to train users of the round under way."""
        return {}

    def load_state_for_users(self, state: Mapping[str, Any]) -> None:
        """Take the state of :meth:`state_for_users`, in place of :meth:`start_round`."""

    def kept_of(self, user: int) -> Any:
        """Return what a virtual user has kept since its last round."""

    def load_kept_of(self, user: int, kept: Any) -> None:
        """Take what :meth:`kept_of` returned."""

    # ---- What travels beside the weights ---------------------------------------------------

    def entries(self) -> tuple[Entry, ...]:
        """Return the manifest's entries of what is sent."""
        return ()

    def arrays(self) -> dict[str, FloatArray]:
        """Return the arrays of :meth:`entries`."""
        return {}

    def reply_entries(self) -> tuple[Entry, ...]:
        """Return the entries of what comes back."""
        return ()

    def receive(self, arrays: Mapping[str, FloatArray]) -> None:
        """Take the arrays of :meth:`reply_entries`."""

    # ---- Checkpoints -----------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return what is kept between rounds beside model, objective and optimizer."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take the state of :meth:`state`."""

    def common_state(self) -> dict[str, Any]:
        """Return the arrays beside the weights that all parties have after a round.

        A party that was away takes them from one that was not.
        """
        return {}

    def load_common_state(self, state: Mapping[str, Any]) -> None:
        """Take the arrays of :meth:`common_state`."""
