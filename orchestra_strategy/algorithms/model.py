"""The network that every objective of this package trains: backbone, projector, and heads."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from orchestra_strategy.algorithms.backbones import build_backbone
from orchestra_strategy.algorithms.heads import DECODED_SIDE, HEADS, build_heads, projector
from orchestra_strategy.algorithms.model_input import refuse_other_pixels, to_model_input
from orchestra_strategy.errors import ModelError
from orchestra_strategy.files import PathLike
from orchestra_strategy.weights_file import is_state_file

__all__ = ["OrchestraModel", "Parts", "network_of", "orchestra_model", "parts_of"]

_ENCODER = {
    "backbone": (nn.Module, "f: input -> features (B, d)"),
    "projector": (nn.Module, "g: features -> projections (B, p)"),
}
_DEFAULT_HEADS = ("degeneracy_head",)  # what Orchestra trains


class OrchestraModel(nn.Module):
    """Backbone f, projector g and heads; the parts that are trained and averaged.

    Args:
        backbone: Maps a normalised batch (pixels in [-1, 1], columns as they are) to features
            (B, d).
        feature_dim: d; read from ``backbone.out_dim`` if that exists. It is an attribute, too.
        norm: ``"batch"``, ``"group"`` or ``"group+batch"``, for projector and heads; see
            :func:`orchestra_model`.
        hidden_dim: Width of the hidden layers of projector and heads.
        projection_dim: Length p of a projection.
        heads: Which heads it has besides, by their names in
            :data:`~orchestra_strategy.algorithms.heads.HEADS`; each strategy names what it needs.
        num_classes: Of the labels, for the head ``classifier`` of supervised learning.
        decoded_values: For the head ``decoder`` of masked reconstruction: 64 for each channel of
            pictures, or the number of a table's columns.

    Raises:
        ModelError: The backbone's width is not known.
        ParameterError: A head is unknown, ``classifier`` lacks its number of classes, or
            ``decoder`` its number of values.
    """

    def __init__(
        self,
        backbone: nn.Module,
        feature_dim: int | None = None,
        norm: str = "batch",
        hidden_dim: int = 512,
        projection_dim: int = 512,
        heads: Collection[str] = _DEFAULT_HEADS,
        num_classes: int | None = None,
        decoded_values: int | None = None,
    ) -> None:
        super().__init__()
        if feature_dim is None:
            feature_dim = getattr(backbone, "out_dim", None)
        if not isinstance(feature_dim, int) or feature_dim < 1:
            raise ModelError(_without_width(backbone, feature_dim))
        self.feature_dim = feature_dim
        self.backbone = backbone
        self.projector = projector(feature_dim, hidden_dim, projection_dim, norm)
        sizes = (projection_dim, hidden_dim, norm, num_classes, decoded_values)
        found = build_heads(heads, *sizes)
        for name, head in found.items():
            self.add_module(name, head)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (B, d) of samples: what the trained encoder is used for.

        Args:
            x: Samples as they are stored: images (B, H, W) or (B, C, H, W), uint8 or floats in
                [0, 1], which are normalised here; or a table (B, F), which passes as it is.

        Raises:
            DataError: In evaluation mode, if pixels are something else.
        """
        if not self.training:
            refuse_other_pixels(x)
        features: Tensor = self.backbone(to_model_input(x))
        return features

    def forward_orchestra(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, d) and unit-norm projections (B, p) of views, as they are drawn."""
        features = self.backbone(x)
        return features, F.normalize(self.projector(features), dim=1)


def orchestra_model(
    backbone: str = "resnet18",
    in_channels: int | None = 3,
    norm: str = "batch",
    hidden_dim: int = 512,
    projection_dim: int = 512,
    heads: Collection[str] = _DEFAULT_HEADS,
    weights: PathLike | None = None,
    num_classes: int | None = None,
) -> OrchestraModel:
    """Build a model by the backbone's name; the usual ``model`` argument of FLModel.

    Args:
        backbone: A name of :data:`~orchestra_strategy.algorithms.backbones.BACKBONES`; or that of a
            network of another library, without its classifier: ``torchvision:resnet50``, or
            ``timm:NAME`` with the extra ``[timm]``.
        in_channels: Channels of the images, or columns of the table for ``mlp``. The trainer also
            takes None: as many as the data have.
        norm: ``"batch"``; ``"group"``, where samples must not act on each other (privacy by
            record); or ``"group+batch"``: GroupNorm in the backbone, and in projector and heads
            BatchNorm of the batch at hand, without running statistics. Nothing but weights is
            shared then, as privacy by user needs it, and the encoder still does not collapse, as
            Orchestra's does on small data with GroupNorm alone.
        hidden_dim: Width of the hidden layers of projector and heads.
        projection_dim: Length of a projection.
        heads: See :class:`OrchestraModel`; the default is what Orchestra needs.
        weights: First weights, from this machine: the folder of an exported encoder, such as
            ``orchestra-fl pretrain`` makes, whose backbone, input and ``norm`` have to be the same;
            or a file of the backbone's alone, ``.safetensors`` or a ``state_dict`` by
            ``torch.save``, of which those of a classifier are left out. None draws them. Nothing is
            ever downloaded.
        num_classes: Number of classes of all parties' labels together, for ``fed_supervised`` (the
            head ``classifier``); other strategies do without.

    Raises:
        ParameterError: An option is unknown or out of range.
        ModelError: ``weights`` are those of another model.

    >>> import torch
    >>> model = orchestra_model("conv4", in_channels=1)
    >>> features, projections = model.forward_orchestra(torch.zeros(2, 1, 8, 8))
    >>> tuple(features.shape), tuple(projections.shape)
    ((2, 512), (2, 512))
    """
    of_backbone = weights if weights is not None and is_state_file(weights) else None
    model = OrchestraModel(
        build_backbone(backbone, in_channels=in_channels, norm=norm, weights=of_backbone),
        norm=norm,
        hidden_dim=hidden_dim,
        projection_dim=projection_dim,
        heads=heads,
        num_classes=num_classes,
        # Without channels there is no backbone to begin with: `build_backbone` refuses None.
        decoded_values=(in_channels or 0) * (1 if backbone == "mlp" else DECODED_SIDE**2),
    )
    if weights is not None and of_backbone is None:
        # Not at the top: reading files is none of this room's work, and that module builds models.
        from orchestra_strategy.starting_weights import start_from

        own = {"backbone": backbone, "in_channels": in_channels, "norm": norm}
        start_from(model, weights, own)
    return model


def _without_width(backbone: nn.Module, given: object) -> str:
    """Return what is said where the length of the features is not known."""
    if given is not None:
        return f"Expected `feature_dim` to be a whole number of at least 1, got {given!r}."
    layers = [(n, m) for n, m in backbone.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    hint = ""
    if layers:
        name, last = layers[-1]
        width = last.out_features if isinstance(last, nn.Linear) else last.out_channels
        hint = f" Its last layer, `{name or '.'}`, gives {width}."
    return (
        "Expected `feature_dim` (the length of the backbone's output) to be given, or "
        f"`backbone.out_dim` to exist, got neither for {type(backbone).__name__}.{hint}"
    )


def network_of(model: nn.Module) -> nn.Module:
    """Return what maps model inputs (views, normalised samples) to features.

    That is the backbone of an :class:`OrchestraModel`, which normalises samples before it, and any
    other model as it is.
    """
    return model.backbone if isinstance(model, OrchestraModel) else model


class Parts(NamedTuple):
    """The parts of a model that a strategy trains.

    Attributes:
        encoder: Backbone, then projector: input -> projections (B, p), not yet unit norm.
        heads: The heads that were asked for, in that order.
    """

    encoder: nn.Sequential
    heads: tuple[nn.Module, ...]


def parts_of(model: nn.Module, heads: Sequence[str] = ()) -> Parts:
    """Return the parts of a model, or refuse a model that lacks one; others are left alone.

    Args:
        model: A network with the parts as attributes.
        heads: Names of the heads that are needed.

    Raises:
        ModelError: Naming every missing part and what it is for.
    """
    wanted = {**_ENCODER, **{name: (HEADS[name].kind, HEADS[name].role) for name in heads}}
    missing = [
        f"`{name}` ({role})"
        for name, (kind, role) in wanted.items()
        if not isinstance(getattr(model, name, None), kind)
    ]
    if missing:
        raise ModelError(
            f"Expected `model` to have the parts that the strategy trains, got "
            f"{type(model).__name__} without {', '.join(missing)}. Use "
            f"`orchestra_model(..., heads={tuple(heads)})`, or wrap your network: "
            f"`OrchestraModel(backbone, feature_dim=d, heads={tuple(heads)})`."
        )
    backbone, projector_, *found = (getattr(model, name) for name in wanted)
    return Parts(nn.Sequential(backbone, projector_), tuple(found))
