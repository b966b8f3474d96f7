"""No protection, and with it the interface of all units: what privacy decides in a round."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from orchestra_strategy.algorithms.objective import Batch
from orchestra_strategy.data.augmentation.view_set import Views
from orchestra_strategy.data.augmentation.views import build_views
from orchestra_strategy.exchange.manifest import Entry
from orchestra_strategy.exchange.payload import FloatArray, Payload
from orchestra_strategy.party.roles import Party
from orchestra_strategy.privacy.journal import PrivacyJournal
from orchestra_strategy.rng import Streams
from orchestra_strategy.users import UserSingleStep

__all__ = ["NoPrivacy"]


class NoPrivacy:
    """A party whose data are not protected; the units that are override what differs.

    Args:
        party: The strategy.

    Attributes:
        name: The value of the parameter ``privacy``.
        protected: Whether what leaves the party carries noise.
        user_weights: How virtual users weigh in their mean.
        silence: Keeps errors of a protected party's local work from showing; here it does nothing.
        silence_of_user: The same around a user's work as a whole, where that is the unit.
    """

    name: ClassVar[str] = "none"
    protected: ClassVar[bool] = False
    user_weights: ClassVar[str] = "num_samples"

    silence: AbstractContextManager[Any]
    silence_of_user: AbstractContextManager[Any]

    def __init__(self, party: Party) -> None:
        self.party = party
        self.silence = self.silence_of_user = nullcontext()

    # ---- What is refused, on the driver already ------------------------------------------------

    @classmethod
    def check(cls, config: Any, model: nn.Module, sends: tuple[str, ...]) -> None:
        """Refuse parameters and models under which something would leave unprotected.

        Args:
            config: The strategy's parameters.
            model: Whose weights leave the party.
            sends: What else leaves it as it is, by name.
        """

    @classmethod
    def check_sharing(
        cls, config: Any, parties: int | None, ring_parties: int | None, ring_limit: float | None
    ) -> None:
        """Refuse parties and an aggregator among which noise cannot be shared; by default none.

        Args:
            config: The strategy's parameters.
            parties: How many there are.
            ring_parties: How many of them the aggregator adds up unseen.
            ring_limit: What a sum has to stay below.
        """

    @classmethod
    def check_objective(cls, objective: Any, own_loss: bool) -> None:
        """Refuse an objective, or its class, that the unit cannot protect."""

    @classmethod
    def check_entries(cls, entries: Iterable[Entry], protected: Collection[str]) -> None:
        """Refuse to send what does not carry noise of its own, beside the weights."""

    @classmethod
    def check_telling(cls, config: Any) -> None:
        """Refuse to measure the party's samples for the driver."""

    @classmethod
    def build_views(cls, name: str, options: Mapping[str, Any]) -> Views:
        """Return the views by name, in the form that the unit needs."""
        return build_views(name, **options)

    # ---- A round -------------------------------------------------------------------------------

    def own_streams(self) -> Streams | None:
        """Return the party's random streams where the unit decides on them, else None."""
        return None

    def rehearse(self) -> None:
        """Let mistakes of code and configuration show before errors are kept back."""

    def begin_round(self) -> None:
        """Get ready for a round, or refuse it."""

    def protect(self, user: UserSingleStep) -> None:
        """Hand a user what protects its update or gradient."""

    def batches(self) -> Iterator[Batch]:
        """Return the batches of the round under way."""
        return self.party.ordered_batches()

    def next_batch(self, position: int) -> Batch:
        """Return one batch, at a position of an endless walk over the party's data."""
        return self.party.ordered_batch(position)

    def loss(self) -> Any:
        """Return the loss in the form that the party's user takes."""
        return self.party.counted_loss

    def weight(self, samples: int) -> int:
        """Return the party's weight in the mean.

        Args:
            samples: How many samples are behind what it sends.
        """
        return samples

    def rows_of_step(self, batch: Batch) -> int:
        """Return how many rows a step adds to the cost ledger."""
        return len(next(iter(batch.values())))

    def rows_of_round(self) -> int:
        """Return how many rows a round adds to it, beside those of its steps."""
        return 0

    def end_round(self) -> dict[str, float]:
        """Note what has been spent, before anything leaves; return what is logged of it."""
        return {}

    # ---- What travels --------------------------------------------------------------------------

    @torch.no_grad()
    def take_update(self, model: nn.Module, update: Sequence[Tensor]) -> None:
        """Let the model have the update that is sent."""
        for parameter, moved in zip(model.parameters(), update, strict=True):
            parameter.add_(moved)

    def outgoing_entries(self, entries: tuple[Entry, ...], trained: bool) -> tuple[Entry, ...]:
        """Return the entries of what is trained, as it is sent.

        Args:
            entries: Of the kind of user: weights, or gradients.
            trained: Whether local training is behind it.
        """
        return entries

    def outgoing(self, arrays: dict[str, FloatArray], trained: bool) -> dict[str, FloatArray]:
        """Return the arrays of :meth:`outgoing_entries`."""
        return arrays

    def incoming(self, reply: Payload) -> dict[str, FloatArray]:
        """Return what has come back in the form that the kind of user takes."""
        return dict(reply.arrays)

    def end_exchange(self, reply: Payload, before: Mapping[str, FloatArray]) -> dict[str, float]:
        """Return what is logged of what has come back.

        Args:
            reply: What has just been taken in.
            before: The averaged weights before that, by the payload's names.
        """
        return {}

    def follow(self, reply: Payload) -> None:
        """Take what has come back for the protection itself."""

    # ---- What stays, and what is told ----------------------------------------------------------

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of the numbers that it adds to the log."""
        return ()

    @property
    def tells_all(self) -> bool:
        """Whether losses and health, which no noise protects, may leave the party."""
        return True

    def spent(self) -> dict[str, Any]:
        """Return epsilon and delta of all that has been released; empty without a promise."""
        return {}

    def rounds_left(self, num_samples: int) -> int | None:
        """Return how many rounds the budget allows on so many samples; None without a budget."""
        return None

    def state(self) -> dict[str, Any] | None:
        """Return what a checkpoint keeps; None where nothing is protected."""
        return None

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take the state of :meth:`state`."""

    def common_state(self) -> dict[str, Any]:
        """Return the arrays of it that all parties have after a round."""
        return {}

    def load_common_state(self, state: Mapping[str, Any]) -> None:
        """Take the arrays of :meth:`common_state`."""

    def open_journal(self, journal: PrivacyJournal, restored: bool = False) -> None:
        """Keep the journal of a folder from now on."""
