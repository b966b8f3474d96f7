"""A party's training data inside a worker: samples, batches, and its name for random streams."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from orchestra_strategy.algorithms.devices import sent_to
from orchestra_strategy.algorithms.objective import Batch
from orchestra_strategy.data.arrays import as_samples
from orchestra_strategy.data.batches import batch_slices, num_batches, round_batches
from orchestra_strategy.errors import DataError, ParameterError
from orchestra_strategy.rng import Streams

__all__ = ["PartyData", "fingerprint", "refuse_weights"]


@dataclass(frozen=True)
class PartyData:
    """Samples of one party and how many host steps make an epoch.

    Attributes:
        samples: Shape (n, ...), uint8 or float32.
        labels: Classes, shape (n,), where the strategy learns from them; else None.
        steps_per_epoch: FLModel's steps per epoch; a ``train_step`` call covers some of them.
    """

    samples: npt.NDArray[Any]
    steps_per_epoch: int = 1
    labels: npt.NDArray[np.int64] | None = None

    @classmethod
    def from_host(
        cls,
        x: Any,
        y: Any | None = None,
        sampling_rate: float | None = None,
        mend: bool = False,
    ) -> "PartyData":
        """Check what FLModel hands to ``build_dataset``.

        Args:
            x: Samples.
            y: Labels or None; only their number is looked at.
            sampling_rate: The share of the data in one of FLModel's steps.
            mend: Whether values that cannot be used are replaced, see
                :func:`~orchestra_strategy.data.arrays.as_samples`.

        Raises:
            DataError: The samples cannot be used, or there is another number of labels.
        """
        samples = as_samples(x, mend)
        if y is not None and len(np.shape(y)) > 0 and len(y) != len(samples):
            raise DataError(
                f"Expected `y` to have one label per sample, got {len(y)} labels for "
                f"{len(samples)} samples."
            )
        steps = 1 if sampling_rate is None else int(np.ceil(1.0 / sampling_rate))
        return cls(samples, steps)

    def __len__(self) -> int:
        return len(self.samples)

    @cached_property
    def content_ids(self) -> npt.NDArray[np.int64]:
        """For each sample, (n,), the position of the first one that equals it."""
        first: dict[bytes, int] = {}
        ids = np.empty(len(self.samples), np.int64)
        for i, sample in enumerate(self.samples):
            # Adding 0 turns -0.0 into 0.0, which is the same value.
            content = hashlib.blake2b((sample + 0).tobytes(), digest_size=16).digest()
            ids[i] = first.setdefault(content, i)
        return ids

    @property
    def num_different(self) -> int:
        """How many samples differ in content."""
        return len(np.unique(self.content_ids))

    def batch(self, index: npt.NDArray[np.int64], device: torch.device) -> Batch:
        """Return the samples at ``index`` as they are stored (B, ...), and their ``ids`` (B,).

        ``labels`` (B,) beside them where the strategy learns from labels.

        Samples of the same content have the same id: a copy is no other sample, and must not make a
        mean of few look like one of many.
        """
        inputs = sent_to(torch.from_numpy(self.samples[index]), device)
        batch = {"inputs": inputs, "ids": torch.from_numpy(self.content_ids[index])}
        if self.labels is not None:
            batch["labels"] = sent_to(torch.from_numpy(self.labels[index]), device)
        return batch

    def training_batches(
        self,
        host_step: int,
        host_steps: int,
        *,
        batch_size: int,
        passes: int,
        streams: Streams,
        party: str,
        epoch: int,
        device: torch.device,
    ) -> Iterator[Batch]:
        """Yield the batches that fall to ``host_steps`` of FLModel's steps from ``host_step`` on.

        An FLModel epoch is ``passes`` passes over the party's own data in its own batches. Where
        FLModel aggregates several times per epoch, each call does its share of them, so that all
        parties finish together whatever the size of their data.
        """
        total = num_batches(len(self.samples), batch_size, passes)
        first = host_step * total // self.steps_per_epoch
        last = min((host_step + host_steps) * total // self.steps_per_epoch, total)
        order = round_batches(len(self.samples), batch_size, passes, streams, party, epoch)
        for i, index in enumerate(order):
            if first <= i < last:
                yield self.batch(index, device)

    def batch_at(
        self, position: int, *, batch_size: int, streams: Streams, party: str, device: torch.device
    ) -> Batch:
        """Return batch number ``position`` of an endless walk: pass after pass, each reshuffled."""
        epoch, index = divmod(position, num_batches(len(self.samples), batch_size))
        order = round_batches(len(self.samples), batch_size, 1, streams, party, epoch)
        return self.batch(next(islice(order, index, None)), device)

    def inference_batches(self, batch_size: int, device: torch.device) -> Iterator[Batch]:
        """Yield all samples once, in order."""
        for rows in batch_slices(len(self.samples), batch_size):
            yield self.batch(np.arange(rows.start, rows.stop, dtype=np.int64), device)


def refuse_weights(s_w: Any, sampler_method: str) -> None:
    """Refuse what FLModel can ask of a data loader, and a party does not do.

    Args:
        s_w: FLModel's ``sample_weight``.
        sampler_method: Its ``sampler_method``.

    Raises:
        ParameterError: Samples are to be weighted, or drawn in another way.
    """
    if s_w is not None and len(np.shape(s_w)) > 0:
        raise ParameterError(
            "Expected no `sample_weight`, got one: the losses here weigh all samples alike; leave "
            "samples out, or put weights into an objective of your own."
        )
    if sampler_method != "batch":
        raise ParameterError(
            f"Expected `sampler_method` to be 'batch', got {sampler_method!r}: batches are drawn "
            "here, by `batch_size`; `privacy='record'` draws Poisson samples."
        )


def fingerprint(samples: npt.NDArray[Any], labels: npt.NDArray[np.int64] | None = None) -> str:
    """Return a digest of a party's data that names its random streams; it stays at the party."""
    digest = hashlib.sha256(repr((samples.shape, str(samples.dtype))).encode())
    digest.update(np.ascontiguousarray(samples).view(np.uint8).reshape(-1).data)
    if labels is not None:
        digest.update(labels.tobytes())
    return digest.hexdigest()
