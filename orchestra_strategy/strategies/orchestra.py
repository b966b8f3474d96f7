"""Strategy ``orchestra``: the full method, centroid route ``server``.

This module must not import annotations from the future: SecretFlow reads ``train_step``'s.
"""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch

from orchestra_strategy.aggregation.server import ServerAggregation
from orchestra_strategy.aggregation.weighted import FloatArray
from orchestra_strategy.algorithms.clustering import LocalClusters
from orchestra_strategy.algorithms.model import parts_of
from orchestra_strategy.algorithms.objective import Batch
from orchestra_strategy.algorithms.orchestra import OrchestraObjective, OrchestraSettings
from orchestra_strategy.config import OrchestraConfig, StrategyConfig
from orchestra_strategy.data.views import build_views
from orchestra_strategy.errors import ParameterError
from orchestra_strategy.payload import Entry
from orchestra_strategy.rng import torch_generator
from orchestra_strategy.strategies.base import FederatedStrategy
from orchestra_strategy.strategies.party import PartyData
from orchestra_strategy.strategies.registry import register_strategy

__all__ = ["OrchestraStrategy"]

# Their sizes are fixed by what a party and the server already hold.
_STRUCTURE = ("num_global_clusters", "memory_size", "num_local_clusters", "k_min", "user_type")


@register_strategy(strategy_name="orchestra", backend="torch")
class OrchestraStrategy(FederatedStrategy):
    """One party of Orchestra; parameters are those of :class:`OrchestraConfig`.

    >>> from functools import partial
    >>> from orchestra_strategy import orchestra_model
    >>> party = OrchestraStrategy(partial(orchestra_model, "conv4", in_channels=1), random_seed=42)
    >>> party.build_dataset(np.zeros((8, 8, 8), np.uint8))
    >>> weights, num_samples = party.train_step(weights=None, cur_steps=0, train_steps=1)
    >>> weights["arrays"]["local_centroids"].shape, num_samples
    ((2, 512), 8)
    """

    config_class: ClassVar[type[StrategyConfig]] = OrchestraConfig
    metric_names: ClassVar[tuple[str, ...]] = ("train_loss", "train_cluster", "train_degeneracy")
    objective: OrchestraObjective

    def make_objective(self) -> OrchestraObjective:
        """Return Orchestra's objective on this party's model."""
        self._clusters: LocalClusters | None = None
        parts_of(self.model)
        views = build_views(self.config.views, **self.config.view_options)
        return OrchestraObjective(self.model, views, self._settings(), self._views_stream())

    @staticmethod
    def check_server(server_agg_method: Any, config: Any) -> None:
        """Refuse a server method that is not ours, or makes another number of global clusters."""
        if server_agg_method is None:
            return
        if not isinstance(server_agg_method, ServerAggregation):
            raise ParameterError(
                "Expected `server_agg_method` to be `orchestra_strategy.server_aggregation(...)`, "
                f"got {server_agg_method!r}."
            )
        if server_agg_method.num_global_clusters != config.num_global_clusters:
            raise ParameterError(
                "Expected `num_global_clusters` of the strategy and of `server_aggregation(...)` "
                f"to be equal, got {config.num_global_clusters} and "
                f"{server_agg_method.num_global_clusters}."
            )

    def check_data(self, data: PartyData) -> None:
        """Refuse a party with fewer samples than ``k_min``."""
        self.config.sizes_for(len(data))

    def start_round(self) -> None:
        """Give the views this round's own random stream."""
        self.objective.generator = self._views_stream()

    def needs_initial_pass(self) -> bool:
        """Round 0 is to be done until the first global centroids have come."""
        return self.objective.centroids is None

    def initial_pass(self, batches: Iterable[Batch]) -> None:
        """Round 0: fill the memory without training, and cluster it."""
        self.objective.memory.size = self._sizes().memory_size
        self.objective.fill_memory(batches)
        self._cluster_memory()

    def after_local_training(self) -> None:
        """Cluster the memory."""
        self._cluster_memory()

    def check_change(self, config: Any) -> None:
        """Refuse to change sizes once memory and centroids have been made."""
        changed = [k for k in _STRUCTURE if getattr(config, k) != getattr(self.config, k)]
        if changed and self.objective.centroids is not None:
            raise ParameterError(
                f"Expected {', '.join(f'`{k}`' for k in changed)} to stay as in the first round, "
                "since memory and centroids have been made; build a new FLModel to change it."
            )

    def apply_config(self) -> None:
        """Hand changed parameters on to the objective and the optimizer."""
        super().apply_config()
        self.objective.settings = self._settings()
        self.objective.views = build_views(self.config.views, **self.config.view_options)

    def extra_entries(self) -> tuple[Entry, ...]:
        """Local centroids go up, and the last global ones as an echo: the server has no memory."""
        dim = self.objective.memory.rows.shape[1]
        k = self.config.k_min
        return (
            Entry(
                *("local_centroids", (None, dim), "float32", "clustered", "server"),
                f"unit-norm means of at least k_min = {k} samples' projections each",
                max_rows=self.config.num_local_clusters,
            ),
            Entry(
                *("global_centroids", (self.config.num_global_clusters, dim), "float32", "echo"),
                *("server", "what the server sent last; zeros in round 0"),
            ),
        )

    def extras(self) -> dict[str, FloatArray]:
        """Return the arrays of :meth:`extra_entries`."""
        dim = self.objective.memory.rows.shape[1]
        local = torch.empty(0, dim) if self._clusters is None else self._clusters.centroids
        current = self.objective.centroids
        if current is None:
            current = torch.zeros(self.config.num_global_clusters, dim)
        return {
            "local_centroids": local.to("cpu", torch.float32, copy=True).numpy(),
            "global_centroids": current.to("cpu", torch.float32, copy=True).numpy(),
        }

    def reply_entries(self) -> tuple[Entry, ...]:
        """Return the entry of the global centroids, which come back to every party."""
        return self.extra_entries()[1:]

    def receive_extras(self, arrays: Mapping[str, FloatArray]) -> None:
        """Take the global centroids, unless the server has made none so far."""
        centroids = torch.from_numpy(np.array(arrays["global_centroids"]))
        if self._clusters is not None:
            self.objective.centroids = centroids.to(self.exe_device)

    def _settings(self) -> OrchestraSettings:
        c = self.config
        return OrchestraSettings(c.temperature, c.ema_decay, c.deg_weight, c.memory_size)

    def _views_stream(self) -> torch.Generator:
        return self._stream("views", self.exe_device)

    def _sizes(self) -> Any:
        return self.config.sizes_for(len(self.require_data()))

    def _stream(self, purpose: str, device: Any = "cpu") -> torch.Generator:
        return torch_generator(self.seed, self.party, self.round_index, purpose, device)

    def _cluster_memory(self) -> None:
        self._clusters = self.objective.local_clusters(
            self._sizes().num_local_clusters, self.config.k_min, self._stream("local clustering")
        )
