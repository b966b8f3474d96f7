"""Clusters against classes: NMI, adjusted Rand index, accuracy and purity.

NMI and ARI are scikit-learn's, in float64 and safe for any number of samples; torchmetrics' ARI
multiplies pair counts in int64, which at 100,000 samples came out with the wrong sign.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from orchestra_strategy.errors import DataError, ParameterError
from orchestra_strategy.evaluation.array_checks import Array, as_numpy, check_features, check_labels
from orchestra_strategy.rng import derive_seed

__all__ = ["ClusteringScores", "cluster_class_table", "cluster_features", "clustering_scores"]


@dataclass(frozen=True)
class ClusteringScores:
    """How well clusters match classes; all but ``ari`` are in [0, 1], and 1 is best.

    Attributes:
        nmi: Mutual information / mean of the two entropies; rises with the number of clusters.
        ari: Rand index adjusted for chance: 0 for random clusters, 1 for the classes themselves.
        accuracy: Fraction of samples that are right if every class gets at most one cluster, and
            every cluster at most one class, in the best way (Hungarian matching). Clusters beyond
            the number of classes count as wrong, so compare it at equal numbers only.
        purity: Fraction that is right if every cluster takes its majority class, many to one. Never
            below ``accuracy``; 1 where every sample is a cluster of its own.
        num_clusters: Clusters that have a sample.
        num_classes: Classes that have a sample.
    """

    nmi: float
    ari: float
    accuracy: float
    purity: float
    num_clusters: int
    num_classes: int


def clustering_scores(clusters: Array, labels: Array) -> ClusteringScores:
    """Compare predicted clusters with classes; the names of neither matter.

    Args:
        clusters: Cluster of each sample, shape (n,), integer.
        labels: Class of each sample, shape (n,), integer.

    Raises:
        DataError: Empty, of different lengths, or not integers of at least 0.

    >>> clustering_scores(np.array([2, 2, 0, 1]), np.array([0, 0, 1, 1])).accuracy
    0.75
    """
    _check_pair(clusters, labels)
    # By rank, so that a table of large but few names stays small.
    classes, class_of = np.unique(as_numpy(labels), return_inverse=True)
    names, cluster_of = np.unique(as_numpy(clusters), return_inverse=True)
    table = cluster_class_table(cluster_of, class_of)
    rows, columns = linear_sum_assignment(table, maximize=True)
    return ClusteringScores(
        nmi=float(normalized_mutual_info_score(class_of, cluster_of)),
        ari=float(adjusted_rand_score(class_of, cluster_of)),
        accuracy=float(table[rows, columns].sum() / len(class_of)),
        purity=float(table.max(axis=0).sum() / len(class_of)),
        num_clusters=len(names),
        num_classes=len(classes),
    )


def cluster_class_table(
    clusters: Array,
    labels: Array,
    num_clusters: int | None = None,
    num_classes: int | None = None,
) -> npt.NDArray[np.int64]:
    """Count the samples of each class in each cluster: the contingency matrix.

    Args:
        clusters: Cluster of each sample, shape (n,), integers of at least 0.
        labels: Class of each sample, shape (n,), integers of at least 0.
        num_clusters: Number of columns; the highest cluster + 1 by default.
        num_classes: Number of rows; the highest class + 1 by default.

    Returns:
        Counts, shape (num_classes, num_clusters).

    Raises:
        DataError: Empty, of different lengths, or not integers of at least 0.
        ParameterError: A number is not above the highest cluster or class.

    >>> cluster_class_table(np.array([0, 1, 1]), np.array([0, 0, 1])).tolist()
    [[1, 1], [0, 1]]
    """
    _check_pair(clusters, labels)
    columns = _count("num_clusters", num_clusters, clusters)
    rows = _count("num_classes", num_classes, labels)
    table = np.zeros((rows, columns), np.int64)
    np.add.at(table, (as_numpy(labels), as_numpy(clusters)), 1)
    return table


def cluster_features(
    features: Array, num_clusters: int, seed: int = 0, restarts: int = 10
) -> npt.NDArray[np.int64]:
    """Cluster features by k-means (k-means++ starts), the best of several restarts.

    Distances are Euclidean: normalise the rows first where the cosine is meant.

    Args:
        features: Shape (n, d), floating.
        num_clusters: At most n. Where fewer rows are distinct, fewer clusters are used.
        seed: Gives the starts; an equal seed gives equal clusters.
        restarts: The one with the smallest squared distance to the centroids counts.

    Returns:
        Cluster of each row, shape (n,), int64 in [0, num_clusters).

    Raises:
        DataError: ``features`` is empty or not finite, or has fewer rows than ``num_clusters``.
        ParameterError: ``num_clusters`` or ``restarts`` is below 1.

    >>> near, near_too, far = cluster_features(np.array([[0.0], [0.1], [9.0]]), num_clusters=2)
    >>> near == near_too != far
    True
    """
    check_features("features", features)
    for name, value in (("num_clusters", num_clusters), ("restarts", restarts)):
        if value < 1:
            raise ParameterError(f"Expected `{name}` to be at least 1, got {value}.")
    if num_clusters > len(features):
        raise DataError(
            f"Expected `features` to have at least `num_clusters` = {num_clusters} rows, got "
            f"{len(features)}. Ask for fewer clusters."
        )
    start = derive_seed(seed, "evaluation", 0, "k-means") % 2**32
    kmeans = KMeans(num_clusters, n_init=restarts, random_state=start)
    # One thread: sums over threads end differently in the last digit, which can move a sample.
    with threadpool_limits(1), warnings.catch_warnings():
        # Collapsed features have fewer distinct rows than clusters. That is a result, and seen in
        # the scores.
        warnings.simplefilter("ignore", ConvergenceWarning)
        clusters: npt.NDArray[np.int64] = kmeans.fit_predict(
            as_numpy(features).astype(np.float64)
        ).astype(np.int64)
    return clusters


def _check_pair(clusters: Array, labels: Array) -> None:
    check_labels("clusters", clusters, len(clusters))
    check_labels("labels", labels, len(clusters))
    if not len(clusters):
        raise DataError("Expected `clusters` to have at least one sample, got none.")


def _count(name: str, given: int | None, values: Array) -> int:
    """Return the length of one side of the table."""
    highest = int(values.max())
    if given is not None and given <= highest:
        raise ParameterError(f"Expected `{name}` to be above {highest}, got {given}.")
    return highest + 1 if given is None else given
