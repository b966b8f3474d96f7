"""Prior knowledge of samples: the range of pixels, the scale of columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Columns", "Domain", "Pixels"]

_BEYOND = 0.2  # views are noisy: pixels may leave [0, 1] by so much
_TV_WEIGHT = 0.005
_NORM_WEIGHT = 0.01


class Domain(Protocol):
    """How guesses start, what they are kept to, and how the model takes them."""

    def start(self, count: int, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Return first guesses (count, ...)."""
        ...

    def model_input(self, guesses: Tensor) -> Tensor:
        """Return guesses (n, ...) on the scale that the model takes."""
        ...

    def unlikely(self, guesses: Tensor) -> Tensor:
        """Return how unlikely each guess is without any reply, shape (n,)."""
        ...

    def keep(self, guesses: Tensor) -> None:
        """Move guesses, in place, to where the search may be."""
        ...

    def finish(self, guesses: Tensor) -> Tensor:
        """Return guesses as samples."""
        ...


class Pixels:
    """Images (C, H, W): pixels in [0, 1], neighbours alike."""

    def start(self, count: int, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Return uniform noise."""
        return torch.rand(count, *shape, generator=generator)

    def model_input(self, guesses: Tensor) -> Tensor:
        """Return pixels in [-1, 1]."""
        return guesses * 2 - 1

    def unlikely(self, guesses: Tensor) -> Tensor:
        """Return the mean absolute difference between neighbouring pixels, weighted."""
        parts = (guesses.diff(dim=d).abs().flatten(1).mean(1) for d in (-1, -2))
        return _TV_WEIGHT * sum(parts, torch.zeros(len(guesses)))

    def keep(self, guesses: Tensor) -> None:
        """Cut pixels a little beyond [0, 1]."""
        guesses.clamp_(-_BEYOND, 1 + _BEYOND)

    def finish(self, guesses: Tensor) -> Tensor:
        """Cut pixels to [0, 1]."""
        return guesses.clamp(0, 1)


@dataclass(frozen=True)
class Columns:
    """Rows of a table (F,), of which the attacker knows each column's mean and width.

    Attributes:
        mean: Of each column, over samples of others, shape (F,).
        deviation: Likewise, above 0.
        length: Typical Euclidean norm of a row. The first layer's normalisation hides a row's
            length, so that without this an attack would find its direction alone.
    """

    mean: Tensor
    deviation: Tensor
    length: float

    @classmethod
    def of(cls, others: Tensor) -> "Columns":
        """Return what is known from other rows (m, F)."""
        length = float(others.norm(dim=1).mean())
        return cls(others.mean(0), others.std(0).clamp_min(1e-6), length)

    def start(self, count: int, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Return normal noise of each column's mean and width."""
        return self.mean + self.deviation * torch.randn(count, *shape, generator=generator)

    def model_input(self, guesses: Tensor) -> Tensor:
        """Return the rows as they are."""
        return guesses

    def unlikely(self, guesses: Tensor) -> Tensor:
        """Return how far a row's columns and its length are from usual, weighted."""
        usual = ((guesses - self.mean) / self.deviation).square().mean(1)
        length = (guesses.norm(dim=1) / self.length - 1).square()
        unlikely: Tensor = _NORM_WEIGHT * (0.1 * usual + length)
        return unlikely

    def keep(self, guesses: Tensor) -> None:
        """Leave them: columns have no limits."""

    def finish(self, guesses: Tensor) -> Tensor:
        """Leave them."""
        return guesses
