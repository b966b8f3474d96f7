"""The projection memory M: a first-in first-out store that never leaves a party."""

from collections.abc import Mapping

import torch
from torch import Tensor

from orchestra_strategy.algorithms.devices import sent_to
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
        device: Where the rows lie: with the network that makes them.

    >>> memory = ProjectionMemory(size=2, dim=1)
    >>> for i in (5, 6, 5):
    ...     memory.append(torch.full((1, 1), float(i)), torch.tensor([i]))
    >>> memory.ids.tolist()
    [6, 5]
    """

    def __init__(self, size: int, dim: int, device: torch.device | str = "cpu") -> None:
        if size < 1:
            raise ParameterError(f"Expected `memory_size` to be at least 1, got {size}.")
        self.size = size
        self.dim = dim
        self.device = torch.device(device)
        self._rows = torch.empty(0, dim, device=device)
        self._ids = torch.empty(0, dtype=torch.int64, device=device)
        self._held = torch.empty(0, dtype=torch.bool, device=device)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def rows(self) -> Tensor:
        """Projections, shape (<= m, dim), oldest first."""
        return self._rows[self._held]

    @property
    def ids(self) -> Tensor:
        """Which samples they belong to, shape (<= m,), int64, each once."""
        return self._ids[self._held]

    def places(self) -> tuple[Tensor, Tensor]:
        """Return rows (<= m, dim), and which of them are held, (<= m,) bool.

        How many are is not known to the host, and so nobody waits for a GPU to tell. The others are
        0. On a CPU all are held.
        """
        return self._rows, self._held

    @torch.no_grad()
    def append(self, rows: Tensor, ids: Tensor) -> None:
        """Store ``rows`` (B, dim) of the samples ``ids`` (B,), and drop the oldest beyond m.

        Rows that are not finite, of a network that has diverged, are not stored. Of copies of one
        sample in a batch, the last one is.
        """
        if rows.shape != (len(ids), self.dim):
            raise ParameterError(
                f"Expected `rows` to be ({len(ids)}, {self.dim}), got {tuple(rows.shape)}."
            )
        ids = sent_to(ids, self.device)
        new = sent_to(rows.detach(), self.device, torch.float32)
        finite = new.isfinite().all(dim=1)
        new = torch.where(finite.unsqueeze(1), new, 0.0)
        newer = (ids.unsqueeze(1) == ids) & finite  # (B, B): is the other one of the same sample?
        replaced = ((self._ids.unsqueeze(1) == ids) & finite).any(dim=1)
        kept = torch.cat([self._held & ~replaced, finite & ~newer.triu(1).any(dim=1)])
        rows, ids = torch.cat([self._rows, new]), torch.cat([self._ids, ids])
        if self.device.type == "cpu":
            last = kept.nonzero().squeeze(1)[-self.size :]
        else:  # as many as there are at most: those that are not kept come first, and are 0
            last = kept.to(torch.uint8).argsort(stable=True)[-self.size :]
            rows = torch.where(kept.unsqueeze(1), rows, 0.0)
        self._rows, self._ids, self._held = rows[last], ids[last], kept[last]

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a checkpoint needs, on the CPU: ``rows`` and ``ids``."""
        return {"rows": self.rows.cpu(), "ids": self.ids.cpu()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take the rows and ids of :meth:`state_dict`."""
        rows, ids = state["rows"], state["ids"]
        if rows.ndim != 2 or rows.shape[1] != self.dim or len(rows) > self.size:
            raise ParameterError(
                f"Expected `rows` to be at most ({self.size}, {self.dim}), "
                f"got {tuple(rows.shape)}."
            )
        self._rows = sent_to(rows.clone(), self.device)
        self._ids = sent_to(ids.clone(), self.device)
        self._held = torch.ones(len(rows), dtype=torch.bool, device=self.device)
