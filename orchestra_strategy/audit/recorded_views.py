"""Views that are recorded, in the place of a party's own."""

import torch
from torch import Tensor

from orchestra_strategy.data.augmentation.views import Views, ViewSet

__all__ = ["RecordedViews", "pixels"]


class RecordedViews:
    """Views that remember what was drawn, for the auditor alone.

    Attributes:
        drawn: View sets, in the order of the draws.
    """

    def __init__(self, views: Views) -> None:
        self.views = views
        self.drawn: list[ViewSet] = []

    @property
    def row_wise(self) -> bool:
        """Whether the recorded views are."""
        return bool(self.views.row_wise)

    def __call__(self, x: Tensor, generator: torch.Generator) -> ViewSet:
        """Draw, and remember."""
        self.drawn.append(self.views(x, generator))
        return self.drawn[-1]

    def images(self, views: tuple[int, ...]) -> Tensor:
        """Return the named views as pixels in [0, 1], (n, V, C, H, W), or rows (n, V, F)."""
        return torch.cat([pixels(drawn, views) for drawn in self.drawn])


def pixels(drawn: ViewSet, views: tuple[int, ...]) -> Tensor:
    """Return views (B, V, C, H, W) as pixels; noise beyond [0, 1] is cut. Rows (B, V, F) stay."""
    stacked = torch.stack([drawn[v] for v in views], dim=1)
    return stacked if stacked.ndim == 3 else (stacked / 2 + 0.5).clamp(0, 1)
