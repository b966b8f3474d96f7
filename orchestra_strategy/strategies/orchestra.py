"""Strategy ``orchestra``: the full method, on centroid route ``server`` or ``secure``.

This module must not import annotations from the future: SecretFlow reads ``train_step``'s.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from orchestra_strategy.algorithms.clustering import LocalClusters, compactness
from orchestra_strategy.algorithms.objective import Batch
from orchestra_strategy.algorithms.orchestra_objective import OrchestraObjective
from orchestra_strategy.config import StrategyConfig
from orchestra_strategy.errors import ParameterError
from orchestra_strategy.exchange.manifest import Entry
from orchestra_strategy.exchange.payload import FloatArray
from orchestra_strategy.party.data import PartyData
from orchestra_strategy.party.user_store import UserStore
from orchestra_strategy.strategies.centroids import SharedClustering
from orchestra_strategy.strategies.orchestra_config import ClusterSizes, OrchestraConfig
from orchestra_strategy.strategies.registry import register_strategy
from orchestra_strategy.strategies.self_supervised import TargetNetworkStrategy, require_equal

__all__ = ["OrchestraStrategy"]

_log = logging.getLogger(__name__)


@register_strategy(strategy_name="orchestra", backend="torch")
class OrchestraStrategy(TargetNetworkStrategy):
    """One party of Orchestra; parameters are those of :class:`OrchestraConfig`.

    >>> from functools import partial
    >>> from orchestra_strategy import orchestra_model
    >>> party = OrchestraStrategy(partial(orchestra_model, "conv4", in_channels=1), random_seed=42)
    >>> party.build_dataset(np.arange(512, dtype=np.float32).reshape(8, 8, 8) / 512)
    >>> weights, num_samples = party.train_step(weights=None, cur_steps=0, train_steps=1)
    >>> weights["arrays"]["local_centroids"].shape, num_samples
    ((2, 512), 8)
    """

    objective_class = OrchestraObjective
    heads = OrchestraObjective.heads
    config_class: ClassVar[type[StrategyConfig]] = OrchestraConfig
    metric_names: ClassVar[tuple[str, ...]] = ("train_loss", "train_cluster", "train_degeneracy")
    fixed_parameters: ClassVar[tuple[str, ...]] = (
        *TargetNetworkStrategy.fixed_parameters,
        *("num_global_clusters", "memory_size", "num_local_clusters", "k_min"),
        "clustering_steps",
    )
    objective: OrchestraObjective

    def make_objective(self) -> OrchestraObjective:
        """Return Orchestra's objective on this party's model."""
        self._clusters: list[LocalClusters] = []
        self._qualities: list[tuple[float, int]] = []
        self._store = UserStore()
        objective = super().make_objective()
        assert isinstance(objective, OrchestraObjective)
        self._empty_memory = objective.memory.state_dict()
        self.shared: SharedClustering | None = None
        if self.config.route == "secure":
            dim = objective.memory.rows.shape[1]
            self.shared = SharedClustering(self.config.num_global_clusters, dim, self.seed)
        return objective

    @staticmethod
    def check_server(server_agg_method: Any, config: Any) -> None:
        """Refuse a server method that is not ours, or makes another number of global clusters."""
        TargetNetworkStrategy.check_server(server_agg_method, config)
        if server_agg_method is None:
            return
        names = ("num_global_clusters", "temperature", "clustering_steps")
        require_equal(server_agg_method, config, names)
        most, limit = config.most_local_centroids(), server_agg_method.max_local_centroids
        if most > limit:
            raise ParameterError(
                f"Expected `max_local_centroids` of `server_aggregation(...)` to be at least {most}"
                f" (`num_local_clusters` times the virtual users of a party), got {limit}."
            )

    @classmethod
    def sends_unprotected(cls, route: str) -> tuple[str, ...]:
        """Return the names of local centroids, or of moments."""
        return ("moments/S", "moments/n") if route == "secure" else ("local_centroids",)

    def check_data(self, data: PartyData) -> None:
        """Refuse users with fewer than ``k_min`` samples; warn where sizes are scaled down."""
        who, samples = self.smallest_user(data)
        if self.config.privacy == "none" and data.num_different < self.config.k_min <= samples:
            _log.warning(
                "%s has %d samples, of which %d differ: copies count as one, and no centroid of "
                "fewer than `k_min` = %d leaves it.",
                *(who, samples, data.num_different, self.config.k_min),
            )
        m, n_l = self.config.sizes_for(samples, who)
        wanted = (self.config.memory_size, self.config.num_local_clusters)
        if (m, n_l) != wanted:
            _log.warning(
                "%s has %d samples: memory_size is %d instead of %d, num_local_clusters %d instead "
                "of %d.",
                *(who, samples, m, wanted[0], n_l, wanted[1]),
            )

    def forget_data(self) -> None:
        """Empty the memories: their rows belong to samples by position, in other data."""
        self.objective.memory.load_state_dict(self._empty_memory)
        self._store = UserStore()
        self._clusters = []

    def kept_state(self) -> dict[str, Any]:
        """Return the users' memories, the last local centroids, and the clusters of a sum."""
        return {
            "users": self._store.state_dict(),
            "local_clusters": [clusters._asdict() for clusters in self._clusters],
            "shared": None if self.shared is None else self.shared.state_dict(),
        }

    def load_kept_state(self, state: dict[str, Any]) -> None:
        """Take the state of :meth:`kept_state`."""
        self._store.load_state_dict(state["users"])
        self._clusters = [LocalClusters(**clusters) for clusters in state["local_clusters"]]
        if self.shared is not None:
            self.shared.load_state_dict(state["shared"])
        if self.objective.centroids is not None:  # it has been read on the CPU
            self.objective.centroids = self.objective.centroids.to(self.exe_device)

    def shared_arrays(self) -> dict[str, Any]:
        """Return the global centroids, which all parties have."""
        centroids = self.objective.centroids
        return {"global_centroids": None if centroids is None else centroids.cpu().numpy()}

    def needs_initial_pass(self) -> bool:
        """Round 0 is to be done until the first global centroids have come."""
        return self.objective.centroids is None

    def initial_pass(self, batches: Iterable[Batch]) -> None:
        """Round 0: fill the memory without training."""
        self.objective.fill_memory(batches)

    def start_round(self) -> None:
        """Forget what was sent, and start the mean of the users' target networks."""
        super().start_round()
        self._clusters, self._qualities = [], []
        if self.shared is not None:
            self.shared.forget()

    def before_local_training(self, user: int | None) -> None:
        """Give the views a random stream of this round and user, and a virtual user its memory."""
        super().before_local_training(user)
        self.objective.memory.size = self._sizes(user).memory_size
        if user is not None:
            self.objective.memory.load_state_dict(self._store.load(user) or self._empty_memory)

    def after_local_training(self, user: int | None) -> None:
        """Summarise the memory; a virtual user's is put away until its next round."""
        super().after_local_training(user)
        self.summarise(user)
        if user is not None:
            self._store.save(user, self.objective.memory.state_dict())

    def summarise(self, user: int | None) -> None:
        """Cluster or sum up the memory: what leaves the party of it."""
        if self.shared is not None:
            self.shared.add(self.objective.memory.rows)
        else:
            self._cluster_memory(user)

    def _cluster_memory(self, user: int | None) -> None:
        k_min = self.config.k_min
        wanted = self._sizes(user).num_local_clusters
        # A memory that has just been emptied may hold fewer rows than the party has samples.
        num_clusters = min(wanted, len(self.objective.memory) // k_min)
        if num_clusters > 0:
            stream = self._stream("local clustering", user)
            clusters = self.objective.local_clusters(num_clusters, k_min, stream)
            self._clusters.append(clusters)
            if self.config.combining.needs_quality:
                rows = self.objective.memory.rows
                self._qualities.append((compactness(rows, clusters.centroids), len(rows)))

    def assign_clusters(self, z: Tensor) -> tuple[Tensor, int] | None:
        """Return the nearest global centroid (B,) of projections, and N_g."""
        centroids = self.objective.centroids
        if centroids is None:
            return None
        return (z.to(centroids) @ centroids.T).argmax(dim=1), len(centroids)

    def extra_entries(self) -> tuple[Entry, ...]:
        """Local centroids go up, and the last global ones as an echo: the server has no memory.

        On route ``secure`` it is moments, which are summed up over the parties.
        """
        if self.shared is not None:
            return self.shared.entries()
        dim = self.objective.memory.rows.shape[1]
        k = self.config.k_min
        quality = Entry(
            *("quality", (1,), "float32", "factor of the weight", "server"),
            "mean cosine of memory rows to their nearest local centroid, in [0, 1]",
        )
        return (
            Entry(
                *("local_centroids", (None, dim), "float32", "clustered", "server"),
                f"unit-norm means of at least k_min = {k} of a user's samples' projections each",
                max_rows=self.config.num_local_clusters * self.user_type.num_users(),
            ),
            Entry(
                *("global_centroids", (self.config.num_global_clusters, dim), "float32", "echo"),
                *("server", "what the server sent last; zeros in round 0"),
            ),
            *((quality,) if self.config.combining.needs_quality else ()),
        )

    def extras(self) -> dict[str, FloatArray]:
        """Return the arrays of :meth:`extra_entries`."""
        if self.shared is not None:
            return self.shared.arrays()
        dim = self.objective.memory.rows.shape[1]
        local = torch.cat([torch.empty(0, dim), *(c.centroids.cpu() for c in self._clusters)])
        if len(self._clusters) > 1:  # which user's is which is nobody's business
            local = local[torch.randperm(len(local), generator=self._stream("centroid order"))]
        current = self.objective.centroids
        if current is None:
            current = torch.zeros(self.config.num_global_clusters, dim)
        arrays = {
            "local_centroids": local.numpy(),
            "global_centroids": current.to("cpu", torch.float32, copy=True).numpy(),
        }
        if self.config.combining.needs_quality:
            arrays["quality"] = self._quality()
        return arrays

    def _quality(self) -> FloatArray:
        """Return how compact the users' clusters are, (1,), by rows; 0 before any clustering."""
        rows = sum(n for _, n in self._qualities)
        quality = sum(q * n for q, n in self._qualities) / rows if rows else 0.0
        return np.array([min(quality, 1.0)], np.float32)

    def reply_entries(self) -> tuple[Entry, ...]:
        """Return the entry of the global centroids, which come back to every party.

        On route ``secure`` the averaged moments come back, and every party makes C of them.
        """
        if self.shared is not None:
            return self.shared.entries()
        return tuple(e for e in self.extra_entries() if e.combine == "echo")

    def receive_extras(self, arrays: Mapping[str, FloatArray]) -> None:
        """Take the global centroids, unless none have been made so far."""
        if self.shared is not None:
            new = self.shared.receive(arrays)
            if new is not None:
                self.objective.centroids = new.to(self.exe_device)
            return
        # A party that has sent no centroids, of copies alone say, goes on with the others'.
        if self._clusters or self.objective.centroids is not None or self.num_samples():
            centroids = torch.from_numpy(np.array(arrays["global_centroids"]))
            self.objective.centroids = centroids.to(self.exe_device)

    def _sizes(self, user: int | None) -> ClusterSizes:
        sizes: ClusterSizes = self.config.sizes_for(self.user_type.samples_of(user))
        return sizes
