"""Projector and degeneracy head, and the one place where the kind of normalisation is chosen."""

from typing import Literal

from torch import nn

from orchestra_strategy.errors import ParameterError

__all__ = ["NormKind", "degeneracy_head", "norm_1d", "norm_2d", "projector"]

NormKind = Literal["batch", "group"]

_MAX_GROUPS = 32


def _group_norm(channels: int, affine: bool = True) -> nn.GroupNorm:
    # At least four channels share a statistic where the width allows it: with one channel a group,
    # an 1-D activation would be normalised to zero.
    groups = next(
        g for g in range(min(_MAX_GROUPS, max(channels // 4, 1)), 0, -1) if channels % g == 0
    )
    return nn.GroupNorm(groups, channels, affine=affine)


def _check(norm: str) -> None:
    if norm not in ("batch", "group"):
        raise ParameterError(f"Expected `norm` to be 'batch' or 'group', got {norm!r}.")


def norm_2d(channels: int, norm: str = "batch") -> nn.Module:
    """Return a normalisation layer for (B, channels, H, W)."""
    _check(norm)
    return nn.BatchNorm2d(channels) if norm == "batch" else _group_norm(channels)


def norm_1d(channels: int, norm: str = "batch", affine: bool = True) -> nn.Module:
    """Return a normalisation layer for (B, channels)."""
    _check(norm)
    if norm == "batch":
        return nn.BatchNorm1d(channels, affine=affine)
    return _group_norm(channels, affine)


def projector(
    feature_dim: int, hidden_dim: int = 512, projection_dim: int = 512, norm: str = "batch"
) -> nn.Sequential:
    """Return the projector g: features (B, feature_dim) -> (B, projection_dim), not yet unit norm.

    >>> projector(8)[0]
    Linear(in_features=8, out_features=512, bias=False)
    """
    return nn.Sequential(
        nn.Linear(feature_dim, hidden_dim, bias=False),
        norm_1d(hidden_dim, norm),
        nn.ReLU(),
        nn.Linear(hidden_dim, projection_dim, bias=False),
        norm_1d(projection_dim, norm, affine=False),
    )


def degeneracy_head(projection_dim: int = 512, num_classes: int = 4) -> nn.Linear:
    """Return the head r: projections (B, projection_dim) -> which transformation was applied."""
    return nn.Linear(projection_dim, num_classes)
