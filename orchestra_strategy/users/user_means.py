"""A weighted mean of lists of tensors that come one after the other."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from orchestra_strategy.algorithms.objective import Batch
from orchestra_strategy.errors import DataError, OrchestraError

__all__ = ["RunningMean", "UserOutcome", "UserOutcomes", "all_finite_sum", "joined"]


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


@dataclass(frozen=True)
class UserOutcome:
    """What one user's work has come to.

    Attributes:
        update: Its gradient or difference, a tensor per parameter; it may be overwritten when the
            next user works.
        buffers: The model's buffers after its steps; they may be the model's own.
        losses: The mean over its steps of each loss.
        steps: How many there were.
        points: Its samples.
        labels: Their labels, if it has any.
        key: The name of its data.
        hyperparams: What it tells of its steps, if asked for.
        samples: Its samples themselves, if asked for.
    """

    update: list[Tensor]
    buffers: list[Tensor]
    losses: dict[str, float]
    steps: int
    points: int
    labels: Tensor | None = None
    key: str = "inputs"
    hyperparams: dict[str, Any] | None = None
    samples: Batch | None = None


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

    def add(self, idx: int, found: UserOutcome, weight: float) -> None:
        """Add one user's outcome.

        Raises:
            DataError: The update is not finite, and would spoil the mean of all.
        """
        if not all_finite_sum(found.update):
            raise DataError(f"Expected a finite update, got one that is not from user {idx}.")
        self._loss_names = tuple(found.losses)
        losses = [torch.tensor(v, dtype=torch.float64) for v in found.losses.values()]
        self.losses.add(losses, weight)
        self.updates.add(found.update, weight)
        self.buffers.add(found.buffers, weight)
        self.done.append(idx)
        self.points += found.points
        self.steps += found.steps
        self.labels.append(found.labels)
        self.key = found.key
        if found.hyperparams is not None:
            self.hyperparams.append(found.hyperparams)
        if found.samples is not None:
            self.samples.append(found.samples)

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


def all_finite_sum(tensors: Sequence[Tensor]) -> bool:
    """Whether all values are finite; a finite sum says so at a tenth of the price.

    >>> all_finite_sum([torch.tensor([3e38, 3e38])])
    True
    >>> all_finite_sum([torch.tensor([1.0, -torch.inf])])
    False
    """
    # Any NaN or infinity is in the sum. Where finite values overflow in it, all are looked at.
    return all(math.isfinite(t.sum().item()) or bool(t.isfinite().all()) for t in tensors)


def joined(tensors: Sequence[Tensor | None]) -> Tensor | None:
    """Join all users' tensors; None if there are none, or a user has none."""
    present = [t for t in tensors if t is not None]
    return torch.cat(present) if present and len(present) == len(tensors) else None
