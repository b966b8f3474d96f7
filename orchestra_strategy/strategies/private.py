"""Strategy ``orchestra_private``: Orchestra with differential privacy of all that leaves a party.

This module must not import annotations from the future: SecretFlow reads ``train_step``'s.
"""

from typing import ClassVar, Literal

from pydantic import Field

from orchestra_strategy.config import StrategyConfig
from orchestra_strategy.strategies.orchestra import OrchestraStrategy
from orchestra_strategy.strategies.orchestra_config import OrchestraConfig
from orchestra_strategy.strategies.private_method import PrivateMethod
from orchestra_strategy.strategies.registry import register_strategy

__all__ = ["OrchestraPrivateConfig", "OrchestraPrivateStrategy"]


class OrchestraPrivateConfig(OrchestraConfig):
    """Orchestra's parameters; privacy is on, with ``noise_multiplier`` or ``target_epsilon``.

    Attributes:
        moments_share: Share of a round's privacy loss that goes into the moments of the clusters.
    """

    privacy: Literal["user", "record"] = "user"
    moments_share: float = Field(0.1, gt=0, lt=1)


@register_strategy(strategy_name="orchestra_private", backend="torch")
class OrchestraPrivateStrategy(OrchestraStrategy):
    """Orchestra whose weights and centroids are private releases.

    Weights are protected as in every strategy with ``privacy``, and what is sent of the clusters
    as :mod:`~orchestra_strategy.strategies.private_centroids` says. In round 0 nothing of the
    clusters leaves: training begins with random global ones.
    """

    config_class: ClassVar[type[StrategyConfig]] = OrchestraPrivateConfig
    method_class = PrivateMethod

    @classmethod
    def sends_unprotected(cls, route: str) -> tuple[str, ...]:
        """Return nothing: centroids and moments carry noise."""
        return ()
