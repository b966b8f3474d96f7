"""Two charts of accuracies beside the controls that they must beat, with error bars."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from orchestra_strategy.errors import DataError
from orchestra_strategy.evaluation.plots.figures import (
    INK,
    LINE,
    MUTED,
    bare_axis,
    new_figure,
    save_figure,
)
from orchestra_strategy.evaluation.protocol import CONTROLS, ProbeResult
from orchestra_strategy.files import PathLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_few_labels", "plot_ranking"]

Results = Mapping[str, Mapping[str, ProbeResult]]

_METHODS = (LINE, "#d9822b", "#3a8f5c", "#8b5bb0", "#b8434e")
_CONTROLS = ("#9aa1a9", "#c9cdd2")
_BARS = {"ecolor": INK, "elinewidth": 1.0, "capsize": 2.5}
_HEADERS = {"all": "all labels", "knn": "kNN"}


def plot_few_labels(results: Results, path: PathLike) -> None:
    """Draw accuracy by number of labels, each method beside the controls.

    Args:
        results: What :func:`~orchestra_strategy.evaluation.protocol.probe_protocol` returned; of
            its measures accuracy alone is drawn.
        path: The picture; the suffix gives the format, missing folders are made.

    Raises:
        DataError: No results, or feature sets that were measured by different probes.
        ImportError: Matplotlib is not installed.
    """
    probes = [probe for probe in _common(results) if " " not in probe]
    names = sorted(results, key=lambda name: name in CONTROLS)
    colours = _colours(names)
    width = 0.84 / len(names)
    figure = new_figure(7.6, 3.4)
    axis = figure.subplots()
    for i, name in enumerate(names):
        means, spreads = _percent([results[name][probe] for probe in probes])
        x = np.arange(len(probes)) + (i - (len(names) - 1) / 2) * width
        bars = {**_BARS, "capsize": 2.5 if width > 0.1 else 1.0}
        axis.bar(
            x, means, 0.92 * width, yerr=spreads, color=colours[name], label=name, error_kw=bars
        )
        for at, value, spread in zip(x, means, spreads, strict=True):
            above = value + (0.0 if math.isnan(spread) else spread) + 1.5
            axis.text(at, above, f"{value:.0f}", ha="center", fontsize=7.5, color=INK)
    axis.set_xticks(range(len(probes)), [_label(probe) for probe in probes])
    axis.set_ylim(0, 108)
    axis.set_yticks(range(0, 101, 20))
    axis.set_title("accuracy on the test set, %", loc="left", color=INK, fontsize=10)
    bare_axis(axis)
    axis.tick_params(axis="x", colors=INK)
    axis.legend(
        ncols=len(names), frameon=False, fontsize=8.5, loc="lower right", bbox_to_anchor=(1.0, 1.0)
    )
    save_figure(figure, path)


def plot_ranking(results: Results, path: PathLike) -> None:
    """Draw methods and controls below one another, a panel for each measure.

    Args:
        results: Name -> result by the measure's name, in the order to draw; the same measures for
            all. A value that was not measured is left out.
        path: The picture; the suffix gives the format, missing folders are made.

    Raises:
        DataError: No results.
        ImportError: Matplotlib is not installed.
    """
    measures = list(dict.fromkeys(measure for by in results.values() for measure in by))
    if not measures:
        raise DataError("Expected `results` to have a result, got none.")
    names = list(results)
    figure = new_figure(max(5.5, 1.6 + 3.1 * len(measures)), 0.9 + 0.3 * len(names))
    axes = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for axis, measure in zip(axes, measures, strict=True):
        _draw_ranking(axis, {n: results[n][measure] for n in names if measure in results[n]}, names)
        axis.set_title(measure, loc="left", color=INK, fontsize=10)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    axes[0].tick_params(axis="y", colors=INK)
    save_figure(figure, path)


def _draw_ranking(axis: "Axes", results: Mapping[str, ProbeResult], names: list[str]) -> None:
    """Draw one measure; the better control goes on as a line, which methods must pass."""
    colours = {name: "#9aa1a9" if _is_control(name) else LINE for name in names}
    means, spreads = _percent(list(results.values()))
    rows = [names.index(name) for name in results]
    axis.barh(rows, means, 0.66, xerr=spreads, color=[colours[n] for n in results], error_kw=_BARS)
    for row, value, spread in zip(rows, means, spreads, strict=True):
        beyond = value + (0.0 if math.isnan(spread) else spread)
        axis.annotate(
            f"{value:.1f}",
            (beyond, row),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
            color=INK,
        )
    best = [v for name, v in zip(results, means, strict=True) if _is_control(name)]
    if best:
        axis.axvline(max(best), color=MUTED, linewidth=1.0, linestyle=(0, (4, 3)))
    bare_axis(axis)
    axis.grid(visible=False, axis="y")
    axis.grid(visible=True, axis="x", color="#e4e4e4", linewidth=0.8)
    tops = [v + (0.0 if math.isnan(s) else s) for v, s in zip(means, spreads, strict=True)]
    axis.set_xlim(0, 1.16 * max(tops) or 1.0)  # room for the numbers


def _common(results: Results) -> list[str]:
    """Return the probes' keys in order, if every feature set has the same."""
    if not results or len({tuple(sorted(by_probe)) for by_probe in results.values()}) > 1:
        raise DataError(
            "Expected `results` to have feature sets with the same probes, got "
            f"{ {name: sorted(by_probe) for name, by_probe in results.items()} }."
        )
    return list(next(iter(results.values())))


def _percent(results: list[ProbeResult]) -> tuple[list[float], list[float]]:
    """Return means and deviations; a single value has no deviation, which NaN does not draw."""
    spreads = [100 * r.std if len(r.values) > 1 else math.nan for r in results]
    return [100 * r.mean for r in results], spreads


def _label(probe: str) -> str:
    few = f"{probe} of labels" if probe.endswith("%") else f"{probe} per class"
    return _HEADERS.get(probe, few)


def _is_control(name: str) -> bool:
    return name.split(" ")[0] in CONTROLS


def _colours(names: list[str]) -> dict[str, str]:
    methods = [name for name in names if name not in CONTROLS]
    controls = [name for name in names if name in CONTROLS]
    return {name: _METHODS[i % len(_METHODS)] for i, name in enumerate(methods)} | {
        name: _CONTROLS[i % len(_CONTROLS)] for i, name in enumerate(controls)
    }
