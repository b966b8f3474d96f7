"""The local part of a round: hooks around the method's own work, batches, streams, losses.

Every call of a hook or of the method is one that may touch the party's samples, so each is inside
of the party's silence, where ``privacy`` asks for one.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss

from orchestra_strategy import host
from orchestra_strategy.algorithms.objective import Batch, LossParts, Objective
from orchestra_strategy.algorithms.precision import computing_in
from orchestra_strategy.algorithms.trial_pass import refuse_unfit
from orchestra_strategy.data.batches import num_batches
from orchestra_strategy.errors import DataError, ParameterError
from orchestra_strategy.exchange.told import check_losses, named_losses
from orchestra_strategy.global_randomness import drawing_from
from orchestra_strategy.party.data import PartyData
from orchestra_strategy.strategies.hooks import StrategyHooks
from orchestra_strategy.strategies.method import Method
from orchestra_strategy.users.objectives import SupervisedObjective

__all__ = ["LocalWork"]

LossFn = Callable[[nn.Module, Batch], LossParts | Tensor]


class LocalWork(StrategyHooks):
    """A strategy's local work; see :class:`FederatedStrategy`.

    Attributes:
        rounds_done: Rounds of training done; round 0 (no training) does not count.
        round_index: The round under way, 0 for the one without training.
        epoch: FLModel's epoch, by which the order of the data goes.
        method_class: What the method does of its own around local training.
        method: Its state at this party.
        user_type: The kind of federated user, which holds the ``user`` that does the local work.
    """

    method_class: ClassVar[type[Method]] = Method
    method: Any
    user_type: Any
    rounds_done: int
    round_index: int
    epoch: int
    _host_steps: tuple[int, int]

    def _made_objective(self) -> Objective:
        """Return the strategy's objective; a loss of torch is one of outputs and labels."""
        made = self.make_objective()
        if not isinstance(made, _Loss):
            return made
        if not self.needs_labels:
            raise ParameterError(
                f"Expected `needs_labels = True` in the class `{host.plain_class(self).__name__}`, "
                f"whose objective is {type(made).__name__}, a loss of outputs and labels; labels "
                "are those of `fit(x, y)`, and stay at their parties."
            )
        return SupervisedObjective(made)

    # ---- A round ---------------------------------------------------------------------------

    def open_round(self) -> None:
        """Begin a round: the method's own work, then the hook."""
        for start in (self.method.start_round, self.start_round):
            with self.privacy.silence:
                start()

    def _close_round(self) -> None:
        for finish in (self.finish_round, self.method.finish_round):
            with self.privacy.silence:
                finish()

    def _begin(self, cur_steps: int, train_steps: int) -> None:
        """Find the place of a call of ``train_step`` in the party's data."""
        step = cur_steps % self.require_data().steps_per_epoch
        self.epoch += step == 0
        self._host_steps = (step, train_steps)
        self.round_index = self.rounds_done + 1

    def counted_loss(self, model: nn.Module, batch: Batch) -> LossParts | Tensor:
        """Return the loss, and count the rows for the cost ledger.

        Those of a protected party are not counted here: how far it gets may depend on its data.
        """
        self.reports.rows_trained += self.privacy.rows_of_step(batch)
        try:
            with computing_in(self.config.precision, self.exe_device):
                return self.loss_terms(model, batch)
        except KeyError as error:
            if error.args != ("labels",) or self.needs_labels:
                raise
            name = host.plain_class(self).__name__
            raise DataError(
                f"Expected `needs_labels = True` in the class `{name}`, whose loss reads `labels` "
                "of a batch, got none; they are those of `fit(x, y)`, and stay at their parties."
            ) from None

    @contextmanager
    def local_training(self, user: int | None) -> Iterator[LossFn]:
        """Surround a user's local steps with the hooks; gives the loss.

        What the networks draw inside (dropout) comes from a stream of this round and user, too.
        """
        who, purpose = self._user_name(user), "inside the networks"
        with drawing_from(self.streams, who, self.round_index, purpose, self.exe_device):
            for before in (self.method.start_user, self.before_local_training):
                with self.privacy.silence:
                    before(user)
            yield self.counted_loss
            with self.privacy.silence:
                self.after_local_training(user)
            with self.privacy.silence:
                self.take_user(user, self.method.end_user(user))

    def take_user(self, user: int | None, left: Any) -> None:
        """Take what a user's local steps leave at the party."""
        self.method.take_user(user, left)

    def first_pass(self, user: int | None, *batches: Iterable[Batch]) -> None:
        """Do round 0 on a user's data, once for each who needs it: they are streamed, and gone."""
        with self.privacy.silence, self.local_training(user):
            for who, some in zip(self.first_passes(), batches, strict=True):
                who.initial_pass(some)

    def first_passes(self) -> list[Any]:
        """Return who needs round 0: the method, the strategy itself, or both."""
        return [p for p in (self.method, self) if p.needs_initial_pass()]

    # ---- Batches and streams ---------------------------------------------------------------

    def ordered_batches(self) -> Iterator[Batch]:
        """Return the batches of the round under way, in the party's own order."""
        step, steps = self._host_steps
        return self.require_data().training_batches(
            step, steps, passes=self.config.local_epochs, epoch=self.epoch, **self._order()
        )

    def ordered_batch(self, position: int) -> Batch:
        """Return one batch of an endless walk over the party's data."""
        return self.require_data().batch_at(position, **self._order())

    def local_steps(self) -> int:
        """Return how many batches the round under way has."""
        step, steps = self._host_steps
        data, config = self.require_data(), self.config
        total = num_batches(len(data), config.batch_size, config.local_epochs)
        first = step * total // data.steps_per_epoch
        return min((step + steps) * total // data.steps_per_epoch, total) - first

    def _order(self) -> dict[str, Any]:
        return {
            "batch_size": self.config.batch_size,
            "streams": self.streams,
            "party": self.party,
            "device": self.exe_device,
        }

    def stream(self, purpose: str, user: int | None = None, device: Any = "cpu") -> torch.Generator:
        """Return a random stream of this party, round and purpose; of a virtual user, if given."""
        return self.streams.for_torch(self._user_name(user), self.round_index, purpose, device)

    def _user_name(self, user: int | None) -> str:
        return self.party if user is None else f"{self.party}/{user}"

    def _losses(self) -> dict[str, float]:
        """Return the means of the losses, and the health of the party's own network.

        Raises:
            ReplyError: The losses are not those of ``metric_names``.
        """
        if not self.privacy.tells_all:
            return {}
        losses = named_losses(self.user_type.user.loss_means)
        check_losses(host.plain_class(self).__name__, self.metric_names, losses)
        return losses | self.inspection.check_health()

    # ---- Data, parameters and checkpoints --------------------------------------------------

    def _apply_config(self) -> None:
        self.user_type.configure()
        self.method.configure()

    def _check_samples(self, data: PartyData) -> None:
        refuse_unfit(self.model, data.samples.shape[1:])
        self.method.check_data(data)
        self.check_data(data)

    def _forget_samples(self) -> None:
        self.method.forget_data()
        self.forget_data()

    def _take_samples(self) -> None:
        self.user_type.take_data()

    def all_kept_state(self) -> dict[str, Any]:
        """Return what a checkpoint holds beside model, objective and optimizer."""
        return {"method": self.method.state(), "own": self.kept_state()}

    def load_all_kept_state(self, state: dict[str, Any]) -> None:
        """Take the state of :meth:`all_kept_state`."""
        self.method.load_state(state["method"])
        self.load_kept_state(state["own"])

    def common_state(self) -> dict[str, Any]:
        """Return the arrays beside the weights that all parties have after a round."""
        return {**self.method.common_state(), **self.privacy.common_state()}

    def load_common_state(self, state: Mapping[str, Any]) -> None:
        """Take the arrays of :meth:`common_state`."""
        self.method.load_common_state(state)
        self.privacy.load_common_state(state)
