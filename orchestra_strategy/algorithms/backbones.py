"""Backbones f: image (B, C, H, W) or table (B, F) -> features (B, out_dim).

ResNets are torchvision's (K. He et al., CVPR 2016, https://arxiv.org/abs/1512.03385) with the stem
for 32x32 images: a 3x3 convolution of stride 1 and no pooling.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchestra_strategy.algorithms.heads import check_norm, norm_1d, norm_2d
from orchestra_strategy.algorithms.model_input import tracing
from orchestra_strategy.algorithms.named_backbones import build_named
from orchestra_strategy.errors import ParameterError, did_you_mean
from orchestra_strategy.files import PathLike
from orchestra_strategy.weights_file import read_into

__all__ = ["BACKBONES", "Backbone", "build_backbone"]


class Backbone(nn.Module):
    """A feature extractor that knows the length of its output.

    Args:
        body: Maps a batch to features (B, out_dim).
        out_dim: Length of a feature vector.
    """

    def __init__(self, body: nn.Module, out_dim: int) -> None:
        super().__init__()
        self.body = body
        self.out_dim = out_dim

    def forward(self, x: Tensor) -> Tensor:
        """Return features (B, out_dim)."""
        features: Tensor = self.body(x)
        return features


class _QuarterMeans(nn.Module):
    """Means of the four quarters of a map, which overlap by a line where its sides are odd."""

    def forward(self, x: Tensor) -> Tensor:
        """Return means (B, C, 2, 2) of (B, C, H, W)."""
        if not tracing():
            return F.adaptive_avg_pool2d(x, 2)
        # The same in operations that ONNX has for any size of image.
        height, width = x.shape[2], x.shape[3]
        rows = (x[:, :, : (height + 1) // 2], x[:, :, height // 2 :])
        quarters = [(row[..., : (width + 1) // 2], row[..., width // 2 :]) for row in rows]
        means = [torch.stack([part.mean((2, 3)) for part in pair], dim=2) for pair in quarters]
        return torch.stack(means, dim=2)


def _conv4(in_channels: int, norm: str) -> Backbone:
    """Four 3x3 convolutions, for 8x8 to 28x28 images; keeps a 2x2 grid of positions."""
    layers: list[nn.Module] = []
    widths, strides = (in_channels, 32, 64, 128, 128), (1, 2, 1, 2)
    for width_in, width, stride in zip(widths, widths[1:], strides, strict=False):
        layers += [
            nn.Conv2d(width_in, width, 3, stride, padding=1, bias=False),
            norm_2d(width, norm),
            nn.ReLU(),
        ]
    return Backbone(nn.Sequential(*layers, _QuarterMeans(), nn.Flatten()), 4 * widths[-1])


def _mlp(in_channels: int, norm: str, width: int = 256) -> Backbone:
    """Two layers for tables of ``in_channels`` columns."""
    layers: list[nn.Module] = []
    for width_in in (in_channels, width):
        layers += [nn.Linear(width_in, width, bias=False), norm_1d(width, norm), nn.ReLU()]
    return Backbone(nn.Sequential(*layers), width)


# torchvision brings torch's compiler along, 1.5 s of CPU time at every start: with ResNets alone.
def _resnet(in_channels: int, norm: str, blocks: list[int]) -> Backbone:
    from torchvision.models.resnet import BasicBlock, ResNet

    body = ResNet(BasicBlock, blocks, norm_layer=partial(norm_2d, norm=norm))
    body.conv1 = nn.Conv2d(in_channels, 64, 3, 1, padding=1, bias=False)
    body.maxpool = nn.Identity()
    out_dim = body.fc.in_features
    body.fc = nn.Identity()
    return Backbone(body, out_dim)


def _resnet8(in_channels: int, norm: str) -> Backbone:
    """Three stages of one residual block, 16-32-64 channels."""
    from torchvision.models.resnet import BasicBlock

    make_norm = partial(norm_2d, norm=norm)
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, 16, 3, 1, padding=1, bias=False),
        make_norm(16),
        nn.ReLU(),
    ]
    for width_in, width, stride in ((16, 16, 1), (16, 32, 2), (32, 64, 2)):
        shortcut = None
        if width_in != width:
            shortcut = nn.Sequential(
                nn.Conv2d(width_in, width, 1, stride, bias=False), make_norm(width)
            )
        layers.append(BasicBlock(width_in, width, stride, shortcut, norm_layer=make_norm))
    return Backbone(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 64)


BACKBONES: dict[str, Callable[[int, str], Backbone]] = {
    "conv4": _conv4,
    "mlp": _mlp,
    "resnet8": _resnet8,
    "resnet18": partial(_resnet, blocks=[2, 2, 2, 2]),
    "resnet34": partial(_resnet, blocks=[3, 4, 6, 3]),
}


def build_backbone(
    name: str,
    *,
    in_channels: int | None,
    norm: str = "batch",
    weights: PathLike | None = None,
) -> Backbone:
    """Build a backbone by name.

    Args:
        name: One of :data:`BACKBONES`, or a network of another library without its classifier:
            ``"torchvision:NAME"``, ``"timm:NAME"``.
        in_channels: Channels of the images; for ``mlp`` the number of columns. None, which the
            trainer replaces by the data's number, cannot be built.
        norm: ``"batch"``, or ``"group"`` where statistics over the batch are unwanted
            (differential privacy, very small batches); ``"group+batch"`` is ``"group"`` here.
        weights: A file on this machine with the first weights, see
            :func:`~orchestra_strategy.weights_file.read_into`.

    Raises:
        ParameterError: An unknown name, an unknown norm, fewer than one channel, or None.
        ModelError: ``weights`` cannot be read, or are another network's; or the library of the
            name is not installed.

    >>> build_backbone("conv4", in_channels=1).out_dim
    512
    """
    if name not in BACKBONES and ":" not in name:
        raise ParameterError(
            f"Expected `backbone` to be a known one, 'torchvision:NAME' or 'timm:NAME', got "
            f"{name!r}; {did_you_mean(name, BACKBONES)}."
        )
    if in_channels is None:
        raise ParameterError(
            "Expected `in_channels` to be a number where a network is built, got None, which the "
            "trainer alone can take, as it asks the data first; use 1 for grey images, 3 for "
            "colour, or the number of columns."
        )
    if in_channels < 1:
        raise ParameterError(f"Expected `in_channels` to be at least 1, got {in_channels}.")
    check_norm(norm)
    norm = "group" if norm == "group+batch" else norm
    left_out: tuple[str, ...] = ()
    if name in BACKBONES:
        backbone = BACKBONES[name](in_channels, norm)
    else:
        body, width, left_out = build_named(name, in_channels, norm)
        backbone = Backbone(body, width)
    if weights is not None:
        read_into(backbone.body, weights, left_out)
    return backbone
