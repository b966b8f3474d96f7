"""Centroid route ``secure``: moments as arrays for an aggregator, and averages of them as clusters.

An aggregator returns the mean of what the parties hand it. Clusters depend on ratios of moments
alone, so the mean does as well as the sum.
"""

from collections.abc import Mapping

import numpy as np
import torch

from orchestra_strategy.aggregation.weighted import FloatArray
from orchestra_strategy.algorithms.clustering import random_unit_rows
from orchestra_strategy.algorithms.moments import Moments, SharedClusters, clusters_from_moments
from orchestra_strategy.payload import Entry
from orchestra_strategy.rng import torch_generator

__all__ = ["averaged_clusters", "first_clusters", "moment_arrays", "moment_entries"]


def moment_entries(num_global_clusters: int, dim: int) -> tuple[Entry, ...]:
    """Return the manifest's entries for moments; N_g clusters of projections of length ``dim``."""
    return (
        Entry(
            *("moments/S", (num_global_clusters, dim), "float32", "secure sum", "aggregator"),
            "per cluster, the sum of the party's projections, each by its share in the cluster",
        ),
        Entry(
            *("moments/n", (num_global_clusters,), "float32", "secure sum", "aggregator"),
            "per cluster, the sum of those shares",
        ),
    )


def moment_arrays(moments: Moments | None, num_global_clusters: int, dim: int) -> dict:  # type: ignore[type-arg]
    """Return the arrays of :func:`moment_entries`; zeros, which change nothing, for None."""
    if moments is None:
        return {
            "moments/S": np.zeros((num_global_clusters, dim), np.float32),
            "moments/n": np.zeros(num_global_clusters, np.float32),
        }
    S, n = (m.to("cpu", torch.float32, copy=True).numpy() for m in moments)
    return {"moments/S": S, "moments/n": n}


def first_clusters(num_global_clusters: int, dim: int, seed: int) -> SharedClusters:
    """Return the clusters that all parties start from; the root seed alone decides."""
    generator = torch_generator(seed, "all parties", 0, "global centroids")
    C = random_unit_rows(num_global_clusters, dim, generator)
    return SharedClusters(C, torch.zeros(num_global_clusters))


def averaged_clusters(arrays: Mapping[str, FloatArray], clusters: SharedClusters) -> SharedClusters:
    """Return the next clusters from averaged moments: the same bits from the same arrays.

    Args:
        arrays: The mean over parties of the arrays of :func:`moment_arrays`.
        clusters: Those that the moments were taken under.
    """
    S, n = (torch.from_numpy(np.array(arrays[f"moments/{name}"])) for name in ("S", "n"))
    return clusters_from_moments(Moments(S, n), clusters)
