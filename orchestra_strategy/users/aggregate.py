"""Many virtual users in one place, of whom only the mean update is shared."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from orchestra_strategy.algorithms.objective import Batch, Objective
from orchestra_strategy.errors import ParameterError, PrivacyError
from orchestra_strategy.privacy.user_level import UserLevelPrivacy
from orchestra_strategy.rng import Streams
from orchestra_strategy.users.dataloader import Dataloaders, checked_indices, loader_by_index
from orchestra_strategy.users.messages import SharedData, TrueUserData
from orchestra_strategy.users.multi_step import UserMultiStep
from orchestra_strategy.users.objectives import as_objective
from orchestra_strategy.users.optimizers import OptimizerFn
from orchestra_strategy.users.settings import AggregateSettings
from orchestra_strategy.users.single_step import UserSingleStep
from orchestra_strategy.users.user_batches import StepLog, data_key, mean_losses, num_rows
from orchestra_strategy.users.user_means import UserOutcome, UserOutcomes, joined

__all__ = ["MultiUserAggregate", "Work", "Works"]

Work = Callable[[], UserOutcome]
"""Does one user's work, or waits for it; raises what the user raised."""

Works = Callable[[Sequence[int], Mapping[str, Any], Sequence[Tensor]], Iterable[tuple[int, Work]]]
"""(users, payload, buffers to start from) -> each user and its work, in the order of the users."""


class MultiUserAggregate(UserMultiStep):
    """Shares the weighted mean of several users' updates (``multiuser_aggregate``).

    With one local step (the field's default) each user is a :class:`UserSingleStep`: what is shared
    is the mean of their gradients, each on all ``num_data_points`` of its samples. With more, or an
    optimizer of the caller's, it is a :class:`UserMultiStep`, and the mean is that of differences.

    Every user starts from the server's parameters and from the same buffers: the server's, or the
    aggregate's own, which are the mean of the users' after each query. There is one copy of the
    model, so a user's optimizer state ends with its steps, and each query finds it empty.

    Args:
        model: See :class:`UserSingleStep`.
        loss: See :class:`UserSingleStep`; shared by all users unless ``objective_for`` is given.
        dataloaders: One per user: a list in the order of ``user_indices``, a mapping by user index,
            or a callable from user index to data loader, called when the user's turn comes.
        setup: See :class:`UserSingleStep`.
        cfg_user: Besides that of :class:`UserMultiStep`: ``aggregate_weights`` (``"uniform"`` or
            ``"num_samples"``), ``users_per_round`` (all), ``min_users`` (all of those).
        user_indices: The users, in any order; no index twice.
        optimizer_fn: See :class:`UserMultiStep`.
        generator: Source of all users' noise; by default each user has its own.
        streams: Where the draw of a round's users comes from, and their noise; see
            :class:`UserSingleStep`.
        keep_true_data: Whether ``true_user_data`` holds all users' data and labels, one after the
            other.
        objective_for: Gives a user its own objective for the time of its steps. What is saved when
            the steps end, or fail, is up to the context manager.
        shares: ``"gradient"`` or ``"update"``, whatever the number of steps says.

    Attributes:
        users_done: Users whose updates are in the last mean.
        failed_users: Why the others of the last query are not, by index.
        works: How a query's users are gone through, if their owner sets it; by default one after
            the other.

    Raises:
        ParameterError: No users, an index twice, too few data loaders, a bad configuration, or
            gradients of more than one step.
    """

    works: Works | None = None

    def __init__(
        self,
        model: nn.Module,
        loss: Any,
        dataloaders: Dataloaders,
        setup: Mapping[str, Any],
        cfg_user: Any,
        user_indices: Iterable[int],
        *,
        optimizer_fn: OptimizerFn | None = None,
        generator: torch.Generator | None = None,
        streams: Streams | None = None,
        keep_true_data: bool = False,
        objective_for: Callable[[int], AbstractContextManager[Objective]] | None = None,
        shares: Literal["gradient", "update"] | None = None,
    ) -> None:
        self.user_indices = checked_indices(user_indices)
        self.dataloader_of = loader_by_index(dataloaders, self.user_indices)
        super().__init__(
            model,
            loss,
            (),  # each user has its own
            setup,
            self.user_indices[0],
            cfg_user,
            optimizer_fn=optimizer_fn,
            generator=generator,
            streams=streams,
            keep_true_data=keep_true_data,
        )
        self.aggregation = AggregateSettings.read(cfg_user, len(self.user_indices))
        self.objective_for = objective_for
        self.shares = self._checked_shares(shares, optimizer_fn)
        self._differences: list[Tensor] = []
        self.users_done: list[int] = []
        self.failed_users: dict[int, str] = {}

    def compute_local_updates(
        self, server_payload: Mapping[str, Any]
    ) -> tuple[SharedData, TrueUserData]:
        """Answer one query of the server with the mean of the users' updates.

        Args:
            server_payload: See :meth:`UserSingleStep.compute_local_updates`.

        Returns:
            ``shared_data`` as of :class:`UserMultiStep`; ``num_data_points`` is that of all users,
            ``labels`` all users' sorted together, ``num_users`` how many are in the mean,
            ``local_hyperparams["labels"]`` has one entry per user (its sorted labels per step, or
            None); of gradients ``local_hyperparams`` is None. And ``true_user_data``.

        Raises:
            ReplyError: The payload does not fit the model.
            OrchestraError: Fewer than ``min_users`` succeeded; names the failed and why. Not with
                user-level privacy, where a user that fails counts as an update of zero.
        """
        self._refuse_weights()
        outcomes = UserOutcomes()
        with self._query(server_payload):
            start = self._buffers()
            users = self._users_of_this_query()
            for idx, work in self._works(users, server_payload, start):
                if self.update_privacy is not None:
                    self._add_protected(self.update_privacy, idx, work, start, outcomes)
                    continue
                try:
                    self._add_user(idx, work(), outcomes)
                except Exception as error:
                    outcomes.fail(idx, error)
            self.optimizer.state.clear()
            self.users_done, self.failed_users = outcomes.done, outcomes.failed
            outcomes.settle(self.aggregation.min_users)
            self.parts.set_buffers(outcomes.buffers.result())
        self.loss_means, self.steps_done = outcomes.loss_means(), outcomes.steps
        updates = outcomes.updates.result()
        if self.update_privacy is not None:
            expected = self.aggregation.users_per_round
            updates = self._noised(updates, len(outcomes.done), expected)
        shared = self._share(
            updates,
            num_data_points=outcomes.points,
            labels=joined(outcomes.labels) if self.settings.provide_labels else None,
            local_hyperparams=outcomes.local_hyperparams(),
            key=outcomes.key,
        )
        shared["metadata"]["num_users"] = len(outcomes.done)
        return shared, TrueUserData(
            data=joined([samples[data_key(samples)] for samples in outcomes.samples]),
            labels=joined([samples.get("labels") for samples in outcomes.samples]),
            buffers=self._new_buffers(),
        )

    def _checked_shares(
        self, shares: str | None, optimizer_fn: OptimizerFn | None
    ) -> Literal["gradient", "update"]:
        steps = self.steps.num_local_updates
        if shares is None:
            return "gradient" if steps == 1 and optimizer_fn is None else "update"
        if shares not in ("gradient", "update"):
            raise ParameterError(
                f"Expected `shares` to be 'gradient' or 'update', got {shares!r}; leave it out to "
                "have gradients of one local step and updates of more."
            )
        if shares == "gradient" and steps != 1:
            raise ParameterError(
                f"Expected `num_local_updates` to be 1 where gradients are shared, got {steps}."
            )
        return "gradient" if shares == "gradient" else "update"

    @property
    def num_users(self) -> int:
        """How many users there are."""
        return len(self.user_indices)

    def _dataset(self) -> Any:
        return getattr(self.dataloader_of(self.user_indices[0]), "dataset", None)

    def _users_of_this_query(self) -> list[int]:
        size = self.aggregation.users_per_round
        if size == len(self.user_indices):
            return self.user_indices
        query = self.counted_queries - 1
        generator = self.streams.for_numpy("aggregate", query, "users")
        chosen = generator.choice(len(self.user_indices), size, replace=False)
        return [self.user_indices[position] for position in sorted(chosen.tolist())]

    def _works(
        self, users: Sequence[int], payload: Mapping[str, Any], start: Sequence[Tensor]
    ) -> Iterable[tuple[int, Work]]:
        """Return each user and what does its work, in the order in which they are added up."""
        if self.works is not None:
            return self.works(users, payload, start)
        return ((idx, partial(self.work_of, idx, payload, start)) for idx in users)

    def work_of(self, idx: int, payload: Mapping[str, Any], start: Sequence[Tensor]) -> UserOutcome:
        """Run one user from the common start; its outcome is to be used before the next one's.

        Args:
            idx: The user.
            payload: The server's.
            start: The buffers that every user starts from.
        """
        self._go_back(payload, start)
        self.optimizer.state.clear()
        samples = self._read(self.dataloader_of(idx), idx)
        own = nullcontext(self.objective) if self.objective_for is None else self.objective_for(idx)
        with own as objective:
            update, log = self._outcome(as_objective(objective), samples, payload, idx)
        told = self.settings.provide_local_hyperparams and self.shares == "update"
        return UserOutcome(
            update,
            self.parts.buffers(),
            mean_losses(log.losses),
            len(log.rows),
            num_rows(samples),
            samples.get("labels"),
            data_key(samples),
            self._hyperparams(log) if told else None,
            samples if self.keep_true_data else None,
        )

    def _add_user(self, idx: int, found: UserOutcome, outcomes: UserOutcomes) -> None:
        """Add a user's outcome to the means."""
        if self.update_privacy is not None:
            found = replace(found, update=self.update_privacy.clip(found.update))
        uniform = self.aggregation.aggregate_weights == "uniform"
        outcomes.add(idx, found, 1 if uniform else found.points)

    def _outcome(
        self, objective: Objective, samples: Batch, payload: Mapping[str, Any], idx: int
    ) -> tuple[list[Tensor], StepLog]:
        """Return one user's gradient, or its difference after the local steps."""
        if self.shares == "update":
            log = self._run_steps(objective, samples, idx)
            return self._difference(payload["parameters"]), log
        gradient, loss = self._one_gradient(objective, samples, idx)
        log = StepLog()
        if loss is not None:
            log.add(samples, loss, keep_labels=False)
        return gradient, log

    def _add_protected(
        self,
        privacy: UserLevelPrivacy,
        idx: int,
        work: Work,
        start: Sequence[Tensor],
        outcomes: UserOutcomes,
    ) -> None:
        """Add a user of whom it must not show whether it fails: then its update is zero."""
        done = len(outcomes.done)
        with privacy.silence:
            self._add_user(idx, work(), outcomes)
        if len(outcomes.done) == done:
            zeros = [torch.zeros_like(p) for p in self.parts.parameters]
            outcomes.add_nothing(idx, zeros, start)

    def _refuse_weights(self) -> None:
        if self.update_privacy is not None and self.aggregation.aggregate_weights != "uniform":
            raise PrivacyError(
                "Expected `aggregate_weights` to be 'uniform' with user-level privacy, got "
                f"{self.aggregation.aggregate_weights!r}: noise for one clipped update does not "
                "cover a user that weighs more than the others."
            )

    @torch.no_grad()
    def _go_back(self, payload: Mapping[str, Any], start: Sequence[Tensor]) -> None:
        """Put the model where every user starts; the payload has been checked with the query."""
        for own, sent in zip(self.parts.parameters, payload["parameters"], strict=True):
            own.copy_(sent)
        self.parts.set_buffers(start)
        self.parts.train(payload.get("buffers") is None)

    @torch.no_grad()
    def _difference(self, server_parameters: Iterable[Tensor]) -> list[Tensor]:
        """Return local minus server parameters, in tensors that the next user's overwrites."""
        if not self._differences:
            self._differences = [torch.empty_like(p) for p in self.parts.parameters]
        for into, own, sent in zip(
            self._differences, self.parts.parameters, server_parameters, strict=True
        ):
            torch.sub(own, sent.to(own), out=into)
        return self._differences

    def _described(self) -> tuple[str, dict[str, Any], str, str]:
        one_step = self.shares == "gradient"
        _, settings, update, hyperparams = (
            UserSingleStep._described(self) if one_step else super()._described()
        )
        del settings["user_idx"]
        settings |= {
            "user_type": "multiuser_aggregate",
            "users": len(self.user_indices),
            "user_indices": f"{min(self.user_indices)}..{max(self.user_indices)}",
            "users_per_round": self.aggregation.users_per_round,
            "min_users": self.aggregation.min_users,
            "aggregate_weights": self.aggregation.aggregate_weights,
        }
        update = f"the mean over users of {update}, and their number; no single user's"
        return (
            f"{type(self).__name__} of {len(self.user_indices)} users",
            settings,
            update,
            hyperparams if one_step else f"{hyperparams}, user by user",
        )
