"""Utility and leakage over epsilon, side by side."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestra_strategy.errors import DataError
from orchestra_strategy.evaluation.plots.figures import (
    INK,
    LINE,
    MUTED,
    bare_axis,
    new_figure,
    save_figure,
)
from orchestra_strategy.files import PathLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Curve", "plot_privacy_curve"]


class Curve(NamedTuple):
    """One quantity over epsilon.

    Attributes:
        title: What it is and its unit.
        middle: A value per setting.
        low: Lower ends of the error bars.
        high: Upper ends.
        levels: Name of a control -> its value.
        control: Name of a control that depends on the setting, and its values; or None.
    """

    title: str
    middle: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    levels: Mapping[str, float]
    control: tuple[str, Sequence[float]] | None = None


def plot_privacy_curve(
    epsilons: Sequence[float | None], curves: Sequence[Curve], path: PathLike, delta: float
) -> None:
    """Draw a panel per curve, epsilon on a logarithmic axis, the run without privacy at its right.

    Args:
        epsilons: Of each setting; None is the run without privacy.
        curves: At least one; as many values as ``epsilons``.
        path: The picture; the suffix gives the format, missing folders are made.
        delta: At which the epsilons hold.

    Raises:
        DataError: An epsilon is not positive and finite, or lengths differ.
        ImportError: Matplotlib is not installed.
    """
    private = sorted({e for e in epsilons if e is not None})
    if not private or not all(0 < e < math.inf for e in private):
        raise DataError(
            f"Expected `epsilons` to hold positive finite numbers, and None without privacy, got "
            f"{list(epsilons)}."
        )
    lengths = {
        len(values)
        for c in curves
        for values in (c.middle, c.low, c.high, *([] if c.control is None else [c.control[1]]))
    }
    if lengths != {len(epsilons)}:
        raise DataError(
            f"Expected each of `curves` to have {len(epsilons)} values, as many as `epsilons`, got "
            f"{sorted(lengths)}."
        )
    # The run without privacy stands at the right of the others, as far as it looks apart.
    off = private[-1] * max(4.0, (private[-1] / private[0]) ** 0.15)
    figure = new_figure(4.0 * len(curves), 3.6)
    for axis, curve in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves, strict=True):
        _draw(axis, epsilons, curve, off)
        if None in epsilons:
            axis.axvline(math.sqrt(off * private[-1]), color="#bbbbbb", linewidth=0.8)
            none = axis.text(off, 1.0, "none", fontsize=8, color=MUTED, ha="center", va="top")
            none.set_transform(axis.get_xaxis_transform())
        axis.set_xlabel(f"epsilon at delta = {delta:g}", color=INK, fontsize=9)
    save_figure(figure, path)


def _by_epsilon(epsilons: Sequence[float | None], values: Sequence[float]) -> Any:
    """Return the points of a line; the run without privacy is none."""
    points = sorted((e, y) for e, y in zip(epsilons, values, strict=True) if e is not None)
    return zip(*points, strict=True)


def _draw(axis: "Axes", epsilons: Sequence[float | None], curve: Curve, off: float) -> None:
    x = [off if e is None else e for e in epsilons]
    axis.plot(*_by_epsilon(epsilons, curve.middle), color=LINE, linewidth=1.7)
    if curve.control is not None:
        name, values = curve.control
        axis.plot(*_by_epsilon(epsilons, values), color=MUTED, linewidth=1.2, label=name)
        axis.legend(frameon=False, fontsize=8, loc="best")
    bars = [
        [m - low for m, low in zip(curve.middle, curve.low, strict=True)],
        [high - m for m, high in zip(curve.middle, curve.high, strict=True)],
    ]
    axis.errorbar(x, curve.middle, bars, fmt="o", color=LINE, markersize=4, capsize=2)
    for name, level in curve.levels.items():
        axis.axhline(level, color=MUTED, linewidth=1.0, linestyle=(0, (4, 3)))
        text = axis.text(0.01, level, f"{name} {level:.3g}", color=MUTED, fontsize=8, va="bottom")
        text.set_transform(axis.get_yaxis_transform())  # x in fractions of the axis
    axis.set_xscale("log")
    axis.set_title(curve.title, loc="left", color=INK, fontsize=10)
    bare_axis(axis)
