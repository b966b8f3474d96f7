"""Random changes of colour images, as pure functions of a batch and of what was drawn.

As in :mod:`~orchestra_strategy.data.augmentation.transforms` nothing here draws, and each sample
has a draw of its own. Colour changes are composed into one affine map per image before any pixel is
touched: brightness, contrast, saturation, hue and grey are all linear in (R, G, B) as long as
nothing is clipped, so one small matrix product does the work of five passes.
"""

import math
from functools import cache

import torch
from torch import Tensor

from orchestra_strategy.algorithms.devices import constant, sent_to

__all__ = ["apply_colour", "blur", "colour_matrices", "crop_grid", "grey_means", "solarise"]

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as torchvision's and Pillow's grey
_YIQ = (_LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def crop_grid(area: Tensor, log_ratio: Tensor, position: Tensor, flip: Tensor, size: int) -> Tensor:
    """Return where to sample square images, to cut out a part of each and to enlarge it.

    The random resized crop of C. Szegedy et al., "Going Deeper with Convolutions", CVPR 2015,
    arXiv 1409.4842, with a flip from left to right in the same sampling. Crops are upright, so that
    each axis is by itself: a fifth of the time of ``affine_grid``, with the same bits.

    Args:
        area: (B,) part of the picture's area that is cut out, in (0, 1].
        log_ratio: (B,) logarithm of width / height; a side that would exceed the picture is cut to
            the picture's.
        position: (B, 2) where the part lies, (x, y), from 0 (left, top) to 1 (right, bottom).
        flip: (B,) bool.
        size: H, pixels of a side of the pictures, before and after.

    Returns:
        (B, H, H, 2) positions (x, y) for ``grid_sample``, from -1 to 1 in a picture.

    >>> whole = crop_grid(torch.ones(1), torch.zeros(1), torch.zeros(1, 2), torch.zeros(1) > 0, 2)
    >>> whole[0, 0].tolist()  # the centres of the two pixels of the upper row
    [[-0.5, -0.5], [0.5, -0.5]]
    """
    side = torch.stack((log_ratio, -log_ratio), dim=1).mul_(0.5).exp_()  # (B, 2): width, height
    side = side.mul_(area.sqrt().unsqueeze(1)).clamp_(max=1)
    centre = (2 * position - 1) * (1 - side)
    width = torch.where(flip, -side[:, 0], side[:, 0])
    pixels = torch.linspace(-1, 1, size, device=area.device) * ((size - 1) / size)
    grid = area.new_empty(len(area), size, size, 2)
    grid[..., 0] = (width.unsqueeze(1) * pixels + centre[:, :1]).unsqueeze(1)
    grid[..., 1] = (side[:, 1:] * pixels + centre[:, 1:]).unsqueeze(2)
    return grid


def grey_means(x: Tensor) -> Tensor:
    """Return each image's mean luminance, (B,), of (B, 3, H, W)."""
    return x.mean(dim=(2, 3)) @ constant(_LUMA, x.device)


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
    to_yiq, from_yiq = constant(_YIQ, brightness.device), _from_yiq(brightness.device)
    angle = hue * (2 * math.pi)
    cos, sin = torch.cos(angle) * saturation, torch.sin(angle) * saturation
    one, zero = torch.ones_like(cos), torch.zeros_like(cos)
    # A positive turn leads from red to yellow, as hues are counted: from I towards -Q.
    rows = (one, zero, zero, zero, cos, sin, zero, -sin, cos)
    chroma = torch.stack(rows, dim=1).view(-1, 3, 3)  # Y stays; (I, Q) is turned and scaled by s
    matrix = from_yiq @ chroma @ to_yiq
    matrix = matrix * (brightness * contrast).view(-1, 1, 1)
    offset = (1 - contrast) * brightness * grey_mean
    return torch.cat((matrix, offset.view(-1, 1, 1).expand(-1, 3, 1)), dim=2)


@cache
def _from_yiq(device: torch.device) -> Tensor:
    """Return the inverse of YIQ's matrix; computed on the CPU, as a GPU would be waited for."""
    return sent_to(torch.linalg.inv(torch.tensor(_YIQ)), device)


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
