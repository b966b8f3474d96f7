"""A party's side of route ``secure``: moments of its users' memories out, clusters of them in."""

from collections.abc import Mapping

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

__all__ = [
    "SharedClustering",
    "averaged_clusters",
    "first_clusters",
    "moment_arrays",
    "moment_entries",
]


class SharedClustering:
    """The clusters that all parties share, and what this one adds to them.

    Args:
        num_clusters: N_g.
        dim: Length of a projection.
        seed: Root seed, the same at all parties.

    Attributes:
        clusters: Bit for bit the same at all parties after an exchange.
    """

    def __init__(self, num_clusters: int, dim: int, seed: int) -> None:
        self.num_clusters, self.dim = num_clusters, dim
        self.clusters = first_clusters(num_clusters, dim, seed)
        self.forget()

    def forget(self) -> None:
        """Start with nothing to send."""
        self._sum: Moments | None = None

    def add(self, rows: Tensor) -> None:
        """Add a user's memory (m, D); users are summed up before anything leaves."""
        new = moments(rows.cpu(), self.clusters)
        self._sum = new if self._sum is None else self._sum + new

    def entries(self) -> tuple[Entry, ...]:
        """Return the manifest's entries."""
        return moment_entries(self.num_clusters, self.dim)

    def arrays(self) -> dict[str, FloatArray]:
        """Return what leaves; zeros where nothing is new."""
        return moment_arrays(self._sum, self.num_clusters, self.dim)

    def receive(self, arrays: Mapping[str, FloatArray]) -> Tensor | None:
        """Take the mean over the parties; return C, or None if there were no samples."""
        self.forget()
        if not arrays["moments/n"].any():
            return None
        self.clusters = averaged_clusters(arrays, self.clusters)
        return self.clusters.C.clone()

    def send(self, total: Moments) -> None:
        """Send ``total`` next, which the party has made itself."""
        self._sum = total

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a checkpoint needs: ``C`` and ``log_scaling``."""
        return {name: t.clone() for name, t in self.clusters._asdict().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take the state of :meth:`state_dict`."""
        self.clusters = type(self.clusters)(state["C"].clone(), state["log_scaling"].clone())
        self.forget()


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
