"""A party's side of route ``secure``: moments of its users' memories out, clusters of them in."""

from collections.abc import Mapping

from torch import Tensor

from orchestra_strategy.aggregation.secure import (
    averaged_clusters,
    first_clusters,
    moment_arrays,
    moment_entries,
)
from orchestra_strategy.aggregation.weighted import FloatArray
from orchestra_strategy.algorithms.moments import Moments, moments
from orchestra_strategy.payload import Entry

__all__ = ["SharedClustering"]


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
