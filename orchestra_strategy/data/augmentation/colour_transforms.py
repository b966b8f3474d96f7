"""Random changes of colour images, as pure functions of a batch and of what was drawn.

As in :mod:`~orchestra_strategy.data.augmentation.transforms` nothing here draws, and each sample
has a draw of its own. Colour changes are composed into one affine map per image before any pixel is
touched: brightness, contrast, saturation, hue and grey are all linear in (R, G, B) as long as
nothing is clipped, so one small matrix product does the work of five passes.
"""

import math

import torch
from torch import Tensor

__all__ = ["apply_colour", "blur", "colour_matrices", "crop_matrices", "grey_means", "solarise"]

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as torchvision's and Pillow's grey
_YIQ = (_LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def crop_matrices(area: Tensor, log_ratio: Tensor, position: Tensor, flip: Tensor) -> Tensor:
    """Return the matrices with which ``warp`` cuts out a part of each square image and enlarges it.

    The random resized crop of C. Szegedy et al., "Going Deeper with Convolutions", CVPR 2015,
    arXiv 1409.4842, with a flip from left to right in the same sampling.

    Args:
        area: (B,) part of the picture's area that is cut out, in (0, 1].
        log_ratio: (B,) logarithm of width / height; a side that would exceed the picture is cut to
            the picture's.
        position: (B, 2) where the part lies, (x, y), from 0 (left, top) to 1 (right, bottom).
        flip: (B,) bool.

    Returns:
        (B, 2, 3) matrices from output to input coordinates.

    >>> whole = crop_matrices(torch.ones(1), torch.zeros(1), torch.zeros(1, 2), torch.zeros(1) > 0)
    >>> whole[0, :, :2].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    side = torch.stack((log_ratio, -log_ratio), dim=1).mul_(0.5).exp_()  # (B, 2): width, height
    side = side.mul_(area.sqrt().unsqueeze(1)).clamp_(max=1)
    centre = (2 * position - 1) * (1 - side)
    zero = torch.zeros_like(area)
    width = torch.where(flip, -side[:, 0], side[:, 0])
    top = torch.stack((width, zero, centre[:, 0]), dim=1)
    bottom = torch.stack((zero, side[:, 1], centre[:, 1]), dim=1)
    return torch.stack((top, bottom), dim=1)


def grey_means(x: Tensor) -> Tensor:
    """Return each image's mean luminance, (B,), of (B, 3, H, W)."""
    return x.mean(dim=(2, 3)) @ x.new_tensor(_LUMA)


def colour_matrices(
    brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor, grey_mean: Tensor
) -> Tensor:
    """Return the map ``[M | t]`` of each image's colours: ``colour -> M colour + t``.

    Brightness b, contrast c and saturation s are torchvision's, as blends with black, with the
    picture's mean luminance, and with its grey version. The hue turns the chroma plane of YIQ,
    which keeps the luminance (torchvision turns it in HSV, which is not linear). Saturation and hue
    keep luminance and leave greys alone, so the order of the four changes makes no difference.

    Args:
        brightness: (B,) factor b; 1 changes nothing.
        contrast: (B,) factor c.
        saturation: (B,) factor s; 0 gives the grey picture.
        hue: (B,) parts of a full turn, in [-0.5, 0.5]; 0 changes nothing.
        grey_mean: (B,) mean luminance of the unchanged picture, :func:`grey_means`.

    Returns:
        (B, 3, 4).
    """
    to_yiq = brightness.new_tensor(_YIQ)
    angle = hue * (2 * math.pi)
    cos, sin = torch.cos(angle) * saturation, torch.sin(angle) * saturation
    one, zero = torch.ones_like(cos), torch.zeros_like(cos)
    # A positive turn leads from red to yellow, as hues are counted: from I towards -Q.
    rows = (one, zero, zero, zero, cos, sin, zero, -sin, cos)
    chroma = torch.stack(rows, dim=1).view(-1, 3, 3)  # Y stays; (I, Q) is turned and scaled by s
    matrix = torch.linalg.inv(to_yiq) @ chroma @ to_yiq
    matrix = matrix * (brightness * contrast).view(-1, 1, 1)
    offset = (1 - contrast) * brightness * grey_mean
    return torch.cat((matrix, offset.view(-1, 1, 1).expand(-1, 3, 1)), dim=2)


def apply_colour(x: Tensor, matrices: Tensor) -> Tensor:
    """Apply :func:`colour_matrices` (B, 3, 4) to images (B, 3, H, W), and clip to [0, 1]."""
    changed = torch.baddbmm(matrices[:, :, 3:], matrices[:, :, :3], x.flatten(2))
    return changed.clamp_(0, 1).view_as(x)


def blur(x: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Blur each image with a Gaussian of its own width, reflecting at the edge.

    Args:
        x: (B, C, H, W) images.
        sigma: (B,) standard deviation in pixels, > 0.
        radius: The kernel has 2 * radius + 1 taps, in both directions; below H and W.

    Returns:
        (B, C, H, W) blurred images.
    """
    taps = torch.arange(radius + 1, device=x.device)
    weights = torch.exp(-0.5 * (taps / sigma.unsqueeze(1)) ** 2)  # (B, radius + 1), one side
    weights = weights / (2 * weights.sum(dim=1, keepdim=True) - weights[:, :1])
    for dim in (2, 3):
        size = x.shape[dim]
        pad = (0, 0, radius, radius) if dim == 2 else (radius, radius, 0, 0)
        padded = torch.nn.functional.pad(x, pad, mode="reflect")
        side = weights.view(len(x), radius + 1, 1, 1, 1)
        blurred = side[:, 0] * x
        for k in range(1, radius + 1):
            before = padded.narrow(dim, radius - k, size)
            blurred.addcmul_(side[:, k], before + padded.narrow(dim, radius + k, size))
        x = blurred
    return x


def solarise(x: Tensor, chosen: Tensor, threshold: float = 0.5) -> Tensor:
    """Invert the pixels at or above ``threshold`` of the chosen images, values in [0, 1].

    >>> solarise(torch.tensor([[0.25, 0.75]]), torch.tensor([True])).tolist()
    [[0.25, 0.25]]
    """
    inverted = chosen.view(-1, *(1,) * (x.ndim - 1)) & (x >= threshold)
    return torch.where(inverted, 1 - x, x)
