"""Two pictures of clusters: which classes they hold, and how evenly they are used."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from orchestra_strategy.evaluation.array_checks import Array, as_numpy
from orchestra_strategy.evaluation.clustering_metrics import cluster_class_table
from orchestra_strategy.evaluation.encoder_health import cluster_balance
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

__all__ = ["plot_cluster_balance", "plot_cluster_confusion"]


def plot_cluster_confusion(
    clusters: Array, labels: Array, path: PathLike, class_names: Sequence[str] | None = None
) -> None:
    """Draw which classes each cluster holds: a heat map of classes by clusters.

    Clusters stand in the order of their majority classes, so good ones form a diagonal of blocks;
    empty ones are left out. A cell is the fraction of its cluster, since clusters differ in size.

    Args:
        clusters: Cluster of each sample, shape (n,), integers of at least 0.
        labels: Class of each sample, shape (n,), integers of at least 0.
        path: The picture; the suffix gives the format, missing folders are made.
        class_names: Name of each class, by its number; None writes the numbers.

    Raises:
        DataError: Empty, of different lengths, or not integers of at least 0; or a class has no
            name.
        ImportError: Matplotlib is not installed.
    """
    table = cluster_class_table(clusters, labels)
    present = np.flatnonzero(table.sum(axis=1))
    order = _by_majority(table)
    shares = table[np.ix_(present, order)] / table[:, order].sum(axis=0)
    rows, columns = shares.shape
    names = named_classes(present.tolist(), class_names)
    longest = 0.06 * max(map(len, names))  # inches
    figure = new_figure(min(3.2 + longest + 0.2 * columns, 14), min(2.2 + 0.2 * rows, 12))
    axis = figure.subplots()
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="none")
    # More than 60 numbers on one side would only cover each other.
    y_step, x_step = -(-rows // 60), -(-columns // 60)
    axis.set_yticks(range(0, rows, y_step), names[::y_step])
    axis.set_xticks(range(0, columns, x_step), [str(c) for c in order[::x_step]], rotation=90)
    axis.tick_params(colors=MUTED, labelsize=8, length=0)
    axis.spines[:].set_color("#bbbbbb")
    axis.set_xlabel("cluster, by its majority class", color=MUTED)
    axis.set_ylabel("class", color=MUTED)
    figure.colorbar(image, ax=axis, label="fraction of the cluster")
    save_figure(figure, path)


def plot_cluster_balance(assignments: Array, num_clusters: int, path: PathLike) -> None:
    """Draw the sizes of the clusters, largest first, beside the size of equal ones.

    Args:
        assignments: Cluster of each sample, shape (n,), integers in [0, num_clusters).
        num_clusters: How many clusters there are, empty ones included; at least 2.
        path: The picture; the suffix gives the format, missing folders are made.

    Raises:
        DataError: ``assignments`` is empty, or no integers in the range.
        ParameterError: ``num_clusters`` is below 2.
        ImportError: Matplotlib is not installed.
    """
    balance = cluster_balance(assignments, num_clusters)
    sizes = np.bincount(as_numpy(assignments).astype(np.int64), minlength=num_clusters)
    sizes = np.sort(sizes)[::-1]
    equal = len(assignments) / num_clusters
    figure = new_figure(min(3.0 + 0.05 * num_clusters, 14), 2.8)
    axis = figure.subplots()
    axis.bar(np.arange(1, num_clusters + 1), sizes, width=0.85, color=LINE)
    axis.axhline(equal, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    right_of_axis = axis.get_yaxis_transform()  # x in fractions of the axis, y in samples
    axis.text(1.01, equal, "equal", color=INK, fontsize=8, va="center", transform=right_of_axis)
    axis.set_title(f"{num_clusters} clusters", loc="left", color=INK, fontsize=10)
    axis.set_title(f"balance {balance:.3f}", loc="right", color=LINE, fontsize=10)
    axis.set_xlabel("cluster, largest first", color=MUTED)
    axis.set_ylabel("samples", color=MUTED)
    axis.set_xlim(0.4, num_clusters + 0.6)
    axis.locator_params(integer=True)
    bare_axis(axis)
    save_figure(figure, path)


def _by_majority(table: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the clusters that have samples, by majority class and then by its share, falling.

    >>> _by_majority(np.array([[0, 0, 3, 2], [4, 0, 1, 0]])).tolist()
    [3, 2, 0]
    """
    sizes = table.sum(axis=0)
    majority = table.argmax(axis=0)
    share = table.max(axis=0) / np.maximum(sizes, 1)
    order = np.lexsort((-share, majority))  # the last key is the first to sort by
    filled: npt.NDArray[np.int64] = order[sizes[order] > 0]
    return filled
