"""The user of federated averaging: several local steps per query."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from orchestra_strategy.algorithms.objective import Batch, Objective
from orchestra_strategy.rng import Streams
from orchestra_strategy.users.messages import SharedData, TrueUserData
from orchestra_strategy.users.optimizers import OptimizerFn, copied_state, set_options
from orchestra_strategy.users.settings import StepSettings
from orchestra_strategy.users.single_step import UserSingleStep
from orchestra_strategy.users.user_batches import (
    StepLog,
    as_batch,
    cyclic_slices,
    mean_losses,
    num_rows,
)

__all__ = ["UserMultiStep"]


class UserMultiStep(UserSingleStep):
    """Shares the difference local - server after several SGD steps (``local_update``).

    H. B. McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized
    Data", AISTATS 2017, https://arxiv.org/abs/1602.05629 (FedAvg). Clip and noise act on the
    gradient of every step, before the optimizer.

    Args:
        model: See :class:`UserSingleStep`.
        loss: See :class:`UserSingleStep`.
        dataloader: See :class:`UserSingleStep`; None if ``batches`` is given.
        setup: See :class:`UserSingleStep`.
        idx: The user's number.
        cfg_user: Besides that of :class:`UserSingleStep`: ``num_local_updates``,
            ``num_data_per_local_update_step``, ``local_learning_rate``.
        optimizer_fn: Makes the local optimizer of the parameters; by default plain SGD. It is made
            once, so that its state, momentum for instance, lives on from query to query.
        batches: Called in each query for the batches of its steps, one step each, in place of
            slices of ``num_data_points`` samples; they are streamed, not collected. Then the
            configuration's three numbers of data and steps are not read, ``num_data_points`` in the
            metadata is the number of rows that the steps took (a sample counts once per pass), data
            and labels of ``true_user_data`` are None, and a query without a batch is an update of
            zero.
        generator: See :class:`UserSingleStep`.
        streams: See :class:`UserSingleStep`.
        keep_true_data: See :class:`UserSingleStep`.

    Raises:
        ParameterError: A configuration entry is missing or out of its range.
    """

    shares: Literal["gradient", "update"] = "update"

    def __init__(
        self,
        model: nn.Module,
        loss: Any,
        dataloader: Iterable[Any] | None,
        setup: Mapping[str, Any],
        idx: int,
        cfg_user: Any,
        *,
        optimizer_fn: OptimizerFn | None = None,
        batches: Callable[[], Iterable[Batch]] | None = None,
        generator: torch.Generator | None = None,
        streams: Streams | None = None,
        keep_true_data: bool = True,
    ) -> None:
        streaming = batches is not None
        super().__init__(
            model,
            loss,
            None if streaming else dataloader,
            setup,
            idx,
            cfg_user,
            generator=generator,
            streams=streams,
            keep_true_data=keep_true_data,
        )
        points = self.settings.num_data_points
        self.steps = StepSettings.read(cfg_user, points, streaming, optimizer_fn is not None)
        self.batches = batches
        self._optimizer_fn = optimizer_fn or self._plain_sgd
        self.optimizer = self._optimizer_fn(self.model.parameters())

    def compute_local_updates(
        self, server_payload: Mapping[str, Any]
    ) -> tuple[SharedData, TrueUserData]:
        """Answer one query of the server with the outcome of the local steps.

        Args:
            server_payload: See :meth:`UserSingleStep.compute_local_updates`.

        Returns:
            ``shared_data``, with local minus server parameters as ``gradients`` and
            ``local_hyperparams = dict(lr, steps, data_per_step, labels=[sorted labels per step])``;
            and ``true_user_data``.

        Raises:
            ReplyError: The payload does not fit the model.
            DataError: The user owns too few samples, or lacks labels that the loss needs.
        """
        optimizer_before = self.optimizer_state()
        try:
            with self._query(server_payload):
                samples = None if self.batches else self._read(self.dataloader, self.user_idx)
                log = self._run_steps(self.objective, samples, self.user_idx)
        except BaseException:
            self.load_optimizer_state(optimizer_before)
            raise
        self.loss_means, self.steps_done = mean_losses(log.losses), len(log.losses)
        shared = self._share(
            self._protected(self._difference(server_payload["parameters"])),
            num_data_points=sum(log.rows) if samples is None else num_rows(samples),
            labels=self._all_labels(samples, log),
            local_hyperparams=self._hyperparams(log),
            key=log.key,
        )
        return shared, self._truth(samples)

    @property
    def num_local_updates(self) -> int | None:
        """Number of local steps; None if batches are streamed."""
        return self.steps.num_local_updates

    @property
    def num_data_per_local_update_step(self) -> int | None:
        """Samples per local step; None if batches are streamed."""
        return self.steps.num_data_per_local_update_step

    @property
    def local_learning_rate(self) -> float | None:
        """Learning rate by the configuration; None if the optimizer is the caller's."""
        return self.steps.local_learning_rate

    def optimizer_state(self) -> dict[str, Any]:
        """Return a copy of the optimizer's state, for a checkpoint."""
        return copied_state(self.optimizer)

    def load_optimizer_state(self, state: Mapping[str, Any]) -> None:
        """Take the state of :meth:`optimizer_state`."""
        self.optimizer.load_state_dict(dict(state))

    def set_optimizer_options(self, **options: Any) -> None:
        """Change options of the optimizer, such as ``lr``; its state stays.

        Raises:
            ParameterError: The optimizer has no such option.
        """
        set_options(self.optimizer, options)

    def _plain_sgd(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        rate = self.steps.local_learning_rate
        assert rate is not None  # read whenever no optimizer_fn is given
        return torch.optim.SGD(parameters, lr=rate)

    def _run_steps(self, objective: Objective, samples: Batch | None, idx: int) -> StepLog:
        """Run the local steps: the one loop for slices of samples and for streamed batches."""
        generator = self._noise_generator(idx)
        keep_labels = self.settings.provide_local_hyperparams or (
            samples is None and self.settings.provide_labels
        )
        log = StepLog()
        for batch in self._stream(samples):
            gradients, loss = self._gradient(objective, batch, generator)
            for parameter, gradient in zip(self.parts.parameters, gradients, strict=True):
                parameter.grad = gradient
            self.optimizer.step()
            if loss is not None:
                log.add(batch, loss, keep_labels)
        self.optimizer.zero_grad(set_to_none=True)
        return log

    def _stream(self, samples: Batch | None) -> Iterable[Batch]:
        if samples is None:
            assert self.batches is not None
            return (as_batch(batch, self.setup) for batch in self.batches())
        steps, size = self.steps.num_local_updates, self.steps.num_data_per_local_update_step
        assert steps is not None
        assert size is not None
        # Only with num_data_points = "all" can the user own fewer than a step takes.
        return cyclic_slices(samples, min(size, num_rows(samples)), steps)

    @torch.no_grad()
    def _difference(self, server_parameters: Iterable[Tensor]) -> list[Tensor]:
        own = self.parts.parameters
        return [p.detach() - s.to(p) for p, s in zip(own, server_parameters, strict=True)]

    def _hyperparams(self, log: StepLog) -> dict[str, Any]:
        return {
            "lr": self.optimizer.param_groups[0]["lr"],
            "steps": len(log.rows),
            "data_per_step": max(log.rows, default=0),
            "labels": log.labels,
        }

    @staticmethod
    def _all_labels(samples: Batch | None, log: StepLog) -> Tensor | None:
        if samples is not None:
            return samples.get("labels")
        return torch.cat(log.labels) if log.labels else None

    def _described(self) -> tuple[str, dict[str, Any], str, str]:
        user, settings, _, _ = super()._described()
        settings |= {
            "user_type": "local_update",
            "num_local_updates": self.steps.num_local_updates or "one per streamed batch",
            "num_data_per_local_update_step": self.steps.num_data_per_local_update_step
            or "the streamed batch",
            "optimizer": type(self.optimizer).__name__,
            "lr": self.optimizer.param_groups[0]["lr"],
        }
        update = "local minus server parameters after the local steps, one tensor per parameter"
        return user, settings, update, "learning rate, steps, samples and sorted labels per step"
