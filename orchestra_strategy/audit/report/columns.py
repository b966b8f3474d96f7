"""Errors of recovered table rows, column by column, in the columns' own units."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from orchestra_strategy.audit.attacks.reply_attack import Reply
from orchestra_strategy.audit.samples import Split

__all__ = ["ColumnError", "column_errors"]


@dataclass(frozen=True)
class ColumnError:
    """How near an attack came to a column's true values.

    Attributes:
        name: Of the column.
        attack: Median absolute error of the attack, in the column's units.
        guess: Median absolute error of guessing the mean of other rows, in the same units.
    """

    name: str
    attack: float
    guess: float


def column_errors(replies: Sequence[Reply], split: Split) -> tuple[ColumnError, ...]:
    """Compare what was recovered with the rows themselves; nothing for images.

    Args:
        replies: Attacked replies; of each sample the view that came nearest counts.
        split: The party's samples.
    """
    if split.units is None or not replies:
        return ()
    truth = torch.cat([reply.samples for reply in replies])
    found = torch.cat([_best_views(reply) for reply in replies])
    attack = (found - truth).abs().quantile(0.5, dim=0) * split.units
    guess = (split.others.mean(0) - truth).abs().quantile(0.5, dim=0) * split.units
    values = zip(split.columns, attack.tolist(), guess.tolist(), strict=True)
    return tuple(ColumnError(*column) for column in values)


def _best_views(reply: Reply) -> Tensor:
    """Return of each sample the recovered view that is nearest to what the network saw, (n, F)."""
    errors = (reply.found - reply.truth).square().mean(2)  # (n, V)
    return reply.found[torch.arange(len(errors)), errors.argmin(1)]
