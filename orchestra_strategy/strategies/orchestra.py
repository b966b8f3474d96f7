"""Strategy ``orchestra``: the full method, on centroid route ``server`` or ``secure``.

This module must not import annotations from the future: SecretFlow reads ``train_step``'s.
"""

from typing import Any, ClassVar

from torch import Tensor

from orchestra_strategy.algorithms.orchestra_objective import OrchestraObjective
from orchestra_strategy.config import StrategyConfig
from orchestra_strategy.errors import ParameterError
from orchestra_strategy.party.user_types import USER_TYPES
from orchestra_strategy.strategies.orchestra_config import OrchestraConfig
from orchestra_strategy.strategies.orchestra_method import OrchestraMethod
from orchestra_strategy.strategies.registry import register_strategy
from orchestra_strategy.strategies.self_supervised import SelfSupervisedStrategy, require_equal

__all__ = ["OrchestraStrategy"]


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
    method_class = OrchestraMethod
    objective: OrchestraObjective
    method: OrchestraMethod

    @classmethod
    def check_server(cls, server_agg_method: Any, config: Any) -> None:
        """Refuse a server method that is not ours, or makes another number of global clusters."""
        super().check_server(server_agg_method, config)
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

    def assign_clusters(self, z: Tensor) -> tuple[Tensor, int] | None:
        """Return the nearest global centroid (B,) of projections, and N_g."""
        return self.method.clusters_of(z)
