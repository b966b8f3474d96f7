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
from contextlib import contextmanager
from typing import Any, ClassVar, Tuple  # noqa: UP035

import numpy as np
import torch
from torch import Tensor, nn

from orchestra_strategy.aggregation.weighted import AggregateWeights, weighted_mean
from orchestra_strategy.algorithms.ema import frozen_statistics
from orchestra_strategy.algorithms.model import network_of
from orchestra_strategy.algorithms.objective import Batch, LossParts, Objective
from orchestra_strategy.data.augmentation.view_set import ViewSet
from orchestra_strategy.data.batches import num_batches
from orchestra_strategy.errors import ParameterError
from orchestra_strategy.exchange.manifest import Entry, Manifest
from orchestra_strategy.exchange.payload import FloatArray, Payload
from orchestra_strategy.exchange.ring import Ring
from orchestra_strategy.exchange.routes import ROUTES, Sent
from orchestra_strategy.party.privacy import unit_of
from orchestra_strategy.party.user_types import USER_TYPES
from orchestra_strategy.party.worker import PartyWorker
from orchestra_strategy.threads import torch_threads

__all__ = ["FederatedStrategy"]

_log = logging.getLogger(__name__)

LossFn = Callable[[nn.Module, Batch], LossParts | Tensor]


class FederatedStrategy(PartyWorker):
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
        self.epoch = -1
        self.route = ROUTES[self.config.route]
        self._sent = Sent(0, "init")
        self._host_steps = (0, 1)
        self.optim_fn = getattr(builder_base, "optim_fn", None)
        self.check_privacy(self.config, self.model)
        self.objective: Objective = self.make_objective()
        self.set_up()
        self.privacy.check_objective(self.objective, self._own_loss())
        self.user_type = USER_TYPES[self.config.user_type](self)
        self.manifest()  # the route may refuse what would be sent
        self.privacy.check_entries(self.extra_entries(), self.protected_entries)

    # ---- Hooks -----------------------------------------------------------------------------

    def make_objective(self) -> Objective:
        """Return the objective; called once, after the model has been built."""
        raise NotImplementedError(f"{type(self).__name__} must define `make_objective`.")

    def set_up(self) -> None:
        """Make what the method keeps beside the objective; called once, right after it."""

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
        unit = unit_of(config)
        unit.check(config, model, cls.sends_unprotected(config.route))
        if hasattr(cls, "objective_class"):
            unit.check_objective(cls.objective_class, cls._own_loss())

    def kept_state(self) -> dict[str, Any]:
        """Return what a subclass keeps between rounds beside model, objective and optimizer.

        Tensors and plain values, in nested dictionaries and lists.
        """
        return {}

    def load_kept_state(self, state: dict[str, Any]) -> None:
        """Take the state of :meth:`kept_state`."""

    def common_state(self) -> dict[str, Any]:
        """Return the arrays beside the weights that all parties have after a round.

        A party that was away takes them from one that was not.
        """
        return {}

    def load_common_state(self, state: Mapping[str, Any]) -> None:
        """Take the arrays of :meth:`common_state`."""

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
        self.privacy.rehearse()
        if weights is not None:
            self.apply_weights(weights)
        if self.needs_initial_pass():
            return self._initial_round(len(data)), self.privacy.weight(len(data))
        self.privacy.begin_round()
        self._begin(cur_steps, train_steps)
        with torch_threads(self.config.torch_threads):
            with self.privacy.silence:
                self.start_round()
            samples = self.privacy.weight(self.user_type.run())
            self._metrics = self._losses() if self.privacy.tells_all else {}
            self.rounds_done = self.round_index
            with self.privacy.silence:
                self.finish_round()
            self.reports.rows_trained += self.privacy.rows_of_round()
            self._metrics |= self.privacy.end_round()
            self.reports.awaits_average = True
            return self._send("round", samples), samples

    def get_weights(self, return_numpy: bool = True) -> Any:
        """Return the payload without training; the first time this is round 0."""
        if self._data_error is not None:
            raise self._data_error
        self.privacy.rehearse()
        return self._initial_round() if self.needs_initial_pass() else self._send("sync")

    def _initial_round(self, samples: int | None = None) -> Any:
        """Do round 0: every user goes through its data once, without training."""
        with torch_threads(self.config.torch_threads):
            if self._data is not None:
                with self.privacy.silence:
                    self.start_round()
                for user, batches in self.user_type.all_data():
                    with self.privacy.silence, self.local_training(user):
                        self.initial_pass(batches)
            return self._send("init", samples)

    def _begin(self, cur_steps: int, train_steps: int) -> None:
        """Find the place of a call of ``train_step`` in the party's data."""
        step = cur_steps % self.require_data().steps_per_epoch
        self.epoch += step == 0
        self._host_steps = (step, train_steps)
        self.round_index = self.rounds_done + 1

    def set_weights(self, weights: Any) -> None:
        """Take the server's reply."""
        self.apply_weights(weights)

    def apply_weights(self, weights: Any, **kwargs: Any) -> None:
        """Take the server's reply: weights, and what came beside them.

        A party that was left out of the round takes the others' average, and recovers.

        Raises:
            ReplyError: It has another form than the manifest's.
        """
        reply = self.route.unpack(weights, self._sent, self.reports.reply_manifest)
        self.user_type.receive(reply.arrays)
        self.reports.note_average()
        self.receive_extras({e.name: reply.arrays[e.name] for e in self.reply_entries()})
        if reply.left_out is not None:
            self.reports.left_out[reply.round_index] = reply.left_out
            _log.warning("The reply of %s was left out. %s", self._who(), reply.left_out)
            self.recover()

    # ---- Inside ----------------------------------------------------------------------------

    def apply_config(self) -> None:
        """Hand changed parameters on to the user."""
        self.user_type.configure()

    def take_data(self) -> None:
        """Tell the kind of user that there are new data."""
        self.user_type.take_data()

    def manifest(self, trained: bool = True) -> Manifest:
        """Return the list of all that leaves this party after training, or before any."""
        return self.reports.manifest(trained)

    @classmethod
    def _own_loss(cls) -> bool:
        # By name: the host wraps a worker's methods, and keeps their names.
        return cls.loss_terms.__qualname__ != FederatedStrategy.loss_terms.__qualname__

    def counted_loss(self, model: nn.Module, batch: Batch) -> LossParts | Tensor:
        """Return the loss, and count the rows for the cost ledger.

        Those of a protected party are not counted here: how far it gets may depend on its data.
        """
        self.reports.rows_trained += self.privacy.rows_of_step(batch)
        return self.loss_terms(model, batch)

    @contextmanager
    def local_training(self, user: int | None) -> Iterator[LossFn]:
        """Surround a user's local steps with the hooks; gives the loss."""
        with self.privacy.silence:
            self.before_local_training(user)
        yield self.counted_loss
        with self.privacy.silence:
            self.after_local_training(user)

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

    def _losses(self) -> dict[str, float]:
        """Return the means of the losses, and the health of the party's own network."""
        means = self.user_type.user.loss_means
        losses = {f"train_{'loss' if k == 'total' else k}": value for k, value in means.items()}
        return losses | self.inspection.check_health()

    def _send(self, phase: Any, samples: int | None = None) -> Any:
        """Pack the payload; without ``samples`` it is a plain mean that it goes into."""
        trained = phase == "round"
        arrays = {**self.user_type.arrays(trained), **self.extras()}
        weight = self.privacy.weight(self.num_samples() if samples is None else samples)
        self._sent = Sent(self.rounds_done, phase, weight)
        payload = Payload(arrays, self.rounds_done, phase, weight)
        # With "leave_out" it is the server that looks for NaN, and does without this party.
        finite = self.config.on_bad_reply == "fail"
        weighted = samples is not None
        ring = Ring(self.config.ring_parties, self.config.ring_limit)
        return self.route.pack(
            payload, self.manifest(trained), weighted, self._who(), finite, ring=ring
        )

    def _who(self) -> str:
        return f"party `{self.config.party}`" if self.config.party else "this party"
