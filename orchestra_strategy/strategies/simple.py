"""Strategy ``orchestra_simple``: local clusters and a contrastive loss.

This module must not import annotations from the future: SecretFlow reads ``train_step``'s.
"""

import logging
from typing import ClassVar

import torch
from pydantic import Field

from orchestra_strategy.algorithms.orchestra_simple_objective import (
    MIN_CLUSTER_SIZE,
    OrchestraSimpleObjective,
    OrchestraSimpleSettings,
)
from orchestra_strategy.config import StrategyConfig
from orchestra_strategy.party.data import PartyData
from orchestra_strategy.strategies.registry import register_strategy
from orchestra_strategy.strategies.self_supervised import SelfSupervisedStrategy
from orchestra_strategy.strategies.self_supervised_method import SelfSupervisedMethod

__all__ = ["OrchestraSimpleConfig", "OrchestraSimpleStrategy"]

_log = logging.getLogger(__name__)

# Samples that centroids are made of, per cluster: enough for a direction, and few enough that the
# exact balanced assignment (cubic in them) takes milliseconds.
_SAMPLES_PER_CLUSTER = 16


_DEFAULTS = OrchestraSimpleSettings()


class OrchestraSimpleConfig(StrategyConfig):
    """Parameters of ``orchestra_simple``.

    Attributes:
        num_clusters: Local clusters of each user; fewer where it has less than two samples for one.
        temperature: T of NT-Xent.
        cluster_weight: Weight of the distance to the nearest local centroid; around 1, projections
            collapse onto the centroids in models without BatchNorm.
        contrastive_weight: Weight of NT-Xent.
    """

    num_clusters: int = Field(_DEFAULTS.num_clusters, ge=1)
    temperature: float = Field(_DEFAULTS.temperature, gt=0)
    cluster_weight: float = Field(_DEFAULTS.cluster_weight, ge=0)
    contrastive_weight: float = Field(_DEFAULTS.contrastive_weight, ge=0)


class SimpleMethod(SelfSupervisedMethod):
    """Centroids of each user's own samples, made anew at the start of each round."""

    def check_data(self, data: PartyData) -> None:
        """Refuse users with a single sample; warn where there will be fewer clusters."""
        super().check_data(data)
        who, samples = self.party.smallest_user(data)
        most, wanted = samples // MIN_CLUSTER_SIZE, self.party.config.num_clusters
        if most < wanted:
            _log.warning(
                "%s has %d samples: num_clusters is %d instead of %d.", who, samples, most, wanted
            )

    def start_user(self, user: int | None) -> None:
        """Give the views their stream, and make the user's centroids of this round."""
        super().start_user(user)
        stream = self.party.stream("local clustering", user)
        rows = self.party.user_type.rows_of(user)
        order = torch.randperm(len(rows), generator=stream).numpy()
        drawn = rows[order[: _SAMPLES_PER_CLUSTER * self.party.config.num_clusters]]
        batch = self.party.require_data().batch(drawn, self.party.exe_device)
        self.party.objective.fit_centroids(self.party.model, batch, stream)


@register_strategy(strategy_name="orchestra_simple", backend="torch")
class OrchestraSimpleStrategy(SelfSupervisedStrategy):
    """Orchestra without target network, rotations, memory and server step; for a first experiment.

    Local centroids are made anew at the start of each round, of projections of the user's own
    samples, and never leave the party.
    """

    objective_class = OrchestraSimpleObjective
    config_class: ClassVar[type[StrategyConfig]] = OrchestraSimpleConfig
    metric_names: ClassVar[tuple[str, ...]] = ("train_loss", "train_cluster", "train_contrastive")
    method_class = SimpleMethod
    objective: OrchestraSimpleObjective
