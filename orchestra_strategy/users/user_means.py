"""A weighted mean of lists of tensors that come one after the other."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from orchestra_strategy.algorithms.objective import Batch
from orchestra_strategy.errors import DataError, OrchestraError
from orchestra_strategy.users.user_batches import StepLog, data_key, mean_losses, num_rows

__all__ = ["RunningMean", "UserOutcomes", "joined"]


class RunningMean:
    """Holds one sum however many terms there are.

    Floating-point tensors are summed in float64, so that neither the order nor the number of the
    terms shows in the mean. Integer tensors (BatchNorm's ``num_batches_tracked``) have no mean of
    their own type: the largest is kept, which for a counter is the count of the longest training.

    >>> mean = RunningMean()
    >>> mean.add([torch.tensor([1.0]), torch.tensor(5)], weight=1)
    >>> mean.add([torch.tensor([4.0]), torch.tensor(7)], weight=2)
    >>> mean.result()
    [tensor([3.]), tensor(7)]
    """

    def __init__(self) -> None:
        self._sums: list[Tensor] = []
        self._dtypes: list[torch.dtype] = []
        self.weight = 0.0

    @torch.no_grad()
    def add(self, tensors: Sequence[Tensor], weight: float) -> None:
        """Add one term.

        Args:
            tensors: Of the same number, shapes and dtypes in every term.
            weight: More than 0.
        """
        if not self._dtypes:
            self._dtypes = [t.dtype for t in tensors]
            self._sums = [
                t.double() * weight if t.is_floating_point() else t.clone() for t in tensors
            ]
        else:
            for total, t in zip(self._sums, tensors, strict=True):
                if t.is_floating_point():
                    total.add_(t, alpha=weight)
                else:
                    total.copy_(torch.maximum(total, t))
        self.weight += weight

    def result(self) -> list[Tensor]:
        """Return the mean, in the terms' dtypes."""
        return [
            (total / self.weight).to(dtype) if dtype.is_floating_point else total.clone()
            for total, dtype in zip(self._sums, self._dtypes, strict=True)
        ]


_logger = logging.getLogger(__name__)


@dataclass
class UserOutcomes:
    """Means and lists over the users so far; of tensors as large as the model, one sum each.

    Attributes:
        done: Users in the mean.
        failed: Why the others are not, by index.
        points: Samples of all users.
        steps: Steps of all users.
        hyperparams: One entry per user, if asked for.
        labels: Labels of each user.
        samples: Samples of each user, if asked for.
        key: The name of the data.
    """

    updates: RunningMean = field(default_factory=RunningMean)
    buffers: RunningMean = field(default_factory=RunningMean)
    losses: RunningMean = field(default_factory=RunningMean)
    done: list[int] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)
    points: int = 0
    steps: int = 0
    hyperparams: list[dict[str, Any]] = field(default_factory=list)
    labels: list[Tensor | None] = field(default_factory=list)
    samples: list[Batch] = field(default_factory=list)
    key: str = "inputs"
    _loss_names: tuple[str, ...] = ()
    _first_error: Exception | None = None

    def add(
        self,
        idx: int,
        samples: Batch,
        log: StepLog,
        update: Sequence[Tensor],
        buffers: Sequence[Tensor],
        weight: float,
    ) -> None:
        """Add one user's outcome.

        Raises:
            DataError: The update is not finite, and would spoil the mean of all.
        """
        if not all(torch.isfinite(u).all() for u in update):
            raise DataError(f"Expected a finite update, got one that is not from user {idx}.")
        losses = mean_losses(log.losses)
        self._loss_names = tuple(losses)
        self.losses.add([torch.tensor(v, dtype=torch.float64) for v in losses.values()], weight)
        self.updates.add(update, weight)
        self.buffers.add(buffers, weight)
        self.done.append(idx)
        self.points += num_rows(samples)
        self.steps += len(log.rows)
        self.labels.append(samples.get("labels"))
        self.key = data_key(samples)

    def add_nothing(self, idx: int, zeros: Sequence[Tensor], buffers: Sequence[Tensor]) -> None:
        """Add an update of zero in place of a protected user's that failed."""
        self.updates.add(zeros, 1)
        self.buffers.add(buffers, 1)
        self.done.append(idx)

    def fail(self, idx: int, error: Exception) -> None:
        """Note a user that raised."""
        # As text: an exception would keep the user's tensors alive through its traceback.
        self.failed[idx] = f"{type(error).__name__}: {error}"
        self._first_error = self._first_error or error

    def settle(self, min_users: int) -> None:
        """Report the users that failed.

        Raises:
            OrchestraError: Fewer than ``min_users`` succeeded; from the first user's error.
        """
        if not self.failed:
            return
        causes = "; ".join(f"user {idx}: {cause}" for idx, cause in self.failed.items())
        if len(self.done) < min_users:
            raise OrchestraError(
                f"Expected at least `min_users` = {min_users} users to succeed, got "
                f"{len(self.done)} of {len(self.done) + len(self.failed)}; failed: {causes}"
            ) from self._first_error
        _logger.warning(
            "%d of %d users failed and are left out of the mean: %s",
            len(self.failed),
            len(self.failed) + len(self.done),
            causes,
        )

    def loss_means(self) -> dict[str, float]:
        """Return the mean over the users of each loss."""
        if not self._loss_names:  # every one was an update of zero
            return {}
        means = self.losses.result()
        return {n: value.item() for n, value in zip(self._loss_names, means, strict=True)}

    def local_hyperparams(self) -> dict[str, Any] | None:
        """Return one entry for all: ``labels`` is a list with an entry per user."""
        if not self.hyperparams:
            return None
        size = max(entry["data_per_step"] for entry in self.hyperparams)
        labels = [entry["labels"] for entry in self.hyperparams]
        return {**self.hyperparams[0], "data_per_step": size, "labels": labels}


def joined(tensors: Sequence[Tensor | None]) -> Tensor | None:
    """Join all users' tensors; None if there are none, or a user has none."""
    present = [t for t in tensors if t is not None]
    return torch.cat(present) if present and len(present) == len(tensors) else None
