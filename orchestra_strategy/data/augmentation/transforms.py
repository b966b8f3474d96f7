"""Random changes of a batch, as pure functions of the batch and of what was drawn.

No function here draws anything: :mod:`~orchestra_strategy.data.augmentation.views` does, and passes
the draws in. Each works on all samples at once, with its own draw per sample.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

__all__ = ["affine_matrices", "corrupt_features", "roll_quarters", "rotate_quarters", "warp"]


def affine_matrices(degrees: Tensor, shear: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return the matrices with which :func:`warp` moves the content of square images.

    A picture is moved by ``shift``, then sheared, rotated clockwise (as seen with row 0 on top) and
    scaled about its centre. In coordinates x to the right and y down, with the side from -1 to 1:
    ``p -> scale * R(degrees) * [[1, shear], [0, 1]] * (p + shift)``.

    Args:
        degrees: (B,) rotation.
        shear: (B,) how far a row moves sideways per unit of y.
        scale: (B,) > 0; above 1 enlarges.
        shift: (B, 2) movement (x, y) as a fraction of the side.

    Returns:
        (B, 2, 3) matrices from output to input coordinates, which is what sampling needs: the
        inverse of the movement above.

    >>> one = torch.ones(1)
    >>> affine_matrices(0 * one, 0 * one, 2 * one, torch.zeros(1, 2))[0, 0, 0].item()
    0.5
    """
    angle = degrees * (math.pi / 180)
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    # (scale R S)^-1 = S^-1 R^T / scale, and the shift comes off last; a side is 2 units long.
    top = torch.stack((cos + shear * sin, sin - shear * cos, -2 * shift[:, 0]), dim=1)
    bottom = torch.stack((-sin, cos, -2 * shift[:, 1]), dim=1)
    return torch.stack((top, bottom), dim=1)


def warp(x: Tensor, matrices: Tensor, padding: str = "zeros") -> Tensor:
    """Sample each image bilinearly at the positions that its matrix names.

    Args:
        x: (B, C, H, W) images.
        matrices: (B, 2, 3) from :func:`affine_matrices`.
        padding: What is outside the picture: ``"zeros"``, or ``"border"`` to repeat its edge.

    Returns:
        (B, C, H, W) moved images.
    """
    grid = affine_grid(matrices, list(x.shape), align_corners=False)
    return grid_sample(x, grid, padding_mode=padding, align_corners=False)


def rotate_quarters(x: Tensor, quarters: Tensor) -> Tensor:
    """Turn each image by 90 degrees times its own number, exactly as ``torch.rot90`` does.

    Args:
        x: (B, C, H, H) square images.
        quarters: (B,) int64 in {0, 1, 2, 3}; 1 is a quarter counter-clockwise.

    Returns:
        (B, C, H, H) turned images.

    >>> x = torch.arange(4.0).reshape(1, 1, 2, 2)
    >>> rotate_quarters(x, torch.tensor([1])).tolist()
    [[[[1.0, 3.0], [0.0, 2.0]]]]
    """
    side = x.shape[-1]
    pixels = torch.arange(side * side, device=x.device).view(side, side)
    turned = torch.stack([torch.rot90(pixels, k).flatten() for k in range(4)])  # (4, H * H)
    source = turned[quarters].unsqueeze(1).expand(-1, x.shape[1], -1)  # (B, C, H * H)
    return x.flatten(2).gather(2, source).view_as(x)


def roll_quarters(x: Tensor, quarters: Tensor) -> Tensor:
    """Roll each row cyclically to the right by its own number of quarters of the row.

    Quarter a of F features is ``a * F // 4`` places, so that the four rolls differ for each F >= 4
    (with a step of ceil(F / 4), three steps of 6 or 9 features would be a whole turn).

    Args:
        x: (B, F) rows.
        quarters: (B,) int64 in {0, 1, 2, 3}.

    Returns:
        (B, F) rolled rows.

    >>> roll_quarters(torch.arange(8.0).reshape(1, 8), torch.tensor([1])).tolist()
    [[6.0, 7.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0]]
    """
    num_features = x.shape[1]
    places = (quarters * num_features).div(4, rounding_mode="floor").unsqueeze(1)
    source = (torch.arange(num_features, device=x.device) - places).remainder(num_features)
    return x.gather(1, source)


def corrupt_features(x: Tensor, replaced: Tensor, donors: Tensor) -> Tensor:
    """Replace chosen features by those of other rows, SCARF's corruption.

    D. Bahri et al.: "SCARF: Self-Supervised Contrastive Learning using Random Feature Corruption",
    ICLR 2022, arXiv 2106.15147. Each feature has a donor row of its own, so a replaced feature
    follows its column's distribution and no donor shows as a whole.

    Args:
        x: (B, F) rows.
        replaced: (V, B, F) bool, where to replace.
        donors: (V, B, F) int64 row numbers in [0, B).

    Returns:
        (V, B, F): V corrupted copies of ``x``.
    """
    return torch.where(replaced, x.expand_as(donors).gather(1, donors), x)
