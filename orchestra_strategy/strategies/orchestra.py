"""Strategy ``orchestra``: the full method, on centroid route ``server`` or ``secure``.

This module must not import annotations from the future: SecretFlow reads ``train_step``'s.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from orchestra_strategy.algorithms.objective import Batch
from orchestra_strategy.algorithms.orchestra_objective import OrchestraObjective
from orchestra_strategy.config import StrategyConfig
from orchestra_strategy.errors import ParameterError
from orchestra_strategy.exchange.manifest import Entry
from orchestra_strategy.exchange.payload import FloatArray
from orchestra_strategy.party.data import PartyData
from orchestra_strategy.party.user_store import UserStore
from orchestra_strategy.party.user_types import USER_TYPES
from orchestra_strategy.strategies.centroids import Centroids, LocalCentroids
from orchestra_strategy.strategies.orchestra_config import ClusterSizes, OrchestraConfig
from orchestra_strategy.strategies.registry import register_strategy
from orchestra_strategy.strategies.self_supervised import SelfSupervisedStrategy, require_equal
from orchestra_strategy.strategies.shared_moments import SharedMoments

__all__ = ["OrchestraStrategy"]

_log = logging.getLogger(__name__)


@register_strategy(strategy_name="orchestra", backend="torch")
class OrchestraStrategy(SelfSupervisedStrategy):
    """One party of Orchestra; parameters are those of :class:`OrchestraConfig`.

    >>> from functools import partial
    >>> import numpy as np
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
        *SelfSupervisedStrategy.fixed_parameters,
        *("num_global_clusters", "memory_size", "num_local_clusters", "k_min"),
        "clustering_steps",
    )
    objective: OrchestraObjective

    centroid_routes: ClassVar[dict[str, type[Centroids]]] = {
        "server": LocalCentroids,
        "secure": SharedMoments,
    }
    """What is sent of a party's clusters, by ``route``."""

    def set_up(self) -> None:
        """Make what is sent of the clusters, and the place for virtual users' memories."""
        super().set_up()
        self._store = UserStore()
        self._empty_memory = self.objective.memory.state_dict()
        dim = self.objective.memory.rows.shape[1]
        self.centroids = self.centroid_routes[self.config.route](self.config, dim, self.seed)

    # ---- What is refused -------------------------------------------------------------------

    @staticmethod
    def check_server(server_agg_method: Any, config: Any) -> None:
        """Refuse a server method that is not ours, or makes another number of global clusters."""
        SelfSupervisedStrategy.check_server(server_agg_method, config)
        if server_agg_method is None:
            return
        names = ("num_global_clusters", "temperature", "clustering_steps")
        require_equal(server_agg_method, config, names)
        users = USER_TYPES[config.user_type].users_of(config)
        most, limit = config.num_local_clusters * users, server_agg_method.max_local_centroids
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
        copies_show = not self.privacy.protected
        if copies_show and data.num_different < self.config.k_min <= samples:
            _log.warning(
                "%s has %d samples, of which %d differ: copies count as one, and no centroid of "
                "fewer than `k_min` = %d leaves it.",
                who,
                samples,
                data.num_different,
                self.config.k_min,
            )
        m, n_l = self.config.sizes_for(samples, who)
        wanted = (self.config.memory_size, self.config.num_local_clusters)
        if (m, n_l) != wanted:
            _log.warning(
                "%s has %d samples: memory_size is %d instead of %d, num_local_clusters %d instead "
                "of %d.",
                who,
                samples,
                m,
                wanted[0],
                n_l,
                wanted[1],
            )

    # ---- What stays at the party -----------------------------------------------------------

    def forget_data(self) -> None:
        """Empty the memories: their rows belong to samples by position, in other data."""
        self.objective.memory.load_state_dict(self._empty_memory)
        self._store = UserStore()
        self.centroids.forget_data()

    def kept_state(self) -> dict[str, Any]:
        """Return the users' memories, and what is sent of the clusters."""
        return {"users": self._store.state_dict(), "centroids": self.centroids.state_dict()}

    def load_kept_state(self, state: dict[str, Any]) -> None:
        """Take the state of :meth:`kept_state`."""
        self._store.load_state_dict(state["users"])
        self.centroids.load_state_dict(state["centroids"])
        if self.objective.centroids is not None:  # it has been read on the CPU
            self.objective.centroids = self.objective.centroids.to(self.exe_device)

    def common_state(self) -> dict[str, Any]:
        """Return the global centroids, and what all parties make them of."""
        C = self.objective.centroids
        centroids = {} if C is None else {"global_centroids": C.cpu().numpy()}
        return {**centroids, **self.centroids.common_state()}

    def load_common_state(self, state: Mapping[str, Any]) -> None:
        """Take the arrays of :meth:`common_state`."""
        self.centroids.load_common_state(state)
        if "global_centroids" in state:
            C = torch.from_numpy(np.array(state["global_centroids"]))
            self.objective.centroids = C.to(self.exe_device)

    # ---- A round ---------------------------------------------------------------------------

    def needs_initial_pass(self) -> bool:
        """Round 0 is to be done until the first global centroids have come."""
        return self.objective.centroids is None

    def initial_pass(self, batches: Iterable[Batch]) -> None:
        """Round 0: fill the memory without training."""
        self.objective.fill_memory(batches)

    def start_round(self) -> None:
        """Let the target network follow the average, and forget what was sent."""
        super().start_round()
        self.centroids.forget()

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
        memory, wanted = self.objective.memory, self._sizes(user).num_local_clusters
        # A memory that has just been emptied may hold fewer rows than the party has samples.
        num_clusters = min(wanted, len(memory) // self.config.k_min)
        self.centroids.add(memory.rows, num_clusters, self._stream("local clustering", user))

    def assign_clusters(self, z: Tensor) -> tuple[Tensor, int] | None:
        """Return the nearest global centroid (B,) of projections, and N_g."""
        centroids = self.objective.centroids
        if centroids is None:
            return None
        return (z.to(centroids) @ centroids.T).argmax(dim=1), len(centroids)

    # ---- What travels ----------------------------------------------------------------------

    def extra_entries(self) -> tuple[Entry, ...]:
        """Return the entries of what is sent of the clusters."""
        return self.centroids.entries()

    def extras(self) -> dict[str, FloatArray]:
        """Return the arrays of :meth:`extra_entries`."""
        return self.centroids.arrays(self.objective.centroids, self._stream("centroid order"))

    def reply_entries(self) -> tuple[Entry, ...]:
        """Return the entries of what comes back of the global clusters."""
        return self.centroids.reply_entries()

    def receive_extras(self, arrays: Mapping[str, FloatArray]) -> None:
        """Take the global centroids, unless none have been made so far."""
        C = self.centroids.receive(arrays)
        # A party without data keeps waiting for the round in which it has some.
        if C is not None and (self.objective.centroids is not None or self.num_samples()):
            self.objective.centroids = C.to(self.exe_device)

    def _sizes(self, user: int | None) -> ClusterSizes:
        sizes: ClusterSizes = self.config.sizes_for(self.user_type.samples_of(user))
        return sizes
