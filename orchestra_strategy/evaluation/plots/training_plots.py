"""Two pictures of a training: its losses over the rounds, and a map of the features."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from orchestra_strategy.errors import DataError
from orchestra_strategy.evaluation.array_checks import Array, as_numpy, check_features, check_labels
from orchestra_strategy.evaluation.plots.figures import (
    INK,
    LINE,
    MUTED,
    bare_axis,
    named_classes,
    new_figure,
    save_figure,
)
from orchestra_strategy.files import PathLike
from orchestra_strategy.rng import derive_seed, numpy_generator

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_embedding_map", "plot_learning_curve"]

_MAX_POINTS = 1000  # t-SNE on 2 cores stays within seconds, and more points only overlap
_MIN_POINTS = 5  # below, t-SNE has no sensible perplexity
_MAP_SIDE = 4.2  # inches


def plot_learning_curve(history: Mapping[str, Sequence[float]], path: PathLike) -> None:
    """Draw each series of a training's history in a panel of its own.

    Args:
        history: Name of a loss part -> one value per round.
        path: The picture; the suffix gives the format, missing folders are made.

    Raises:
        DataError: There is no series, or an empty one.
        ImportError: Matplotlib is not installed.
    """
    empty = [name for name, values in history.items() if not len(values)]
    if not history or empty:
        got = f"an empty series `{empty[0]}`" if empty else "none"
        raise DataError(f"Expected `history` to have series with a value per round, got {got}.")
    columns = 2 if len(history) == 4 else min(len(history), 3)
    rows = math.ceil(len(history) / columns)
    figure = new_figure(3.4 * columns, 2.5 * rows)
    axes = figure.subplots(rows, columns, sharex=True, squeeze=False).flatten()
    for axis, (name, values) in zip(axes, history.items(), strict=False):
        _draw_series(axis, name.replace("_", " "), values)
    for axis in axes[len(history) :]:
        axis.set_visible(False)
    # Set once, for the longest: the panels share it, so that equal rounds stand below each other.
    axes[0].set_xlim(0.5, max(map(len, history.values())) + 0.5)
    # The last panel of each column carries the common x axis, also where the last row is short.
    for axis in axes[max(0, len(history) - columns) : len(history)]:
        axis.tick_params(labelbottom=True)
        axis.set_xlabel("round", color=MUTED)
    save_figure(figure, path)


def plot_embedding_map(
    features: Array,
    labels: Array,
    path: PathLike,
    seed: int = 0,
    class_names: Sequence[str] | None = None,
    title: str = "",
) -> None:
    """Draw a two-dimensional t-SNE map of the features, coloured by class.

    L. van der Maaten, G. Hinton, "Visualizing Data using t-SNE", JMLR 9, 2008. Near points are
    similar; the size of a cluster and the distance between two of them mean nothing.

    Args:
        features: Shape (n, d) with n >= 5 and d >= 2; of more than 1000 rows, 1000 are drawn.
        labels: Shape (n,), integer; for the colours only.
        path: The picture; the suffix gives the format, missing folders are made.
        seed: Gives the sample of rows and the t-SNE; an equal seed gives an equal picture.
        class_names: Name of each class, by its number; None writes the numbers.
        title: Above the map, such as whose features they are.

    Raises:
        DataError: Features or labels are empty, not finite, too few, or do not match, or a class
            has no name.
        ImportError: Matplotlib is not installed.
    """
    check_features("features", features)
    check_labels("labels", labels, len(features))
    if len(features) < _MIN_POINTS or features.shape[1] < 2:
        raise DataError(
            f"Expected `features` to have at least {_MIN_POINTS} rows and 2 columns, got shape "
            f"{tuple(features.shape)}."
        )
    rows = numpy_generator(seed, "evaluation", 0, "map").permutation(len(features))[:_MAX_POINTS]
    classes = as_numpy(labels)[rows]
    present = np.unique(classes)
    names = named_classes(present, class_names)
    figure = new_figure(_MAP_SIDE, _MAP_SIDE)
    points = _tsne(as_numpy(features)[rows], seed)
    axis = figure.subplots()
    # One call for all classes: drawn class by class, the last would cover the first.
    colours = _palette(len(present))
    axis.scatter(
        points[:, 0],
        points[:, 1],
        s=16,
        c=[colours[i] for i in np.searchsorted(present, classes)],
        alpha=0.85,
        edgecolors="white",
        linewidths=0.3,
    )
    _fill_square(axis, points)
    told = f"{title}: t-SNE of {len(rows)} samples" if title else f"t-SNE of {len(rows)} samples"
    axis.set_title(told, loc="left", color=INK, fontsize=10)
    height = _add_legend(axis, names, colours)
    figure.set_size_inches(_MAP_SIDE, _MAP_SIDE + 0.3 + height)
    save_figure(figure, path)


def _draw_series(axis: "Axes", title: str, values: Sequence[float]) -> None:
    """Draw one series over the rounds 1..n, with its last value written at its end."""
    rounds = range(1, len(values) + 1)
    # Few rounds: show that the line is made of points. A single one would not be seen at all.
    marker = "o" if len(values) <= 20 else ""
    axis.plot(rounds, values, color=LINE, linewidth=1.6, marker=marker, markersize=4)
    axis.set_title(title, loc="left", color=INK, fontsize=10)
    axis.set_title(f"{values[-1]:.3g}", loc="right", color=LINE, fontsize=10)
    axis.locator_params(axis="x", integer=True, nbins=6)
    bare_axis(axis)


def _tsne(features: npt.NDArray[Any], seed: int) -> npt.NDArray[Any]:
    """Return the map's coordinates (n, 2)."""
    tsne = TSNE(
        init="pca",
        perplexity=min(30.0, (len(features) - 1) / 3),
        random_state=derive_seed(seed, "evaluation", 0, "t-SNE") % 2**32,
    )
    # One thread: the map depends on their number in the last digit, which t-SNE magnifies, and
    # two that share their cores with the parties' workers took ten times as long as one.
    with threadpool_limits(1):
        points: npt.NDArray[Any] = tsne.fit_transform(features.astype(np.float32))
    return points


def _palette(count: int) -> list[Any]:
    """Return one colour per class: ten or twenty that differ, beyond that a colour map."""
    from matplotlib import colormaps

    if count <= 20:
        return [colormaps["tab10" if count <= 10 else "tab20"](i) for i in range(count)]
    return [colormaps["turbo"](i / (count - 1)) for i in range(count)]


def _fill_square(axis: "Axes", points: npt.NDArray[Any]) -> None:
    """Let the points fill a square, both directions at one scale."""
    low, high = points.min(axis=0), points.max(axis=0)
    middle, half = (low + high) / 2, 0.53 * max(float((high - low).max()), 1e-6)
    axis.set_xlim(middle[0] - half, middle[0] + half)
    axis.set_ylim(middle[1] - half, middle[1] + half)
    axis.set(xticks=[], yticks=[], aspect="equal")
    axis.spines[:].set_color("#dddddd")


def _add_legend(axis: "Axes", names: Sequence[str], colours: Sequence[Any]) -> float:
    """Put the classes below the map, where they cover no point; return the height, in inches."""
    from matplotlib.lines import Line2D

    size = 8.0 if len(names) <= 20 else 5.5
    letter = 0.6 * size / 72  # inches, on average
    columns = max(1, int(0.95 * _MAP_SIDE / ((max(map(len, names)) + 3.5) * letter)))
    columns = min(columns, len(names))
    marks = [
        Line2D([], [], color=colour, marker="o", linestyle="", markersize=0.6 * size, label=name)
        for name, colour in zip(names, colours, strict=True)
    ]
    axis.legend(
        handles=marks,
        loc="upper left",
        bbox_to_anchor=(0.0, 0.0),
        borderaxespad=0.2,
        frameon=False,
        fontsize=size,
        ncols=columns,
        handlelength=1.0,
        handletextpad=0.1,
        columnspacing=0.8,
    )
    return math.ceil(len(names) / columns) * 1.5 * size / 72
