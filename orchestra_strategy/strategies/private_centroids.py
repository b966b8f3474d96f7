"""Centroids with noise: what a private party sends of its clusters, on both routes.

The local centroids of Orchestra have no useful sensitivity, since clustering depends on all samples
at once. So a party releases the noisy moments of the global clusters over its samples: on route
``server`` it makes its centroids of them, on route ``secure`` they are what is summed up.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from orchestra_strategy.algorithms.moments import Moments, moments
from orchestra_strategy.exchange.manifest import Entry
from orchestra_strategy.exchange.payload import FloatArray
from orchestra_strategy.party.user_types import USER_TYPES
from orchestra_strategy.privacy.private_moments import (
    bounded,
    centroids_of_moments,
    nearest_moments,
)
from orchestra_strategy.strategies.centroids import Centroids, LocalCentroids
from orchestra_strategy.strategies.shared_moments import SharedMoments

__all__ = ["NoisyCentroids", "NoisyLocalCentroids", "NoisyMoments"]

_NOISY = "noisy sums of projections by global cluster"


class NoisyCentroids(Centroids):
    """What both routes have beside :class:`Centroids`."""

    @abstractmethod
    def assign(self, Z: Tensor, C: Tensor) -> Moments:
        """Return the moments of projections Z (B, D) under global centroids C (N_g, D)."""

    @abstractmethod
    def release(self, noisy: Moments, least: float) -> None:
        """Send private moments next; clusters of a count below ``least`` are as good as noise."""


class NoisyLocalCentroids(NoisyCentroids, LocalCentroids):
    """Directions of noisy sums of projections, in place of means of a few samples."""

    _noisy: Tensor | None = None

    def forget_data(self) -> None:
        """Drop the centroids."""
        super().forget_data()
        self._noisy = None

    def assign(self, Z: Tensor, C: Tensor) -> Moments:
        """Count each projection for its nearest centroid."""
        return nearest_moments(Z, C)

    def release(self, noisy: Moments, least: float) -> None:
        """Make centroids of the largest clusters."""
        users = USER_TYPES[self.config.user_type].users_of(self.config)
        most = self.config.num_local_clusters * users
        self._noisy = centroids_of_moments(noisy, most, least).to(torch.float32)

    def entries(self) -> tuple[Entry, ...]:
        """Return the entries, with another meaning of the local centroids."""
        meaning = f"directions of the {_NOISY}; none in round 0"
        return tuple(
            entry._replace(meaning=meaning) if entry.name == "local_centroids" else entry
            for entry in super().entries()
        )

    def arrays(self, C: Tensor | None, generator: torch.Generator) -> dict[str, FloatArray]:
        """Return the last noisy centroids, and the echo."""
        arrays = super().arrays(C, generator)
        if self._noisy is not None:
            arrays["local_centroids"] = self._noisy.cpu().numpy()
        return arrays

    def state_dict(self) -> dict[str, Any]:
        """Return the last noisy centroids."""
        return {**super().state_dict(), "noisy": self._noisy}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the state of :meth:`state_dict`."""
        super().load_state_dict(state)
        self._noisy = state["noisy"]


class NoisyMoments(NoisyCentroids, SharedMoments):
    """Moments of the shared clusters that carry noise; the first clusters are known to all."""

    def assign(self, Z: Tensor, C: Tensor) -> Moments:
        """Return the moments under the shared clusters, of projections no longer than 1."""
        own = moments(bounded(Z).cpu(), self.clusters)
        return Moments(own.S.to(C), own.n.to(C))

    def release(self, noisy: Moments, least: float) -> None:
        """Send the moments as they are: their sum over the parties is what counts."""
        self._sum = noisy

    def entries(self) -> tuple[Entry, ...]:
        """Return the entries, with their noise in the meaning."""
        meanings = {
            "moments/S": f"{_NOISY}; zeros in round 0",
            "moments/n": "noisy sizes of the global clusters; zeros in round 0",
        }
        return tuple(entry._replace(meaning=meanings[entry.name]) for entry in super().entries())

    def receive(self, arrays: Mapping[str, FloatArray]) -> Tensor:
        """Return the clusters after the exchange; before any they are random."""
        super().receive(arrays)
        return self.clusters.C.clone()
