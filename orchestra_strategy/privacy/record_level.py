"""Record-level privacy: DP-SGD with Poisson-sampled batches.

M. Abadi et al., "Deep Learning with Differential Privacy", CCS 2016,
https://arxiv.org/abs/1607.00133, algorithm 1. Neighbours differ by one record of a party. How many
records a party has counts as known.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from orchestra_strategy.algorithms.objective import Batch, LossParts, Objective
from orchestra_strategy.errors import ParameterError
from orchestra_strategy.privacy.accounting import Release
from orchestra_strategy.privacy.mechanism import GaussianMechanism
from orchestra_strategy.privacy.noise_source import NoiseSource
from orchestra_strategy.privacy.per_example.clipper import PerExampleClipper
from orchestra_strategy.privacy.per_example.loop import (
    ClippedMean,
    mean_loss,
    refuse_batch_statistics,
)
from orchestra_strategy.privacy.silence import Silence, work_by_row

__all__ = ["RecordLevelPrivacy", "poisson_batches", "sampling_probability"]


def sampling_probability(num_samples: int, batch_size: int) -> float:
    """Return q = B / n, at most 1, with which a record is in a batch.

    >>> sampling_probability(100, 16), sampling_probability(10, 16)
    (0.16, 1.0)
    """
    return min(1.0, batch_size / num_samples)


def poisson_batches(
    num_samples: int, probability: float, steps: int, source: NoiseSource
) -> Iterator[npt.NDArray[np.int64]]:
    """Draw batches: each record is in each of them with ``probability``, independently.

    Amplification by sampling holds only against who does not know the sample, so it is drawn from
    the same secret source as the noise. A batch may be empty.

    Args:
        num_samples: n.
        probability: q in (0, 1].
        steps: Number of batches.
        source: Where the randomness comes from.

    Yields:
        Positions, sorted, int64.
    """
    for _ in range(steps):
        yield np.flatnonzero(source.uniform(num_samples) < probability).astype(np.int64)


class RecordLevelPrivacy:
    """Makes one private gradient of a batch: clip each example's, sum, add noise, divide.

    Args:
        model: The model that is trained.
        clip_norm: C, the largest L2 norm of one example's gradient.
        noise_multiplier: z; the noise on the sum has standard deviation z * C.
        num_samples: n, how many records batches are drawn from.
        batch_size: B, the expected number of records in a batch: the sum is divided by it, and not
            by the batch's real size, which is a secret.
        mechanism: Draws the noise and notes it.
        silence: Keeps errors of single records back.
    """

    def __init__(
        self,
        model: nn.Module,
        clip_norm: float,
        noise_multiplier: float,
        num_samples: int,
        batch_size: int,
        mechanism: GaussianMechanism,
        silence: Silence | None = None,
    ) -> None:
        self.clipper = PerExampleClipper(model, clip_norm)
        probability = sampling_probability(num_samples, batch_size)
        self.release = Release(noise_multiplier, probability)
        self.expected_batch_size = probability * num_samples
        self.mechanism = mechanism
        self.silence = Silence() if silence is None else silence

    def gradient(self, objective: Objective, batch: Batch) -> tuple[list[Tensor], LossParts | None]:
        """Return the private gradient by parameter, and the mean loss (None without a record).

        The loss is for the log at the party: it is not private. A record whose gradient is not
        finite, or that raises an error, counts as zero.

        Args:
            objective: It must have ``per_example``; see
                :mod:`~orchestra_strategy.privacy.per_example.clipper`.
            batch: Tensors of B >= 0 rows.

        Raises:
            ParameterError: The objective couples the examples of a batch.
            ModelError: The model has BatchNorm.
        """
        if not hasattr(objective, "per_example"):
            raise ParameterError(
                "Expected an objective with `per_example` for record-level privacy, got "
                f"{type(objective).__name__}: a loss that couples the examples of a batch has no "
                "gradient of one example to clip. Use privacy='user', or another objective."
            )
        refuse_batch_statistics(self.clipper.model)  # of the model, not of the data: it shows
        parameters = list(self.clipper.model.parameters())
        total = [torch.zeros_like(p, dtype=torch.float64) for p in parameters]
        losses: list[LossParts] = []
        for rows, (mean, loss) in self._clipped(objective, batch):
            total = [t + g.double() * rows for t, g in zip(total, mean, strict=True)]
            losses.append(loss)
        noisy = self.mechanism.add_noise(total, self.clipper.clip_norm, self.release)
        return [
            (g / self.expected_batch_size).to(p) for g, p in zip(noisy, parameters, strict=True)
        ], (mean_loss(losses) if losses else None)

    def _clipped(self, objective: Any, batch: Batch) -> Iterator[tuple[int, ClippedMean]]:
        """Yield numbers of rows with the mean of their clipped gradients."""
        model = self.clipper.model
        # What moves with every step has to move without records, too.
        move_on = getattr(objective, "empty_step", lambda model: None)
        if not len(next(iter(batch.values()))):
            move_on(model)
            return
        before: dict[str, Any] = getattr(objective, "state_dict", dict)()

        def put_back() -> None:
            if before:
                objective.load_state_dict(before)

        def clip(rows: Batch) -> tuple[int, ClippedMean]:
            return len(next(iter(rows.values()))), self.clipper(objective, rows)

        failures = self.silence.failures
        yield from work_by_row(batch, clip, self.silence, put_back)
        if self.silence.failures > failures:
            put_back()
            move_on(model)

    def describe(self) -> str:
        """Return what it does, in one sentence."""
        z, q = self.release
        return (
            f"record level: each example's gradient clipped to an L2 norm of "
            f"{self.clipper.clip_norm:g}, Gaussian noise of standard deviation "
            f"{z * self.clipper.clip_norm:g} on the sum of a Poisson sample of probability {q:g}"
        )
