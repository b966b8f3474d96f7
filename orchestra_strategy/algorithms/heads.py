"""Projector and heads, and the one place where the kind of normalisation is chosen."""

from collections.abc import Callable, Collection
from typing import Literal, NamedTuple, get_args

from torch import nn

from orchestra_strategy.errors import ParameterError, did_you_mean

__all__ = [
    "DECODED_SIDE",
    "HEADS",
    "Head",
    "HeadSizes",
    "NormKind",
    "build_heads",
    "check_norm",
    "degeneracy_head",
    "norm_1d",
    "norm_2d",
    "predictor",
    "projector",
]

NormKind = Literal["batch", "group", "group+batch"]

_MAX_GROUPS = 32

DECODED_SIDE = 8
"""A decoder gives the values of a picture on a grid of 8x8 cells, for each channel."""


def _group_norm(channels: int, affine: bool = True) -> nn.GroupNorm:
    # At least four channels share a statistic where the width allows it: with one channel a group,
    # an 1-D activation would be normalised to zero.
    groups = next(
        g for g in range(min(_MAX_GROUPS, max(channels // 4, 1)), 0, -1) if channels % g == 0
    )
    return nn.GroupNorm(groups, channels, affine=affine)


def check_norm(norm: str) -> None:
    """Refuse an unknown kind of normalisation."""
    if norm not in get_args(NormKind):
        raise ParameterError(
            f"Expected `norm` to be 'batch', 'group' or 'group+batch', got {norm!r}."
        )


def norm_2d(channels: int, norm: str = "batch") -> nn.Module:
    """Return a normalisation layer for (B, channels, H, W)."""
    check_norm(norm)
    return nn.BatchNorm2d(channels) if norm == "batch" else _group_norm(channels)


def norm_1d(channels: int, norm: str = "batch", affine: bool = True) -> nn.Module:
    """Return a normalisation layer for (B, channels).

    ``"group+batch"`` normalises by the batch at hand, and keeps no running statistics: there is
    nothing of it that could leave a party beside the weights.
    """
    check_norm(norm)
    if norm == "group":
        return _group_norm(channels, affine)
    return nn.BatchNorm1d(channels, affine=affine, track_running_stats=norm == "batch")


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


def predictor(
    projection_dim: int = 512, hidden_dim: int = 512, norm: str = "batch"
) -> nn.Sequential:
    """Return the head h: one view's projections (B, projection_dim) -> the other view's.

    >>> predictor(8, 4)[3]
    Linear(in_features=4, out_features=8, bias=True)
    """
    return nn.Sequential(
        nn.Linear(projection_dim, hidden_dim, bias=False),
        norm_1d(hidden_dim, norm),
        nn.ReLU(),
        nn.Linear(hidden_dim, projection_dim),
    )


class HeadSizes(NamedTuple):
    """What heads are built from.

    Attributes:
        projection_dim: Length p of a projection.
        hidden_dim: Width of hidden layers.
        norm: ``"batch"``, ``"group"`` or ``"group+batch"``.
        num_classes: Of the labels; None where no head needs it.
        decoded_values: Values of a sample that are told from its projection; None where no head
            needs it.
    """

    projection_dim: int
    hidden_dim: int
    norm: str
    num_classes: int | None = None
    decoded_values: int | None = None


def _classifier(sizes: HeadSizes) -> nn.Linear:
    meaning = "the number of classes of all parties' labels together"
    return _told(sizes, "classifier", "num_classes", 2, meaning)


def _decoder(sizes: HeadSizes) -> nn.Linear:
    per_channel = DECODED_SIDE**2
    meaning = f"{per_channel} for each channel of pictures, or the number of a table's columns"
    return _told(sizes, "decoder", "decoded_values", 1, meaning)


def _told(sizes: HeadSizes, head: str, size: str, least: int, meaning: str) -> nn.Linear:
    """Return a layer from projections to a number of values that only this head needs."""
    count = getattr(sizes, size)
    if type(count) is not int or count < least:
        raise ParameterError(
            f"Expected `{size}` of the model to be a whole number of at least {least} for the head "
            f"`{head}`, got {count!r}; it is {meaning}."
        )
    return nn.Linear(sizes.projection_dim, count)


class Head(NamedTuple):
    """A head that a model may have beside its projector.

    Attributes:
        build: From its sizes to the module.
        kind: What a module in its place must be.
        role: What it is for, in the words of an error message.
    """

    build: Callable[[HeadSizes], nn.Module]
    kind: type[nn.Module]
    role: str


HEADS: dict[str, Head] = {
    "degeneracy_head": Head(
        lambda sizes: degeneracy_head(sizes.projection_dim),
        nn.Linear,
        "r: an nn.Linear, projections -> 4 logits",
    ),
    "predictor": Head(
        lambda sizes: predictor(*sizes[:3]), nn.Module, "h: projections -> projections (B, p)"
    ),
    "classifier": Head(
        _classifier, nn.Linear, "an nn.Linear, projections -> a logit for each class"
    ),
    "decoder": Head(_decoder, nn.Linear, "an nn.Linear, projections -> values of the sample"),
}


def build_heads(
    names: Collection[str],
    projection_dim: int,
    hidden_dim: int,
    norm: str,
    num_classes: int | None = None,
    decoded_values: int | None = None,
) -> dict[str, nn.Module]:
    """Build heads by name, in the order of :data:`HEADS` whatever that of ``names``.

    Args:
        names: Keys of :data:`HEADS`; none is fine.
        projection_dim: Length p of a projection.
        hidden_dim: Width of hidden layers.
        norm: ``"batch"``, ``"group"`` or ``"group+batch"``.
        num_classes: For the head ``classifier``, which the others do without.
        decoded_values: For the head ``decoder``, which the others do without.

    Raises:
        ParameterError: An unknown name, a bare string in place of several names, or a classifier
            or decoder without its number of outputs.

    >>> list(build_heads(("predictor", "degeneracy_head"), 8, 4, "group"))
    ['degeneracy_head', 'predictor']
    """
    if isinstance(names, str):
        raise ParameterError(
            f"Expected `heads` to be a tuple of names, got {names!r}; write `({names!r},)`."
        )
    for name in names:
        if name not in HEADS:
            raise ParameterError(
                f"Expected `heads` to be known ones, got {name!r}; {did_you_mean(name, HEADS)}."
            )
    wanted = {name: head for name, head in HEADS.items() if name in names}
    sizes = HeadSizes(projection_dim, hidden_dim, norm, num_classes, decoded_values)
    return {name: head.build(sizes) for name, head in wanted.items()}
