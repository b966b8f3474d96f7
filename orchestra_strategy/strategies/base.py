"""The template of every strategy here: one ``train_step``, which calls the federated user.

A strategy is a thin shell around an objective, a method and a user. What a subclass may override is
in :mod:`~orchestra_strategy.strategies.hooks`; what a method does of its own around local training,
in :mod:`~orchestra_strategy.strategies.method`.

This module must not import annotations from the future: SecretFlow reads ``train_step``'s.
"""

import inspect
import logging
from collections.abc import Iterable
from typing import Any, Tuple  # noqa: UP035

import numpy as np
from torch import nn

from orchestra_strategy import host
from orchestra_strategy.aggregation.weighted import AggregateWeights
from orchestra_strategy.errors import ParameterError
from orchestra_strategy.exchange.manifest import Entry, Manifest
from orchestra_strategy.exchange.payload import Payload
from orchestra_strategy.exchange.ring import Ring
from orchestra_strategy.exchange.routes import ROUTES, SERVER_ROUTE, Sent
from orchestra_strategy.party.own_server import answer_of_one
from orchestra_strategy.party.privacy import unit_of
from orchestra_strategy.party.user_types import USER_TYPES
from orchestra_strategy.strategies.class_checks import check_class
from orchestra_strategy.strategies.hooks import StrategyHooks
from orchestra_strategy.strategies.local_work import LocalWork
from orchestra_strategy.threads import torch_threads

__all__ = ["FederatedStrategy"]

_log = logging.getLogger(__name__)


class FederatedStrategy(LocalWork):
    """One party of a federated run.

    Args:
        builder_base: SecretFlow's ``TorchModel``, or a callable that returns the model. An
            ``optim_fn`` in it replaces our SGD.
        random_seed: Root seed; None means 42, so that all parties start from the same model.
        **kwargs: See :class:`PartyWorker`.

    Attributes:
        route: How its payload travels.
        optim_fn: The model builder's optimizer; None for our SGD.
    """

    def __init__(self, builder_base: Any, random_seed: int | None = None, **kwargs: Any) -> None:
        check_class(host.plain_class(self))
        super().__init__(builder_base, random_seed, **kwargs)
        self.rounds_done = 0
        self.round_index = 0
        self.epoch = -1
        self.route = ROUTES[self.config.route]
        self._sent = Sent(0, "init")
        self._unanswered: Any = None
        self._host_steps = (0, 1)
        self.optim_fn = getattr(builder_base, "optim_fn", None)
        self.check_privacy(self.config, self.model)
        self.objective = self._made_objective()
        self.method = self.method_class(self)
        self.set_up()
        self.privacy.check_objective(self.objective, self.overrides("loss_terms"))
        self.user_type = USER_TYPES[self.config.user_type](self)
        self.manifest()  # the route may refuse what would be sent
        noisy = {*self.method.protected_entries, *self.protected_entries}
        self.privacy.check_entries(self.sent_entries(), noisy)

    # ---- What is refused, on the driver already --------------------------------------------

    @classmethod
    def check_route(cls, route: str) -> None:
        """Refuse route ``secure`` for what only a server can do.

        Raises:
            ParameterError: The strategy weighs parties in a way of its own.
        """
        if route == "secure" and cls.own_aggregation() is not None:
            raise ParameterError(
                f"Expected {SERVER_ROUTE} for {cls.__name__}, got 'secure': it overrides "
                "`aggregate_weights`, which needs each party's weights, and an aggregator gives "
                "out the mean alone."
            )

    @classmethod
    def own_aggregation(cls) -> AggregateWeights | None:
        """Return the ``aggregate_weights`` of a subclass; None if it has the mean."""
        # The host wraps the methods of a worker's class.
        own: AggregateWeights = inspect.unwrap(cls.aggregate_weights)
        return None if own is StrategyHooks.aggregate_weights else own

    @classmethod
    def check_server(cls, server_agg_method: Any, config: Any) -> None:
        """Refuse a server that would ignore the strategy's own ``aggregate_weights``.

        Raises:
            ParameterError: It combines weights in another way.
        """
        own = cls.own_aggregation()
        if server_agg_method is None or own is None:
            return
        given = getattr(server_agg_method, "aggregate_weights", None)
        if _place_of(given) != _place_of(own):
            raise ParameterError(
                f"Expected `server_agg_method` to combine weights as `{cls.__name__}` does, which "
                f"overrides `aggregate_weights`, got {given!r}; give "
                "`server_aggregation(aggregate_weights=YourStrategy.aggregate_weights)`, or leave "
                "`server_agg_method` out of OrchestraFLModel."
            )

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
            unit.check_objective(cls.objective_class, cls.overrides("loss_terms"))

    # ---- What FLModel calls ----------------------------------------------------------------

    def train_step(
        self, weights: Any, cur_steps: int, train_steps: int, **kwargs: Any
    ) -> Tuple[np.ndarray, int]:  # type: ignore[type-arg]  # noqa: UP006
        """Do one federated round at this party.

        Args:
            weights: The server's reply, or None to go on from the present state. A strategy that
                is stepped by hand, without FLModel, is its own server then: it answers what it has
                sent last. So ``train_step(None, 0, 1)``, again and again, trains it alone, and so
                does handing its own payload back.
            cur_steps: FLModel's count of steps so far.
            train_steps: How many of FLModel's steps this call covers.
            **kwargs: FLModel's; parameters came in through the constructor or ``configure``.

        Returns:
            The payload, and the party's weight: its number of samples, or of users with
            ``privacy="user"``. On route ``server`` the payload is a dictionary: ``arrays``, float32
            by the manifest's names, and ``meta``, with ``phase`` (``"init"`` of round 0, in which a
            strategy with a memory fills it and does not train; else ``"round"``), ``round``,
            ``num_samples`` and ``version``. On route ``secure`` it is a list of float32 arrays:
            round and phase (2,), then those of the manifest in its order.

        Raises:
            DataError: There are no data, or they cannot be used.
            ReplyError: The reply has another form than the manifest's, or something that the
                manifest does not have would leave.
            PrivacyError: The budget does not allow a further round.
        """
        data = self.require_data()
        self.privacy.rehearse()
        alone = weights is None or weights is self._unanswered
        if alone and self._unanswered is not None:
            weights = answer_of_one(self, self._unanswered)
        if weights is not None:
            self.apply_weights(weights)
        if self._round_0_is_due():
            return self._initial_round(len(data)), self.privacy.weight(len(data))
        self.privacy.begin_round()
        self._begin(cur_steps, train_steps)
        with torch_threads(self.config.torch_threads):
            self.open_round()
            samples = self.privacy.weight(self.user_type.run())
            told = self._losses()
            self.rounds_done = self.round_index
            self._close_round()
            self.reports.rows_trained += self.privacy.rows_of_round()
            self.reports.tell(told | self.privacy.end_round())
            self.reports.awaits_average = True
            return self._send("round", samples), samples

    def get_weights(self, return_numpy: bool = True) -> Any:
        """Return the payload without training; the first time this is round 0."""
        if self._data_error is not None:
            raise self._data_error
        self.privacy.rehearse()
        return self._initial_round() if self._round_0_is_due() else self._send("sync")

    def _round_0_is_due(self) -> bool:
        return bool(self.method.needs_initial_pass() or self.needs_initial_pass())

    def _initial_round(self, samples: int | None = None) -> Any:
        """Do round 0: every user goes through its data once, without training."""
        with torch_threads(self.config.torch_threads):
            if self._data is not None:
                self.open_round()
                self.user_type.first_pass(len(self.first_passes()))
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
        reply = self.route.unpack(weights, self._sent, self.reports.reply_manifest)
        self._unanswered = None
        told = self.privacy.end_exchange(reply, self.reports.average)
        self.user_type.receive(self.privacy.incoming(reply))
        self.reports.note_average()
        self.reports.tell_more(told)
        self.privacy.follow(reply)
        self.method.receive({e.name: reply.arrays[e.name] for e in self.method.reply_entries()})
        self.receive_extras({e.name: reply.arrays[e.name] for e in self.reply_entries()})
        if reply.left_out is not None:
            self.reports.left_out[reply.round_index] = reply.left_out
            _log.warning("The reply of %s was left out. %s", self._who(), reply.left_out)
            self.user_type.recover()
            self.method.recover()
            self.recover()

    # ---- Inside ----------------------------------------------------------------------------

    def sent_entries(self) -> tuple[Entry, ...]:
        """Return the manifest's entries of all that travels to the server beside the weights."""
        return self._joined(self.method.entries(), self.extra_entries(), "extra_entries")

    def returned_entries(self) -> tuple[Entry, ...]:
        """Return the entries of all that comes back beside the weights."""
        return self._joined(self.method.reply_entries(), self.reply_entries(), "reply_entries")

    @staticmethod
    def _joined(
        of_method: tuple[Entry, ...], own: tuple[Entry, ...], hook: str
    ) -> tuple[Entry, ...]:
        _refuse_taken({e.name for e in of_method}, {e.name for e in own}, hook)
        return (*of_method, *own)

    def manifest(self, trained: bool = True) -> Manifest:
        """Return the list of all that leaves this party after training, or before any."""
        return self.reports.manifest(trained)

    def _send(self, phase: Any, samples: int | None = None) -> Any:
        """Pack the payload; without ``samples`` it is a plain mean that it goes into."""
        trained = phase == "round"
        of_method, own = self.method.arrays(), self.extras()
        _refuse_taken(of_method, own, "extras")
        moved = self.privacy.outgoing(self.user_type.arrays(trained), trained)
        arrays = {**moved, **of_method, **own}
        weight = self.privacy.weight(self.num_samples() if samples is None else samples)
        self._sent = Sent(self.rounds_done, phase, weight)
        payload = Payload(arrays, self.rounds_done, phase, weight)
        # With "leave_out" it is the server that looks for NaN, and does without this party.
        finite = self.config.on_bad_reply == "fail"
        weighted = samples is not None
        ring = Ring(self.config.ring_parties, self.config.ring_limit)
        wire = self.route.pack(
            payload,
            self.reports.payload_manifest(trained),
            weighted,
            self._who(),
            finite,
            ring=ring,
        )
        self._unanswered = None if host.is_worker(self) else wire
        return wire

    def _who(self) -> str:
        return f"party `{self.config.party}`" if self.config.party else "this party"


def _place_of(function: Any) -> tuple[Any, Any]:
    """Return where a function is defined: another process has another object of the same one."""
    plain = inspect.unwrap(function) if callable(function) else function
    return getattr(plain, "__module__", None), getattr(plain, "__qualname__", plain)


def _refuse_taken(of_method: Iterable[str], own: Iterable[str], hook: str) -> None:
    """Refuse names of a hook that are the method's: one would take the other's place."""
    taken = sorted(set(of_method) & set(own))
    if taken:
        raise ParameterError(
            f"Expected the names of `{hook}` to be free, got {', '.join(taken)}, which the method "
            "itself sends; name yours alone, `super()` gives nothing."
        )
