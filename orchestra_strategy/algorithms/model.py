"""The network that every objective of this package trains: backbone, projector, degeneracy head."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from orchestra_strategy.algorithms.backbones import build_backbone
from orchestra_strategy.algorithms.heads import degeneracy_head, projector
from orchestra_strategy.errors import ModelError

__all__ = ["OrchestraModel", "Parts", "orchestra_model", "parts_of"]

_PARTS = {
    "backbone": (nn.Module, "f: input -> features (B, d)"),
    "projector": (nn.Module, "g: features -> projections (B, p)"),
    "degeneracy_head": (nn.Linear, "r: an nn.Linear, projections -> 4 logits"),
}


class OrchestraModel(nn.Module):
    """Backbone f, projector g and degeneracy head r; the parts that are trained and averaged.

    Args:
        backbone: Maps a batch to features (B, d).
        feature_dim: d; read from ``backbone.out_dim`` if that exists.
        norm: ``"batch"`` or ``"group"``, for the projector.
        hidden_dim: Width of the projector's hidden layer.
        projection_dim: Length p of a projection.
    """

    def __init__(
        self,
        backbone: nn.Module,
        feature_dim: int | None = None,
        norm: str = "batch",
        hidden_dim: int = 512,
        projection_dim: int = 512,
    ) -> None:
        super().__init__()
        if feature_dim is None:
            feature_dim = getattr(backbone, "out_dim", None)
        if not isinstance(feature_dim, int):
            raise ModelError(
                "Expected `feature_dim` (the length of the backbone's output) to be given, or "
                f"`backbone.out_dim` to exist, got neither for {type(backbone).__name__}."
            )
        self.backbone = backbone
        self.projector = projector(feature_dim, hidden_dim, projection_dim, norm)
        self.degeneracy_head = degeneracy_head(projection_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (B, d): what the trained encoder is used for."""
        features: Tensor = self.backbone(x)
        return features

    def forward_orchestra(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, d) and unit-norm projections (B, p)."""
        features = self.backbone(x)
        return features, F.normalize(self.projector(features), dim=1)


def orchestra_model(
    backbone: str = "resnet18",
    in_channels: int = 3,
    norm: str = "batch",
    hidden_dim: int = 512,
    projection_dim: int = 512,
) -> OrchestraModel:
    """Build a model by the backbone's name; the usual ``model`` argument of FLModel.

    Args:
        backbone: A name of :data:`~orchestra_strategy.algorithms.backbones.BACKBONES`.
        in_channels: Channels of the images, or columns of the table for ``mlp``.
        norm: ``"batch"`` or ``"group"``.
        hidden_dim: Width of the projector's hidden layer.
        projection_dim: Length of a projection.

    >>> import torch
    >>> model = orchestra_model("conv4", in_channels=1)
    >>> features, projections = model.forward_orchestra(torch.zeros(2, 1, 8, 8))
    >>> tuple(features.shape), tuple(projections.shape)
    ((2, 512), (2, 512))
    """
    return OrchestraModel(
        build_backbone(backbone, in_channels=in_channels, norm=norm),
        norm=norm,
        hidden_dim=hidden_dim,
        projection_dim=projection_dim,
    )


class Parts(NamedTuple):
    """The parts of a model that Orchestra trains; encoder = backbone, then projector."""

    encoder: nn.Sequential
    degeneracy_head: nn.Linear


def parts_of(model: nn.Module) -> Parts:
    """Return the parts of a model, or refuse a model that lacks one.

    Raises:
        ModelError: Naming every missing part and what it is for.
    """
    missing = [
        f"`{name}` ({role})"
        for name, (kind, role) in _PARTS.items()
        if not isinstance(getattr(model, name, None), kind)
    ]
    if missing:
        raise ModelError(
            f"Expected `model` to have the heads that Orchestra trains, got {type(model).__name__} "
            f"without {', '.join(missing)}. Use `orchestra_model(...)`, or wrap your network: "
            "`OrchestraModel(backbone, feature_dim=d)`."
        )
    backbone, projector_, head = (getattr(model, name) for name in _PARTS)
    return Parts(nn.Sequential(backbone, projector_), head)
