"""Strategy ``orchestra_advanced``: Orchestra, an L2 term, and a mean weighted by cluster quality.

This module must not import annotations from the future: SecretFlow reads ``train_step``'s.
"""

from typing import Any, ClassVar

import numpy as np
from pydantic import Field
from torch import nn

from orchestra_strategy.aggregation.weighted import FloatArray
from orchestra_strategy.algorithms.objective import Batch, LossParts, as_loss_parts
from orchestra_strategy.algorithms.orchestra_advanced import compactness, l2_penalty
from orchestra_strategy.config import OrchestraConfig, StrategyConfig
from orchestra_strategy.payload import Entry
from orchestra_strategy.strategies.orchestra import OrchestraStrategy
from orchestra_strategy.strategies.registry import register_strategy

__all__ = ["OrchestraAdvancedConfig", "OrchestraAdvancedStrategy"]


class OrchestraAdvancedConfig(OrchestraConfig):
    """Orchestra's parameters, and one more.

    Attributes:
        l2_weight: Weight of the sum of squares of all trainable parameters. It is part of the loss;
            ``weight_decay`` is part of the optimizer.
    """

    l2_weight: float = Field(1e-4, ge=0)


@register_strategy(strategy_name="orchestra_advanced", backend="torch")
class OrchestraAdvancedStrategy(OrchestraStrategy):
    """Orchestra with two additions, each through a hook that any strategy may override.

    The loss has an L2 term. A party sends how compact its local clusters are, a number in [0, 1],
    and its weight in the server's mean is its number of samples times that number.
    """

    config_class: ClassVar[type[StrategyConfig]] = OrchestraAdvancedConfig
    metric_names: ClassVar[tuple[str, ...]] = (*OrchestraStrategy.metric_names, "train_l2")
    server_only: ClassVar[str | None] = "parties are weighted by a `quality` that each sends"

    @classmethod
    def sends_unprotected(cls, route: str) -> tuple[str, ...]:
        """Return what Orchestra does, and the quality."""
        return (*super().sends_unprotected(route), "quality")

    def make_objective(self) -> Any:
        """Return Orchestra's objective."""
        self._qualities: list[tuple[float, int]] = []
        return super().make_objective()

    def loss_terms(self, model: nn.Module, batch: Batch) -> LossParts:
        """Return Orchestra's loss plus l2_weight * sum of squares."""
        loss = as_loss_parts(super().loss_terms(model, batch))
        l2 = self.config.l2_weight * l2_penalty(model)
        return LossParts(loss.total + l2, {**loss.parts, "l2": l2})

    def start_round(self) -> None:
        """Forget the qualities that were sent."""
        super().start_round()
        self._qualities = []

    def after_local_training(self, user: int | None) -> None:
        """Cluster the memory, and note how compact its clusters are."""
        known = len(self._clusters)
        super().after_local_training(user)
        rows = self.objective.memory.rows
        for clusters in self._clusters[known:]:
            self._qualities.append((compactness(rows, clusters.centroids), len(rows)))

    def extra_entries(self) -> tuple[Entry, ...]:
        """Add the quality to what Orchestra sends."""
        return (
            *super().extra_entries(),
            Entry(
                *("quality", (1,), "float32", "factor of the weight", "server"),
                "mean cosine of memory rows to their nearest local centroid, in [0, 1]",
            ),
        )

    def extras(self) -> dict[str, FloatArray]:
        """Return the arrays of :meth:`extra_entries`; the quality is 0 before any clustering."""
        rows = sum(n for _, n in self._qualities)
        quality = sum(q * n for q, n in self._qualities) / rows if rows else 0.0
        return {**super().extras(), "quality": np.array([min(quality, 1.0)], np.float32)}
