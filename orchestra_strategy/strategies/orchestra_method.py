"""Orchestra's own work around local training: memories, local clusters, global centroids."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from orchestra_strategy.algorithms.objective import Batch
from orchestra_strategy.algorithms.orchestra_objective import OrchestraObjective
from orchestra_strategy.exchange.manifest import Entry
from orchestra_strategy.exchange.payload import FloatArray
from orchestra_strategy.party.data import PartyData
from orchestra_strategy.party.user_store import UserStore
from orchestra_strategy.strategies.centroids import Centroids, LocalCentroids
from orchestra_strategy.strategies.orchestra_config import ClusterSizes, faded
from orchestra_strategy.strategies.self_supervised_method import SelfSupervisedMethod
from orchestra_strategy.strategies.shared_moments import SharedMoments

__all__ = ["OrchestraMethod"]

_log = logging.getLogger(__name__)

_SIZES = ("memory_size", "num_local_clusters")


class OrchestraMethod(SelfSupervisedMethod):
    """A party's memories and what is sent of them.

    Args:
        party: The strategy.

    Attributes:
        store: The memories of virtual users between rounds.
        centroids: The party's side of the exchange of clusters.
    """

    centroid_routes: ClassVar[dict[str, type[Centroids]]] = {
        "server": LocalCentroids,
        "secure": SharedMoments,
    }
    """What is sent of a party's clusters, by ``route``."""

    def __init__(self, party: Any) -> None:
        super().__init__(party)
        self.objective: OrchestraObjective = party.objective
        self.store = UserStore()
        self._empty_memory = self.objective.memory.state_dict()
        self._make_centroids()

    def _make_centroids(self) -> None:
        dim = self.objective.memory.dim
        route: Any = self.centroid_routes[self.party.config.route]
        self.centroids = route(self.party.config, dim, self.party.seed)

    def check_data(self, data: PartyData) -> None:
        """Refuse users with fewer than ``k_min`` samples; warn where sizes are scaled down."""
        config = self.party.config
        who, samples = self.party.smallest_user(data)
        copies_show = not self.party.privacy.protected
        if copies_show and data.num_different < config.k_min <= samples:
            _log.warning(
                "%s has %d samples, of which %d differ: copies count as one, and no centroid of "
                "fewer than `k_min` = %d leaves it.",
                who,
                samples,
                data.num_different,
                config.k_min,
            )
        sizes = dict(zip(_SIZES, config.sizes_for(samples, who), strict=True))
        less = [
            f"{name} is {size} instead of {getattr(config, name)}"
            for name, size in sizes.items()
            if size != getattr(config, name)
        ]
        if less:
            _log.warning("%s has %d samples: %s.", who, samples, ", ".join(less))

    # ---- What stays at the party -----------------------------------------------------------

    def forget_data(self) -> None:
        """Empty the memories: their rows belong to samples by position, in other data."""
        self.objective.memory.load_state_dict(self._empty_memory)
        self.store = UserStore()
        self.centroids.forget_data()

    def start_anew(self) -> None:
        """Start without memories and clusters: round 0 comes again."""
        super().start_anew()
        self.forget_data()
        self.objective.centroids = None
        self._make_centroids()

    def state(self) -> dict[str, Any]:
        """Return the users' memories, and what is sent of the clusters."""
        return {"users": self.store.state_dict(), "centroids": self.centroids.state_dict()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take the state of :meth:`state`."""
        self.store.load_state_dict(state["users"])
        self.centroids.load_state_dict(state["centroids"])
        if self.objective.centroids is not None:  # it has been read on the CPU
            self.objective.centroids = self.objective.centroids.to(self.party.exe_device)

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
            self.objective.centroids = C.to(self.party.exe_device)

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
        self._fade()

    def configure(self) -> None:
        """Hand changed parameters on to the objective."""
        super().configure()
        self._fade()

    def _fade(self) -> None:
        """Give the instance term the weight of the round under way."""
        config, objective = self.party.config, self.objective
        share = faded(self.party.round_index, config.contrast_rounds)
        weight = config.contrast_weight * share
        objective.settings = objective.settings._replace(contrast_weight=weight)

    def start_user(self, user: int | None) -> None:
        """Give the views their stream, and a virtual user its memory."""
        super().start_user(user)
        self.objective.memory.size = self._sizes(user).memory_size
        if user is not None:
            self.objective.memory.load_state_dict(self.store.load(user) or self._empty_memory)

    def end_user(self, user: int | None) -> dict[str, Any]:
        """Return a summary of the memory, and a virtual user's memory itself."""
        left = {**super().end_user(user), "summary": self.summary(user)}
        return left if user is None else {**left, "memory": self.objective.memory.state_dict()}

    def take_user(self, user: int | None, left: Any) -> None:
        """Take the summary; a virtual user's memory is put away until its next round."""
        super().take_user(user, left)
        self.take_summary(left["summary"])
        if user is not None:
            self.store.save(user, left["memory"])
            # As it is where the user has trained here: a checkpoint holds the last one's.
            self.objective.memory.size = self._sizes(user).memory_size
            self.objective.memory.load_state_dict(left["memory"])

    def summary(self, user: int | None) -> Any:
        """Cluster or sum up the memory: what leaves the party of it."""
        memory, wanted = self.objective.memory, self._sizes(user).num_local_clusters
        # A memory that has just been emptied may hold fewer rows than the party has samples.
        num_clusters = min(wanted, len(memory) // self.party.config.k_min)
        stream = self.party.stream("local clustering", user)
        return self.centroids.summary(memory.rows.cpu(), num_clusters, stream)

    def take_summary(self, summary: Any) -> None:
        """Have a user's summary sent with the others'."""
        self.centroids.add(summary)

    def state_for_users(self) -> dict[str, Any]:
        """Return the target network, and the global clusters."""
        own = {"C": self.objective.centroids, "centroids": self.centroids.state_dict()}
        return super().state_for_users() | own

    def load_state_for_users(self, state: Mapping[str, Any]) -> None:
        """Take them."""
        super().load_state_for_users(state)
        self.objective.centroids = state["C"]
        self.centroids.load_state_dict(state["centroids"])
        self._fade()

    def kept_of(self, user: int) -> Any:
        """Return a virtual user's memory."""
        return self.store.load(user)

    def load_kept_of(self, user: int, kept: Any) -> None:
        """Take a virtual user's memory."""
        self.store.save(user, kept or self._empty_memory)

    def clusters_of(self, z: Tensor) -> tuple[Tensor, int] | None:
        """Return the nearest global centroid (B,) of projections, and N_g."""
        centroids = self.objective.centroids
        if centroids is None:
            return None
        return (z.to(centroids) @ centroids.T).argmax(dim=1), len(centroids)

    # ---- What travels ----------------------------------------------------------------------

    def entries(self) -> tuple[Entry, ...]:
        """Return the entries of what is sent of the clusters."""
        entries: tuple[Entry, ...] = self.centroids.entries()
        return entries

    def arrays(self) -> dict[str, FloatArray]:
        """Return the arrays of :meth:`entries`."""
        order = self.party.stream("centroid order")
        arrays: dict[str, FloatArray] = self.centroids.arrays(self.objective.centroids, order)
        return arrays

    def reply_entries(self) -> tuple[Entry, ...]:
        """Return the entries of what comes back of the global clusters."""
        entries: tuple[Entry, ...] = self.centroids.reply_entries()
        return entries

    def receive(self, arrays: Mapping[str, FloatArray]) -> None:
        """Take the global centroids, unless none have been made so far."""
        C = self.centroids.receive(arrays)
        # A party without data keeps waiting for the round in which it has some.
        if C is not None and (self.objective.centroids is not None or self.party.num_samples()):
            self.objective.centroids = C.to(self.party.exe_device)

    def _sizes(self, user: int | None) -> ClusterSizes:
        samples = self.party.user_type.samples_of(user)
        sizes: ClusterSizes = self.party.config.sizes_for(samples)
        return sizes
