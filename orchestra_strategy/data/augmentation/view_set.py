"""View sets, and the checks that all views share."""

import math
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from orchestra_strategy.algorithms.devices import sent_to
from orchestra_strategy.errors import DataError, ParameterError

__all__ = [
    "ViewSet",
    "Views",
    "check_batch",
    "check_range",
    "check_square",
    "draw_pretext_target",
]


class ViewSet(NamedTuple):
    """Three views of one batch, ready for the model, and the pretext's answer.

    Attributes:
        x1: t(x), as are all views float32 of the shape that
            :func:`~orchestra_strategy.algorithms.model_input.to_model_input` gives.
        x2: t'(x).
        x3: pretext(t(x)), from its own draw of t.
        pretext_target: (B,) int64 in {0, 1, 2, 3}: which pretext change x3 had.
    """

    x1: Tensor
    x2: Tensor
    x3: Tensor
    pretext_target: Tensor


class Views(Protocol):
    """A callable that draws a view set of a batch of a party's samples."""

    name: ClassVar[str]

    @property
    def row_wise(self) -> bool:
        """Whether a row's views depend on that row and on its own draws alone.

        Rows' draws are then independent of each other and of all data, and identically distributed.
        Privacy needs it: what one row adds to a sum could not be bounded if it moved the others'.
        """
        ...

    def __call__(self, x: Tensor, generator: torch.Generator) -> ViewSet:
        """Return views of ``x`` (B, ...), as stored by the party; draw from ``generator`` alone."""
        ...


def check_range(option: str, value: Any, limit: float = math.inf) -> None:
    """Refuse an option's value that is no finite number in [0, ``limit``].

    Raises:
        ParameterError: Naming the option, the rule and the value.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (number and 0 <= value <= limit and math.isfinite(value)):
        rule = "a finite number >= 0" if math.isinf(limit) else f"a number in [0, {limit:g}]"
        raise ParameterError(f"Expected `{option}` to be {rule}, got {value!r}.")


def check_batch(x: Tensor, views: str, ranks: tuple[int, ...], kind: str) -> None:
    """Refuse a batch that is not for these views, and name the views that it is for.

    Args:
        x: The batch.
        views: The views' name.
        ranks: The ranks that they take.
        kind: Those ranks in words.

    Raises:
        DataError: If the rank is another, or the batch is empty.
    """
    shape = tuple(x.shape)
    if x.ndim not in ranks:
        other = {2: "tables use views='table'", 3: "images use views='grey' or 'colour'"}
        remedy = f"; for {other[min(x.ndim, 3)]}" if 2 <= x.ndim <= 4 else ""
        raise DataError(
            f"Expected `x` to be {kind} for views `{views}`, got shape {shape}{remedy}."
        )
    if len(x) == 0:
        raise DataError(
            f"Expected `x` to have at least one sample for views `{views}`, got shape {shape}."
        )


def check_square(x: Tensor, views: str) -> None:
    """Refuse images whose rotation by 90 degrees would have another shape.

    Raises:
        DataError: If height and width differ.
    """
    height, width = x.shape[-2:]
    if height != width:
        raise DataError(
            f"Expected `x` to be square images for views `{views}` (rotation by 90 degrees needs "
            f"H = W), got H={height}, W={width}; crop or pad them."
        )


def draw_pretext_target(x: Tensor, generator: torch.Generator) -> Tensor:
    """Draw (B,) int64 in {0, 1, 2, 3} for the rows of ``x``, on its device."""
    drawn = torch.randint(4, (len(x),), generator=generator, device=generator.device)
    return sent_to(drawn, x.device)
