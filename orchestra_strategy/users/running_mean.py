"""A weighted mean of lists of tensors that come one after the other."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["RunningMean"]


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
