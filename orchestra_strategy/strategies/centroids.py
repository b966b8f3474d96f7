"""A party's side of the exchange of clusters, one object for each route.

On route ``server`` a party's local centroids leave it, and the server clusters them; for route
``secure`` see :mod:`~orchestra_strategy.strategies.shared_moments`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orchestra_strategy.algorithms.clustering import LocalClusters, compactness, local_clustering
from orchestra_strategy.exchange.manifest import Entry
from orchestra_strategy.exchange.payload import FloatArray
from orchestra_strategy.party.user_types import USER_TYPES

__all__ = ["Centroids", "LocalCentroids"]


class Centroids(ABC):
    """A party's side of the exchange of clusters.

    Args:
        config: Orchestra's parameters.
        dim: D, the length of a projection.
        seed: Root seed, the same at all parties.
    """

    def __init__(self, config: Any, dim: int, seed: int) -> None:
        self.config, self.dim = config, dim
        self.forget()

    @abstractmethod
    def forget(self) -> None:
        """Start with nothing to send."""

    @abstractmethod
    def forget_data(self) -> None:
        """Drop what is tied to samples of a former fit."""

    @abstractmethod
    def summary(self, rows: Tensor, num_clusters: int, generator: torch.Generator) -> Any:
        """Return what is sent of a user's memory; it depends on nothing of other users.

        Args:
            rows: Unit-norm projections of different samples, shape (m, D).
            num_clusters: N_l of this user; 0 where it has too few samples for any.
            generator: Source of the clustering's randomness.
        """

    @abstractmethod
    def add(self, summary: Any) -> None:
        """Add a user's :meth:`summary` to those of the users before it."""

    @abstractmethod
    def entries(self) -> tuple[Entry, ...]:
        """Return the manifest's entries of what is sent."""

    @abstractmethod
    def arrays(self, C: Tensor | None, generator: torch.Generator) -> dict[str, FloatArray]:
        """Return what is sent.

        Args:
            C: The present global centroids (N_g, D); None if there have been none so far.
            generator: Source of the order of the users' centroids.
        """

    @abstractmethod
    def reply_entries(self) -> tuple[Entry, ...]:
        """Return the manifest's entries of what comes back."""

    @abstractmethod
    def receive(self, arrays: Mapping[str, FloatArray]) -> Tensor | None:
        """Return the new global centroids (N_g, D), or None where nobody had any samples."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the state of :meth:`state_dict`."""

    @abstractmethod
    def common_state(self) -> dict[str, Any]:
        """Return arrays that all parties make the global centroids of."""

    @abstractmethod
    def load_common_state(self, state: Mapping[str, Any]) -> None:
        """Take the arrays of :meth:`common_state`."""


class LocalCentroids(Centroids):
    """Local centroids go up, the last global ones as an echo: the server has no memory.

    Attributes:
        by_user: The clusters of each user of the round.
    """

    def forget(self) -> None:
        """Start without clusters."""
        self.by_user: list[LocalClusters] = []
        self._qualities: list[tuple[float, int]] = []

    def forget_data(self) -> None:
        """Drop the clusters."""
        self.forget()

    def summary(self, rows: Tensor, num_clusters: int, generator: torch.Generator) -> Any:
        """Cluster a user's memory; every centroid is the mean of ``k_min`` samples or more."""
        if num_clusters == 0:
            return None
        k_min = self.config.k_min
        found = local_clustering(rows, num_clusters, k_min=k_min, generator=generator)
        wanted = self.config.combining.needs_quality
        return found, (compactness(rows, found.centroids), len(rows)) if wanted else None

    def add(self, summary: Any) -> None:
        """Add a user's clusters."""
        if summary is None:
            return
        found, quality = summary
        self.by_user.append(found)
        if quality is not None:
            self._qualities.append(quality)

    def entries(self) -> tuple[Entry, ...]:
        """Return those of the centroids, and of their quality where the server weighs by it."""
        config = self.config
        users = USER_TYPES[config.user_type].users_of(config)
        local = Entry(
            name="local_centroids",
            shape=(None, self.dim),
            dtype="float32",
            combine="clustered",
            to="server",
            meaning=f"unit-norm means of at least k_min = {config.k_min} of a user's samples' "
            "projections each",
            max_rows=config.num_local_clusters * users,
        )
        quality = Entry(
            name="quality",
            shape=(1,),
            dtype="float32",
            combine="factor of the weight",
            to="server",
            meaning="mean cosine of memory rows to their nearest local centroid, in [0, 1]",
        )
        more = (quality,) if config.combining.needs_quality else ()
        return (local, *self.reply_entries(), *more)

    def reply_entries(self) -> tuple[Entry, ...]:
        """Return that of the global centroids, which come back to every party."""
        return (
            Entry(
                name="global_centroids",
                shape=(self.config.num_global_clusters, self.dim),
                dtype="float32",
                combine="echo",
                to="server",
                meaning="what the server sent last; zeros in round 0",
            ),
        )

    def arrays(self, C: Tensor | None, generator: torch.Generator) -> dict[str, FloatArray]:
        """Return the centroids of all users in random order, and the echo."""
        local = torch.cat([torch.empty(0, self.dim), *(c.centroids.cpu() for c in self.by_user)])
        if len(self.by_user) > 1:  # nobody is to learn which user's is which
            local = local[torch.randperm(len(local), generator=generator)]
        if C is None:
            C = torch.zeros(self.config.num_global_clusters, self.dim)
        arrays: dict[str, FloatArray] = {
            "local_centroids": local.numpy(),
            "global_centroids": C.to("cpu", torch.float32, copy=True).numpy(),
        }
        return arrays | (
            {"quality": self._quality()} if self.config.combining.needs_quality else {}
        )

    def _quality(self) -> FloatArray:
        """Return how compact the users' clusters are, (1,), by rows; 0 before any clustering."""
        rows = sum(n for _, n in self._qualities)
        quality = sum(q * n for q, n in self._qualities) / rows if rows else 0.0
        return np.array([min(quality, 1.0)], np.float32)

    def receive(self, arrays: Mapping[str, FloatArray]) -> Tensor | None:
        """Return the server's global centroids."""
        return torch.from_numpy(np.array(arrays["global_centroids"]))

    def state_dict(self) -> dict[str, Any]:
        """Return the clusters."""
        return {
            "clusters": [clusters._asdict() for clusters in self.by_user],
            "qualities": [list(quality) for quality in self._qualities],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the clusters."""
        self.by_user = [LocalClusters(**clusters) for clusters in state["clusters"]]
        self._qualities = [(quality, rows) for quality, rows in state["qualities"]]

    def common_state(self) -> dict[str, Any]:
        """Return nothing: it is the server that makes the global centroids."""
        return {}

    def load_common_state(self, state: Mapping[str, Any]) -> None:
        """Take nothing."""
