"""The template of every strategy here: one ``train_step``, which calls the federated user.

A strategy is a thin shell around an objective and a user. Subclasses override hooks:
``make_objective`` or ``loss_terms`` for the loss, ``aggregate_weights`` for the server's mean,
``after_local_training`` for what happens at the end of a round, and the ``extra`` hooks for what
travels beside the weights.

This module must not import annotations from the future: SecretFlow reads ``train_step``'s.
"""

import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar, Tuple  # noqa: UP035

import numpy as np
from torch import Tensor, nn

from orchestra_strategy.aggregation.weighted import AggregateWeights, weighted_mean
from orchestra_strategy.algorithms.objective import Batch, LossParts, Objective
from orchestra_strategy.data.batches import num_batches
from orchestra_strategy.errors import ParameterError
from orchestra_strategy.evaluation import collapse_reason
from orchestra_strategy.exchange.manifest import Entry
from orchestra_strategy.exchange.payload import FloatArray, Payload
from orchestra_strategy.exchange.ring import Ring
from orchestra_strategy.exchange.routes import ROUTES, Sent
from orchestra_strategy.party.health import health_metrics, measure_health
from orchestra_strategy.party.privacy_checks import (
    refuse_coupled,
    refuse_undeclared,
    refuse_unprotected,
)
from orchestra_strategy.party.privacy_units import EPSILON, PartyPrivacy, PerExampleLoss
from orchestra_strategy.party.rehearsal import rehearse
from orchestra_strategy.party.reports import Disclosure
from orchestra_strategy.party.user_types import USER_TYPES
from orchestra_strategy.party.worker import PartyWorker
from orchestra_strategy.threads import torch_threads

__all__ = ["FederatedStrategy"]

_log = logging.getLogger(__name__)

_ROWS_TO_JUDGE = 16  # of fewer samples an effective rank below 2 is no sign of a collapse

LossFn = Callable[[nn.Module, Batch], LossParts | Tensor]


class FederatedStrategy(Disclosure, PartyWorker):
    """One party of a federated run.

    Args:
        builder_base: SecretFlow's ``TorchModel``, or a callable that returns the model. An
            ``optim_fn`` in it replaces our SGD.
        random_seed: Root seed; None means 42, so that all parties start from the same model.
        **kwargs: See :class:`PartyWorker`.

    Attributes:
        rounds_done: Rounds of training done; round 0 (no training) does not count.
        round_index: The round under way, 0 for the one without training.
        user_type: The kind of federated user, which holds the ``user`` that does the local work.
    """

    metric_names: ClassVar[tuple[str, ...]] = ("train_loss",)
    protected_entries: ClassVar[tuple[str, ...]] = ()
    """Which of ``extra_entries`` may leave with ``privacy``: they carry noise of their own."""

    def __init__(self, builder_base: Any, random_seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(builder_base, random_seed, **kwargs)
        self.rounds_done = 0
        self.round_index = 0
        self.route = ROUTES[self.config.route]
        self._sent = Sent(0, "init")
        self.rows_trained = 0
        self.note_average()
        self._left_out: dict[int, str] = {}
        self._epoch = -1
        self._host_steps = (0, 1)
        self.optim_fn = getattr(builder_base, "optim_fn", None)
        self.check_privacy(self.config, self.model)
        protected = self.config.privacy != "none"
        self.privacy = PartyPrivacy(self) if protected else None
        self.rehearsed: Any = ()
        self.objective: Objective = self.make_objective()
        refuse_coupled(self.config, self.objective, self._own_loss())
        self.user_type = USER_TYPES[self.config.user_type](self)
        self.manifest()  # the route may refuse what would be sent
        refuse_undeclared(self.config, self.extra_entries(), self.protected_entries)

    # ---- Hooks -----------------------------------------------------------------------------

    def make_objective(self) -> Objective:
        """Return the objective; called once, after the model has been built."""
        raise NotImplementedError(f"{type(self).__name__} must define `make_objective`.")

    def loss_terms(self, model: nn.Module, batch: Batch) -> LossParts | Tensor:
        """Return the loss of one local step; by default the objective's."""
        return self.objective(model, batch)

    @classmethod
    def check_route(cls, route: str) -> None:
        """Refuse route ``secure`` for what only a server can do.

        Raises:
            ParameterError: The strategy weighs parties in a way of its own.
        """
        if route == "secure" and cls.own_aggregation() is not None:
            raise ParameterError(
                f"Expected `route='server'` for {cls.__name__}, got 'secure': it overrides "
                "`aggregate_weights`, which needs each party's weights, and an aggregator gives "
                "out the mean alone."
            )

    @classmethod
    def own_aggregation(cls) -> AggregateWeights | None:
        """Return the ``aggregate_weights`` of a subclass; None if it has the mean."""
        # The host wraps the methods of a worker's class.
        own: AggregateWeights = inspect.unwrap(cls.aggregate_weights)
        return None if own is FederatedStrategy.aggregate_weights else own

    @staticmethod
    def aggregate_weights(
        weights_list: Sequence[Sequence[FloatArray]], sample_counts: Sequence[int]
    ) -> list[FloatArray]:
        """Combine the parties' weights on the server; by default the mean by sample count."""
        return weighted_mean(weights_list, sample_counts)

    def start_round(self) -> None:
        """Run at the party when a round begins; by default nothing."""

    def before_local_training(self, user: int | None) -> None:
        """Run before a user's local steps; by default nothing.

        Args:
            user: The number of the virtual user; None if the party itself is the user.
        """

    def after_local_training(self, user: int | None) -> None:
        """Run after a user's local steps, not if they failed; by default nothing."""

    def finish_round(self) -> None:
        """Run at the party when all its users are done; by default nothing."""

    def needs_initial_pass(self) -> bool:
        """Whether round 0 (no training) is still to be done; by default never."""
        return False

    def initial_pass(self, batches: Iterable[Batch]) -> None:
        """Do round 0 on a user's data, in place of local steps."""

    def extra_entries(self) -> tuple[Entry, ...]:
        """Return the manifest's entries for what travels to the server beside the weights."""
        return ()

    def extras(self) -> dict[str, FloatArray]:
        """Return the arrays for :meth:`extra_entries`."""
        return {}

    def reply_entries(self) -> tuple[Entry, ...]:
        """Return the entries that the server sends back beside the weights."""
        return ()

    def receive_extras(self, arrays: Mapping[str, FloatArray]) -> None:
        """Take the arrays of :meth:`reply_entries`."""

    def recover(self) -> None:
        """Get rid of what is not finite, after this party's reply has been left out of a round.

        Weights need nothing: the others' average has replaced them. What the party keeps beside
        them does, or it would spoil every round to come.
        """
        self.user_type.recover()

    @classmethod
    def sends_unprotected(cls, route: str) -> tuple[str, ...]:
        """Return what travels beside the weights without noise: refused early with ``privacy``."""
        return ()

    @classmethod
    def check_privacy(cls, config: Any, model: nn.Module) -> None:
        """Refuse ``privacy`` where it would not cover all that leaves a party."""
        refuse_unprotected(config, model, cls.sends_unprotected(config.route))
        if hasattr(cls, "objective_class"):
            refuse_coupled(config, cls.objective_class, cls._own_loss())

    # ---- What FLModel calls ----------------------------------------------------------------

    def train_step(
        self, weights: Any, cur_steps: int, train_steps: int, **kwargs: Any
    ) -> Tuple[np.ndarray, int]:  # type: ignore[type-arg]  # noqa: UP006
        """Do one federated round at this party.

        Args:
            weights: The server's reply, or None to go on from the present state.
            cur_steps: FLModel's count of steps so far.
            train_steps: How many of FLModel's steps this call covers.
            **kwargs: FLModel's; parameters came in through the constructor or ``configure``.

        Returns:
            The payload and the party's number of samples.
        """
        data = self.require_data()
        self._rehearse()
        if weights is not None:
            self.apply_weights(weights)
        if self.needs_initial_pass():
            samples = len(data) if self.privacy is None else self.privacy.weight()
            return self._first_payload(len(data)), samples
        if self.privacy is not None:
            self.privacy.begin_round()
        step = cur_steps % data.steps_per_epoch
        self._epoch += step == 0
        self._host_steps = (step, train_steps)
        self.round_index = self.rounds_done + 1
        with torch_threads(self.config.torch_threads):
            with self.silence:
                self.start_round()
            samples = self.user_type.run()
            self._metrics = self._losses() | self._health() if self._tells_all() else {}
            self.rounds_done = self.round_index
            with self.silence:
                self.finish_round()
            if self.privacy is not None:
                self.rows_trained += self.user_type.rows_per_round()
            if self.privacy is not None:
                samples = self.privacy.weight()
                self._metrics[EPSILON] = self.privacy.epsilon()
                self.privacy.write_journal()
            self.awaits_average = True
            return self._send("round", samples), samples

    def get_weights(self, return_numpy: bool = True) -> Any:
        """Return the payload without training; the first time this is round 0."""
        if self._data_error is not None:
            raise self._data_error
        self._rehearse()
        if not self.needs_initial_pass():
            return self._send("sync")
        return self._first_payload()

    def _first_payload(self, samples: int | None = None) -> Any:
        with torch_threads(self.config.torch_threads):
            if self._data is not None:
                with self.silence:
                    self.start_round()
                for user, batches in self.user_type.all_data():
                    with self.silence, self.local_training(user):
                        self.initial_pass(batches)
            return self._send("init", samples)

    def set_weights(self, weights: Any) -> None:
        """Take the server's reply."""
        self.apply_weights(weights)

    def apply_weights(self, weights: Any, **kwargs: Any) -> None:
        """Take the server's reply: weights, and what came beside them.

        A party that was left out of the round takes the others' average, and recovers.

        Raises:
            ReplyError: It has another form than the manifest's.
        """
        reply = self.route.unpack(weights, self._sent, self.reply_manifest)
        self.user_type.receive(reply.arrays)
        self.note_average()
        self.receive_extras({e.name: reply.arrays[e.name] for e in self.reply_entries()})
        if reply.left_out is not None:
            self._left_out[reply.round_index] = reply.left_out
            _log.warning("The reply of %s was left out. %s", self._who(), reply.left_out)
            self.recover()

    # ---- Inside ----------------------------------------------------------------------------

    def apply_config(self) -> None:
        """Hand changed parameters on to the user."""
        self.user_type.configure()

    def take_data(self) -> None:
        """Tell the kind of user that there are new data."""
        self.user_type.take_data()

    def user_loss(self) -> Any:
        """Return the loss in the form that the users of this party take."""
        return PerExampleLoss(self) if self.config.privacy == "record" else self.counted_loss

    @classmethod
    def _own_loss(cls) -> bool:
        # By name: the host wraps a worker's methods, and keeps their names.
        return cls.loss_terms.__qualname__ != FederatedStrategy.loss_terms.__qualname__

    def counted_loss(self, model: nn.Module, batch: Batch) -> LossParts | Tensor:
        """Return the loss, and count the rows for the cost ledger.

        Those of a protected party are not counted here: how far it gets may depend on its data.
        """
        if self.privacy is None:
            self.rows_trained += len(next(iter(batch.values())))
        return self.loss_terms(model, batch)

    def _rehearse(self) -> None:
        """Let mistakes of code and configuration show, before errors of the data are kept back."""
        if self.privacy is None or self._data is None or self.rehearsed is None:
            return
        wanted = self._data.samples.shape[1:], self._data.samples.dtype, self.config
        if self.rehearsed != wanted:
            rehearse(self)
            self.rehearsed = wanted

    @property
    def silence(self) -> AbstractContextManager[Any]:
        """What keeps errors of a protected party's local work from showing; else it does nothing.

        Under ``privacy`` an error would tell of the data, see
        :mod:`orchestra_strategy.privacy.silence`.
        """
        return nullcontext() if self.privacy is None else self.privacy.silence

    def silence_of(self, unit: str) -> AbstractContextManager[Any]:
        """Return :attr:`silence` where ``unit`` is what is protected."""
        return self.silence if self.config.privacy == unit else nullcontext()

    @contextmanager
    def local_training(self, user: int | None) -> Iterator[LossFn]:
        """Surround a user's local steps with the hooks; gives the loss."""
        with self.silence:
            self.before_local_training(user)
        yield self.counted_loss
        with self.silence:
            self.after_local_training(user)

    def local_batches(self) -> Iterator[Batch]:
        """Return the batches of the round under way."""
        step, steps = self._host_steps
        if self.config.privacy == "record":
            return self._poisson_batches(self.local_steps())
        return self.require_data().training_batches(
            step, steps, passes=self.config.local_epochs, epoch=self._epoch, **self._order()
        )

    def local_steps(self) -> int:
        """Return how many batches the round under way has."""
        step, steps = self._host_steps
        data, config = self.require_data(), self.config
        total = num_batches(len(data), config.batch_size, config.local_epochs)
        first = step * total // data.steps_per_epoch
        return min((step + steps) * total // data.steps_per_epoch, total) - first

    def next_batch(self, position: int) -> Batch:
        """Return one batch of an endless walk over the party's data."""
        if self.config.privacy == "record":
            return next(self._poisson_batches(1))
        return self.require_data().batch_at(position, **self._order())

    def _poisson_batches(self, steps: int) -> Iterator[Batch]:
        """Draw batches by chance; their sizes are secret."""
        assert self.privacy is not None
        data = self.require_data()
        return (data.batch(rows, self.exe_device) for rows in self.privacy.batches(steps))

    def _order(self) -> dict[str, Any]:
        return {
            "batch_size": self.config.batch_size,
            "streams": self.streams,
            "party": self.party,
            "device": self.exe_device,
        }

    def _losses(self) -> dict[str, float]:
        means = self.user_type.user.loss_means
        return {f"train_{'loss' if k == 'total' else k}": value for k, value in means.items()}

    def _health(self) -> dict[str, float]:
        """Measure the party's own network after its local steps; collapse stops the training."""
        samples, most = self.require_data().samples, self.config.health_samples
        health = measure_health(self, samples, most)
        enough = min(len(samples), most) >= _ROWS_TO_JUDGE
        self.collapse = collapse_reason(health) if enough and health is not None else None
        return health_metrics(health)

    def _send(self, phase: Any, samples: int | None = None) -> Any:
        """Pack the payload; without ``samples`` it is a plain mean that it goes into."""
        trained = phase == "round"
        arrays = {**self.user_type.arrays(trained), **self.extras()}
        weight = self.num_samples() if samples is None else samples
        if self.privacy is not None:
            weight = self.privacy.weight()
        self._sent = Sent(self.rounds_done, phase, weight)
        payload = Payload(arrays, self.rounds_done, phase, weight)
        # With "leave_out" it is the server that looks for NaN, and does without this party.
        finite = self.config.on_bad_reply == "fail"
        weighted = samples is not None
        return self.route.pack(
            *(payload, self.manifest(trained), weighted, self._who(), finite),
            ring=Ring(self.config.ring_parties, self.config.ring_limit),
        )

    def _who(self) -> str:
        return f"party `{self.config.party}`" if self.config.party else "this party"
