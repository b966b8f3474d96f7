"""``multiuser_aggregate``: many virtual users in one party."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from orchestra_strategy.algorithms.objective import Batch
from orchestra_strategy.data.batches import num_batches
from orchestra_strategy.data.partition import iid_partition
from orchestra_strategy.party.local_update import LocalUpdate
from orchestra_strategy.party.roles import Party
from orchestra_strategy.party.user_workers import UserWorkers, check_apart
from orchestra_strategy.users import MultiUserAggregate, UserSingleStep
from orchestra_strategy.users.aggregate import Work

__all__ = ["VirtualUsers"]


class VirtualUsers(LocalUpdate):
    """``multiuser_aggregate``: the party hosts many users; the mean of their updates leaves.

    Where the objective has centroids, each user's leave too, as means of ``k_min`` of its samples
    or more: not mixed with other users', but in random order.

    The party's samples are dealt out once, seeded, in equal parts. Every user starts a round from
    the same weights and does ``local_epochs`` passes over its own samples.
    """

    protects_records: ClassVar[bool] = False  # it is users that are many here

    @classmethod
    def users_of(cls, config: Any) -> int:
        """Return the number of virtual users."""
        return int(config.num_virtual_users)

    @classmethod
    def smallest_user(cls, config: Any, num_samples: int) -> tuple[str, int]:
        """Return the words for the virtual users, and how many samples the smallest has."""
        users = config.num_virtual_users
        return f"each of {users} virtual users", num_samples // users

    def __init__(self, party: Party) -> None:
        super().__init__(party)
        check_apart(party)
        self._workers: tuple[Any, UserWorkers] | None = None

    def _make_user(self) -> UserSingleStep:
        # Sizes of steps follow from the data; until there are any, one sample each.
        return self._aggregate(self.num_users(), 1, 1)

    def _aggregate(self, num_users: int, steps: int, size: int) -> MultiUserAggregate:
        per_round = self.party.config.users_per_round
        cfg_user = SimpleNamespace(
            num_data_points="all",
            num_local_updates=steps,
            num_data_per_local_update_step=size,
            provide_buffers=True,
            aggregate_weights=self.party.privacy.user_weights,
            users_per_round=num_users if per_round is None else per_round,
        )
        return MultiUserAggregate(
            self.party.model,
            self.party.counted_loss,
            self._samples_of,
            self.setup(),
            cfg_user,
            range(num_users),
            optimizer_fn=self.make_optimizer,
            objective_for=self.party.local_training,
            shares="update",  # weights are averaged, of however few steps
            # Its own for each party: their users' draws must not be the same.
            streams=self.party.streams.child(self.party.party, 0, "virtual users"),
        )

    def take_data(self) -> None:
        """Deal the party's samples out to its users."""
        config, count = self.party.config, self.party.num_samples()
        if config.user_split == "blocks":
            self.parts = np.array_split(np.arange(count, dtype=np.int64), config.num_virtual_users)
        else:
            self.parts = iid_partition(count, config.num_virtual_users, self.party.streams)
        most = max(len(part) for part in self.parts)
        # Slices of equal length: the last one of a pass must not be a handful of samples.
        per_pass = num_batches(most, config.batch_size)
        size = -(-most // per_pass)
        queries = self.user.counted_queries
        self.user = self._aggregate(len(self.parts), per_pass * config.local_epochs, size)
        # The draw of users and their noise go by this count: a further fit goes on, not over again.
        self.user.counted_queries = queries

    # ---- Several users at a time -----------------------------------------------------------

    def configure(self) -> None:
        """Hand changed options to the optimizer; ``user_workers`` may be another number, too."""
        super().configure()
        assert isinstance(self.user, MultiUserAggregate)
        self.user.works = self._works if self.party.config.user_workers > 1 else None

    def workers(self) -> UserWorkers:
        """Return the party's processes; new ones if its samples or parameters are others."""
        party = self.party
        copied = (party.fingerprint, party.config, party.party, party.streams.state())
        if self._workers is None or self._workers[0] != copied:
            self.end_workers()
            count = min(party.config.user_workers, len(self.parts))
            self._workers = copied, UserWorkers(party, count)
        return self._workers[1]

    def end_workers(self) -> None:
        """End the party's processes, if it has any."""
        if self._workers is not None:
            self._workers[1].close()
        self._workers = None

    def _works(
        self, users: Sequence[int], payload: Mapping[str, Any], start: Sequence[Tensor]
    ) -> Iterator[tuple[int, Work]]:
        """Have users trained in the party's processes, which have its weights from itself."""
        for idx, told in self.workers().work("round", users):
            yield idx, partial(self._taken, told)

    def _taken(self, told: Mapping[str, Any]) -> Any:
        """Take what a user's work leaves at the party; return its outcome, or raise its error."""
        party = self.party
        party.reports.rows_trained += told["rows"]
        if told["failures"]:
            party.privacy.silence.failures += told["failures"]
        if "left" in told:
            with party.privacy.silence:
                party.take_user(told["user"], told["left"])
        if "error" in told:
            raise told["error"] from told["where"]
        return told["outcome"]

    def first_pass(self, times: int) -> None:
        """Let each user go through its data in round 0, several at a time where asked for."""
        if self.party.config.user_workers == 1:
            super().first_pass(times)
            return
        for _, told in self.workers().work("init", range(len(self.parts))):
            self._taken(told)

    def samples_for(self, idx: int) -> list[Batch]:
        """Return the batches of user ``idx``: all of its samples in one."""
        return self._samples_of(idx)

    # ---- A round ---------------------------------------------------------------------------

    def train(self) -> Mapping[str, Any]:
        """Query the users; the strategy's hooks are around each one's steps."""
        return self.query()

    def all_data(self) -> Iterator[tuple[int | None, Iterable[Batch]]]:
        """Yield each user's number and all of its samples."""
        for idx in range(len(self.parts)):
            yield idx, self._samples_of(idx)

    def users_per_round(self) -> int:
        """Return how many of the virtual users take part in a round."""
        config = self.party.config
        return int(config.users_per_round or config.num_virtual_users)

    def rows_of(self, user: int | None) -> npt.NDArray[np.int64]:
        """Return the positions of a user's samples in the party's data; None is the party."""
        return super().rows_of(None) if user is None else self.parts[user]

    def samples_of(self, user: int | None) -> int:
        """Return how many samples a user has; None is the party itself."""
        return super().samples_of(None) if user is None else len(self.parts[user])

    def batch_of(self, idx: int) -> Batch:
        """Return all samples of user ``idx``."""
        batch: Batch = self.party.require_data().batch(self.parts[idx], self.party.exe_device)
        return batch

    def _samples_of(self, idx: int) -> list[Batch]:
        return [self.batch_of(idx)]

    def rows_per_round(self) -> int:
        """Return how many rows the steps of a round's users take."""
        assert isinstance(self.user, MultiUserAggregate)
        steps, size = (
            self.user.steps.num_local_updates,
            self.user.steps.num_data_per_local_update_step,
        )
        return self.user.aggregation.users_per_round * (steps or 0) * (size or 0)

    def samples_behind(self) -> int:
        """Return the number of samples of the users that took part."""
        assert isinstance(self.user, MultiUserAggregate)
        return sum(len(self.parts[idx]) for idx in self.user.users_done)
