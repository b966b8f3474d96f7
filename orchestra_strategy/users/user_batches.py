"""Batches as users see them: named tensors, whatever form the data loader gives them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from orchestra_strategy.algorithms.devices import sent_to
from orchestra_strategy.algorithms.objective import Batch, LossParts
from orchestra_strategy.errors import DataError, ParameterError

__all__ = [
    "StepLog",
    "as_batch",
    "cyclic_slices",
    "data_key",
    "mean_losses",
    "num_rows",
    "read_samples",
    "sorted_labels",
]


def data_key(batch: Batch) -> str:
    """Return the name of the data: ``input_ids`` (text) or ``inputs``.

    Raises:
        DataError: The batch has neither.
    """
    for key in ("input_ids", "inputs"):
        if key in batch:
            return key
    raise DataError(f"Expected a batch with `inputs` or `input_ids`, got {sorted(batch)}.")


def num_rows(batch: Batch) -> int:
    """Return the number of samples in a batch."""
    return len(batch[data_key(batch)])


def as_batch(raw: Any, setup: Mapping[str, Any]) -> dict[str, Tensor]:
    """Normalise what a data loader yields, and move it to the user's device.

    Args:
        raw: Named tensors, or ``(x, y)``, ``(x,)`` or ``x``: ``inputs`` and ``labels``.
        setup: ``device`` and ``dtype``; the dtype is for floating-point tensors only.

    Raises:
        DataError: Another form, or tensors with different numbers of rows.
    """
    if isinstance(raw, Tensor):
        raw = (raw,)
    if isinstance(raw, Mapping):
        named = dict(raw)
    elif isinstance(raw, (tuple, list)) and 1 <= len(raw) <= 2:
        named = dict(zip(("inputs", "labels"), raw, strict=False))
    else:
        form = f"{type(raw).__name__} of length {len(raw)}" if hasattr(raw, "__len__") else raw
        raise DataError(f"Expected a batch to be a dict, (x, y), (x,) or a tensor, got {form}.")
    for name, tensor in named.items():
        if not isinstance(tensor, Tensor) or tensor.ndim == 0:
            raise DataError(
                f"Expected `{name}` of a batch to be a tensor with a row per sample, got "
                f"{type(tensor).__name__}."
            )
    rows = {name: len(tensor) for name, tensor in named.items()}
    data_key(named)
    if len(set(rows.values())) != 1:
        raise DataError(f"Expected all tensors of a batch to have the same rows, got {rows}.")
    device, dtype = setup.get("device"), setup.get("dtype")
    return {
        name: sent_to(t, device, dtype if t.is_floating_point() else None)
        for name, t in named.items()
    }


def read_samples(
    dataloader: Iterable[Any], count: int | None, setup: Mapping[str, Any], owner: str
) -> dict[str, Tensor]:
    """Take a user's first samples from its data loader.

    Args:
        dataloader: Yields batches in any form of :func:`as_batch`; read no further than needed.
        count: How many samples, None for all.
        setup: ``device`` and ``dtype``.
        owner: The user, for messages.

    Returns:
        Named tensors of ``count`` rows; with ``ids`` (count,) int64, the samples' positions in this
        order, if the loader gives none of its own.

    Raises:
        DataError: The user owns fewer samples, or none.
    """
    batches: list[dict[str, Tensor]] = []
    owned = 0
    for raw in dataloader:
        batches.append(as_batch(raw, setup))
        if batches[-1].keys() != batches[0].keys():
            raise DataError(
                f"Expected all batches of {owner} to hold the same tensors, got "
                f"{sorted(batches[0])} and {sorted(batches[-1])}."
            )
        owned += num_rows(batches[-1])
        if count is not None and owned >= count:
            break
    if owned == 0 or (count is not None and owned < count):
        raise DataError(
            f"Expected `num_data_points` to be at most what {owner} owns, got "
            f"{'all' if count is None else count} of {owned} samples."
        )
    samples = {name: torch.cat([b[name] for b in batches])[:count] for name in batches[0]}
    samples.setdefault("ids", torch.arange(num_rows(samples), device=setup.get("device")))
    return samples


def cyclic_slices(samples: Batch, size: int, steps: int) -> Iterator[dict[str, Tensor]]:
    """Walk through the samples in slices of ``size``, round and round.

    Each slice begins ``size`` samples after the one before, modulo their number; one that reaches
    the end is cut there. The field's attacks replay the steps from ``local_hyperparams`` with these
    very slices, so a slice must not go on with the first samples.

    >>> [b["inputs"].tolist() for b in cyclic_slices({"inputs": torch.arange(5)}, 2, 5)]
    [[0, 1], [2, 3], [4], [1, 2], [3, 4]]
    """
    rows = num_rows(samples)
    for step in range(steps):
        start = step * size % rows
        yield {name: tensor[start : start + size] for name, tensor in samples.items()}


def sorted_labels(labels: Tensor | None) -> Tensor | None:
    """Sort labels, so that they tell nothing about the order of the samples."""
    return None if labels is None else labels.detach().sort(dim=-1)[0]


@dataclass
class StepLog:
    """What happened in the local steps of one query.

    Attributes:
        losses: The loss of each step, detached.
        rows: Samples of each step.
        labels: Sorted labels of each step; None without labels.
        key: The name of the data; ``inputs`` if there was no step.
    """

    losses: list[LossParts] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    labels: list[Tensor] | None = None
    key: str = "inputs"

    def add(self, batch: Batch, loss: LossParts, keep_labels: bool) -> None:
        """Note one step."""
        parts = {name: part.detach() for name, part in loss.parts.items()}
        self.losses.append(LossParts(loss.total.detach(), parts))
        self.rows.append(num_rows(batch))
        self.key = data_key(batch)
        labels = sorted_labels(batch.get("labels"))
        if keep_labels and labels is not None:
            self.labels = [*(self.labels or []), labels]


def mean_losses(losses: Sequence[LossParts]) -> dict[str, float]:
    """Return the mean of ``total`` and of each part; empty without a step.

    Raises:
        ParameterError: The steps' losses have different parts.
    """
    rows = [{"total": loss.total, **loss.parts} for loss in losses]
    for row in rows:
        if row.keys() != rows[0].keys():
            raise ParameterError(
                "Expected the loss of each step to have the same parts, got "
                f"{sorted(losses[0].parts)} and {sorted(row.keys() - {'total'})}; give a part that "
                "is not there as zero."
            )
    return {
        name: sum(row[name].item() for row in rows) / len(rows)
        for name in (rows[0] if rows else ())
    }
