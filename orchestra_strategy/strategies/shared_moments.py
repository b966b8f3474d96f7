"""Centroids on route ``secure``: moments of the clusters that all parties share.

An aggregator returns the mean of what the parties hand it. Clusters depend on ratios of moments
alone, so the mean does as well as the sum.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orchestra_strategy.algorithms.clustering import random_unit_rows
from orchestra_strategy.algorithms.moments import (
    Moments,
    SharedClusters,
    clusters_from_moments,
    moments,
)
from orchestra_strategy.exchange.manifest import Entry
from orchestra_strategy.exchange.payload import FloatArray
from orchestra_strategy.rng import torch_generator
from orchestra_strategy.strategies.centroids import Centroids

__all__ = [
    "SharedMoments",
    "averaged_clusters",
    "first_clusters",
    "moment_arrays",
    "moment_entries",
]


class SharedMoments(Centroids):
    """Moments of the shared clusters go out and are summed; every party makes the same C of them.

    Attributes:
        clusters: Bit for bit the same at all parties after an exchange.
    """

    def __init__(self, config: Any, dim: int, seed: int) -> None:
        super().__init__(config, dim, seed)
        self.clusters = first_clusters(config.num_global_clusters, dim, seed)

    def forget(self) -> None:
        """Start with no sum."""
        self._sum: Moments | None = None

    def forget_data(self) -> None:
        """Keep the clusters, which are those of all parties."""

    def summary(self, rows: Tensor, num_clusters: int, generator: torch.Generator) -> Moments:
        """Return a user's moments."""
        return moments(rows.cpu(), self.clusters)

    def add(self, summary: Moments) -> None:
        """Add a user's moments; users are summed up before anything leaves."""
        self._sum = summary if self._sum is None else self._sum + summary

    def entries(self) -> tuple[Entry, ...]:
        """Return those of S (N_g, D) and n (N_g,)."""
        return moment_entries(self.config.num_global_clusters, self.dim)

    def reply_entries(self) -> tuple[Entry, ...]:
        """Return the same: the averaged moments come back."""
        return self.entries()

    def arrays(self, C: Tensor | None, generator: torch.Generator) -> dict[str, FloatArray]:
        """Return the sums; zeros, which change nothing, where nothing is new."""
        return moment_arrays(self._sum, self.config.num_global_clusters, self.dim)

    def receive(self, arrays: Mapping[str, FloatArray]) -> Tensor | None:
        """Make the next clusters of the averaged moments: the same bits from the same arrays."""
        self.forget()
        if not arrays["moments/n"].any():
            return None
        self.clusters = averaged_clusters(arrays, self.clusters)
        return self.clusters.C.clone()

    def state_dict(self) -> dict[str, Any]:
        """Return ``C`` and ``log_scaling``."""
        return {name: t.clone() for name, t in self.clusters._asdict().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the clusters; a sum that has not been sent is forgotten."""
        self.clusters = SharedClusters(state["C"].clone(), state["log_scaling"].clone())
        self.forget()

    def common_state(self) -> dict[str, Any]:
        """Return the clusters, which are the same at all parties."""
        return {f"clusters/{name}": t.numpy() for name, t in self.state_dict().items()}

    def load_common_state(self, state: Mapping[str, Any]) -> None:
        """Take the clusters."""
        self.load_state_dict(
            {
                name: torch.from_numpy(np.array(state[f"clusters/{name}"]))
                for name in ("C", "log_scaling")
            }
        )


def moment_entries(num_global_clusters: int, dim: int) -> tuple[Entry, ...]:
    """Return the manifest's entries for moments; N_g clusters of projections of length ``dim``."""
    return (
        Entry(
            name="moments/S",
            shape=(num_global_clusters, dim),
            dtype="float32",
            combine="secure sum",
            to="aggregator",
            meaning="per cluster, the sum of the party's projections, each by its share in the "
            "cluster",
        ),
        Entry(
            name="moments/n",
            shape=(num_global_clusters,),
            dtype="float32",
            combine="secure sum",
            to="aggregator",
            meaning="per cluster, the sum of those shares",
        ),
    )


def moment_arrays(
    moments: Moments | None, num_global_clusters: int, dim: int
) -> dict[str, FloatArray]:
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
