"""What is noted of local steps."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from orchestra_strategy.algorithms.objective import Batch, LossParts
from orchestra_strategy.users.batches import data_key, num_rows, sorted_labels

__all__ = ["StepLog", "mean_losses"]


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
    """Return the mean of ``total`` and of each part; empty without a step."""
    rows = [{"total": loss.total, **loss.parts} for loss in losses]
    return {
        name: sum(row[name].item() for row in rows) / len(rows)
        for name in (rows[0] if rows else ())
    }
