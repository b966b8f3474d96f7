"""The projection memory M: a first-in first-out store that never leaves a party."""

from collections.abc import Mapping

import torch
from torch import Tensor

from orchestra_strategy.errors import ParameterError

__all__ = ["ProjectionMemory"]


class ProjectionMemory:
    """The target network's unit-norm projections of the last ``size`` distinct samples.

    A sample that comes in again replaces its older row, so that the rows always belong to
    different samples: the mean of k rows is then a mean over k samples, which is what the
    k-anonymity of local clustering rests on. Two samples of the same content have the same id, and
    count as one.

    Args:
        size: Capacity m, in rows.
        dim: Length of a projection.

    Attributes:
        rows: Projections, shape (<= m, dim), oldest first.
        ids: Which samples they belong to, shape (<= m,), int64, each once.

    >>> memory = ProjectionMemory(size=2, dim=1)
    >>> for i in (5, 6, 5):
    ...     memory.append(torch.full((1, 1), float(i)), torch.tensor([i]))
    >>> memory.ids.tolist()
    [6, 5]
    """

    def __init__(self, size: int, dim: int) -> None:
        if size < 1:
            raise ParameterError(f"Expected `memory_size` to be at least 1, got {size}.")
        self.size = size
        self.rows = torch.empty(0, dim)
        self.ids = torch.empty(0, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.rows)

    @torch.no_grad()
    def append(self, rows: Tensor, ids: Tensor) -> None:
        """Store ``rows`` (B, dim) of the samples ``ids`` (B,), and drop the oldest beyond m.

        Rows that are not finite, of a network that has diverged, are not stored.
        """
        if rows.shape != (len(ids), self.rows.shape[1]):
            raise ParameterError(
                f"Expected `rows` to be ({len(ids)}, {self.rows.shape[1]}), got "
                f"{tuple(rows.shape)}."
            )
        ids = ids.to(self.ids)
        # A copy in the memory's own place: it outlives the batch and the device it was made on.
        new = rows.detach().to(self.rows, copy=True)
        finite = new.isfinite().all(dim=1)
        if not finite.all():
            new, ids = new[finite], ids[finite]
        if len(torch.unique(ids)) < len(ids):  # copies of one sample in a batch: the last one stays
            last = sorted({int(sample): row for row, sample in enumerate(ids)}.values())
            new, ids = new[last], ids[last]
        kept = ~torch.isin(self.ids, ids)
        self.rows = torch.cat([self.rows[kept], new])[-self.size :]
        self.ids = torch.cat([self.ids[kept], ids])[-self.size :]

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a checkpoint needs: ``rows`` and ``ids``."""
        return {"rows": self.rows.clone(), "ids": self.ids.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take the rows and ids of :meth:`state_dict`."""
        rows, ids = state["rows"], state["ids"]
        if rows.ndim != 2 or rows.shape[1] != self.rows.shape[1] or len(rows) > self.size:
            raise ParameterError(
                f"Expected `rows` to be at most ({self.size}, {self.rows.shape[1]}), "
                f"got {tuple(rows.shape)}."
            )
        self.rows, self.ids = rows.clone(), ids.clone()
