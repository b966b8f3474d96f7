"""Named points of the product objective x user type: strategies that fix one choice.

This module must not import annotations from the future: SecretFlow reads ``train_step``'s.
"""

from typing import ClassVar, Literal

from orchestra_strategy.config import OrchestraConfig, StrategyConfig
from orchestra_strategy.strategies.orchestra import OrchestraStrategy
from orchestra_strategy.strategies.registry import register_strategy

__all__ = ["OrchestraAggregateStrategy", "OrchestraSingleStepStrategy"]


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
