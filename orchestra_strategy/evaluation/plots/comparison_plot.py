"""Curves of several methods over the rounds, beside the levels that they must beat."""

from collections.abc import Mapping, Sequence

from orchestra_strategy.errors import DataError
from orchestra_strategy.evaluation.plots.figures import (
    INK,
    MUTED,
    bare_axis,
    new_figure,
    save_figure,
)
from orchestra_strategy.files import PathLike

__all__ = ["plot_comparison"]


def plot_comparison(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    levels: Mapping[str, float],
    path: PathLike,
    x_label: str = "rounds",
    y_label: str = "accuracy, %",
    spreads: Mapping[str, Sequence[float]] | None = None,
) -> None:
    """Draw one line per method, named at its end, and a dashed line per control.

    Args:
        series: Name -> (x, y), of equal length.
        levels: Name of a control -> its value.
        path: The picture; the suffix gives the format, missing folders are made.
        x_label: Under the axis.
        y_label: Above the axis.
        spreads: Name of a series -> half the length of the error bar at each point.

    Raises:
        DataError: There is no series, or one that is empty or of unequal lengths.
        ImportError: Matplotlib is not installed.
    """
    wrong = [
        f"`{name}` with {len(x)} and {len(y)}"
        for name, (x, y) in series.items()
        if len(x) != len(y) or not len(x)
    ]
    if not series or wrong:
        got = wrong[0] if wrong else "no series"
        raise DataError(f"Expected `series` to have as many x as y, at least one, got {got}.")
    figure = new_figure(7.2, 4.2)
    axis = figure.subplots()
    for name, (x, y) in series.items():
        (line,) = axis.plot(x, y, linewidth=1.7, marker="o", markersize=3.5)
        if spreads is not None and name in spreads:
            colour = line.get_color()
            axis.errorbar(x, y, spreads[name], fmt="none", ecolor=colour, alpha=0.6, capsize=2)
        axis.plot([], [], color=line.get_color(), label=f"{name}  {y[-1]:.1f}")
    for i, (name, level) in enumerate(levels.items()):
        axis.axhline(level, color=MUTED, linewidth=1.0, linestyle=(0, (4, 3)))
        # Left and right in turn, so that two of one level do not cover each other's names.
        text = axis.text(
            0.99 if i % 2 else 0.01,
            level,
            f"{name} {level:.1f}",
            color=MUTED,
            fontsize=8,
            va="bottom",
            ha="right" if i % 2 else "left",
        )
        text.set_transform(axis.get_yaxis_transform())  # x in fractions of the axis
    axis.set_xlabel(x_label, color=INK, fontsize=9)
    axis.set_title(y_label, loc="left", color=INK, fontsize=10)
    axis.locator_params(axis="x", integer=True, nbins=8)
    bare_axis(axis)
    # In the order of the curves' ends, so that the legend reads like the picture.
    handles, labels = axis.get_legend_handles_labels()
    ends = [series[label.rsplit("  ", 1)[0]][1][-1] for label in labels]
    order = sorted(range(len(labels)), key=lambda i: -ends[i])
    axis.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        frameon=False,
        fontsize=8,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
    )
    save_figure(figure, path)
