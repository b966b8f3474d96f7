"""What the audit puts in the place of a party's parts: recorded views, a supervised reference."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchestra_strategy.algorithms.objective import Batch, LossParts
from orchestra_strategy.data.views import Views, ViewSet, to_model_input

__all__ = ["Classifier", "RecordedViews", "SupervisedParty", "pixels"]


class Classifier(nn.Module):
    """A backbone and a linear layer: what the supervised reference trains."""

    def __init__(self, backbone: nn.Module, feature_dim: int, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Linear(feature_dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, classes) of model inputs."""
        logits: Tensor = self.classifier(self.backbone(x))
        return logits


class RecordedViews:
    """Views that remember what was drawn, for the auditor alone.

    Attributes:
        drawn: View sets, in the order of the draws.
    """

    def __init__(self, views: Views) -> None:
        self.views = views
        self.drawn: list[ViewSet] = []

    def __call__(self, x: Tensor, generator: torch.Generator) -> ViewSet:
        """Draw, and remember."""
        self.drawn.append(self.views(x, generator))
        return self.drawn[-1]

    def images(self, views: tuple[int, ...]) -> Tensor:
        """Return the named views as pixels in [0, 1], shape (n, V, C, H, W)."""
        return torch.cat([pixels(drawn, views) for drawn in self.drawn])


def pixels(drawn: ViewSet, views: tuple[int, ...]) -> Tensor:
    """Return views (B, V, C, H, W) as pixels; noise beyond [0, 1] is cut."""
    return (torch.stack([drawn[v] for v in views], dim=1) / 2 + 0.5).clamp(0, 1)


class SupervisedParty:
    """Cross entropy of the labels on the samples as they are."""

    def __call__(self, model: nn.Module, batch: Batch) -> LossParts:
        """Return the loss of one local step on ``inputs`` (B, C, H, W) and ``labels`` (B,)."""
        return LossParts(
            F.cross_entropy(model(to_model_input(batch["inputs"])), batch["labels"]), {}
        )
