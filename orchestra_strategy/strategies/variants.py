"""Named points of the product objective x user type: strategies that fix one choice.

This module must not import annotations from the future: SecretFlow reads ``train_step``'s.
"""

from typing import ClassVar, Literal

from pydantic import Field
from torch import nn

from orchestra_strategy.aggregation.table import AggregationName
from orchestra_strategy.algorithms.objective import Batch, LossParts, as_loss_parts, l2_penalty
from orchestra_strategy.algorithms.orchestra_objective import ContrastWith
from orchestra_strategy.algorithms.orchestra_targets import Balance
from orchestra_strategy.config import StrategyConfig
from orchestra_strategy.strategies.orchestra import OrchestraStrategy
from orchestra_strategy.strategies.orchestra_config import OrchestraConfig
from orchestra_strategy.strategies.registry import register_strategy

__all__ = [
    "OrchestraAdvancedConfig",
    "OrchestraAdvancedStrategy",
    "OrchestraAggregateStrategy",
    "OrchestraPlusStrategy",
    "OrchestraSingleStepStrategy",
]


class SingleStepConfig(OrchestraConfig):
    """Orchestra's parameters; the user type is fixed, and ``local_epochs`` has no meaning."""

    user_type: Literal["local_gradient"] = "local_gradient"


@register_strategy(strategy_name="orchestra_single_step", backend="torch")
class OrchestraSingleStepStrategy(OrchestraStrategy):
    """Orchestra by FedSGD: one gradient on one batch a round; the mean gradient is applied."""

    config_class: ClassVar[type[StrategyConfig]] = SingleStepConfig


class AggregateConfig(OrchestraConfig):
    """Orchestra's parameters; the user type is fixed."""

    user_type: Literal["multiuser_aggregate"] = "multiuser_aggregate"


@register_strategy(strategy_name="orchestra_aggregate", backend="torch")
class OrchestraAggregateStrategy(OrchestraStrategy):
    """Orchestra with many virtual users in each party; the mean of their updates leaves it.

    Their centroids leave as they are, each the mean of at least ``k_min`` samples of one user.
    """

    config_class: ClassVar[type[StrategyConfig]] = AggregateConfig


class OrchestraPlusConfig(OrchestraConfig):
    """Orchestra's parameters, with other defaults; see docs/results.md for what was measured."""

    balance: Balance = "memory"
    target_temperature: float | None = Field(0.05, gt=0)
    contrast_weight: float = Field(1.0, ge=0)
    contrast_with: ContrastWith = "online"
    deg_length: float | None = Field(4.0, gt=0)


@register_strategy(strategy_name="orchestra_plus", backend="torch")
class OrchestraPlusStrategy(OrchestraStrategy):
    """Orchestra for short schedules: balanced targets, an instance term, a calmer rotation loss."""

    config_class: ClassVar[type[StrategyConfig]] = OrchestraPlusConfig


class OrchestraAdvancedConfig(OrchestraConfig):
    """Orchestra's parameters, with another ``aggregation`` by default, and one more.

    Attributes:
        l2_weight: Weight of the sum of squares of all trainable parameters. It is part of the loss;
            ``weight_decay`` is part of the optimizer.
    """

    aggregation: AggregationName = "quality"
    l2_weight: float = Field(1e-4, ge=0)


@register_strategy(strategy_name="orchestra_advanced", backend="torch")
class OrchestraAdvancedStrategy(OrchestraStrategy):
    """Orchestra with an L2 term in the loss, through a hook that any strategy may override.

    Its ``aggregation`` is ``quality`` unless another is chosen: a party sends how compact its local
    clusters are, a number in [0, 1], and its weight in the server's mean is its number of samples
    times that number.
    """

    config_class: ClassVar[type[StrategyConfig]] = OrchestraAdvancedConfig
    metric_names: ClassVar[tuple[str, ...]] = (*OrchestraStrategy.metric_names, "train_l2")

    def loss_terms(self, model: nn.Module, batch: Batch) -> LossParts:
        """Return Orchestra's loss plus l2_weight * sum of squares."""
        loss = as_loss_parts(super().loss_terms(model, batch))
        l2 = self.config.l2_weight * l2_penalty(model)
        return LossParts(loss.total + l2, {**loss.parts, "l2": l2})
