"""The baselines: one network, the same views and order of data, another objective.

Each is a named objective with its parameters; ``user_type`` and all that
:class:`~orchestra_strategy.config.StrategyConfig` has are theirs too. Papers are cited where the
objectives are.

This module must not import annotations from the future: SecretFlow reads ``train_step``'s.
"""

from typing import ClassVar

from pydantic import Field
from torch import nn

from orchestra_strategy.algorithms.byol import BYOLObjective, BYOLSettings
from orchestra_strategy.algorithms.masked import MaskedObjective, MaskedSettings
from orchestra_strategy.algorithms.model import parts_of
from orchestra_strategy.algorithms.rotpred import RotPredObjective
from orchestra_strategy.algorithms.simclr import SimCLRObjective, SimCLRSettings
from orchestra_strategy.algorithms.simsiam import SimSiamObjective
from orchestra_strategy.algorithms.specloss import SpecLossObjective, SpecLossSettings
from orchestra_strategy.algorithms.supervised import ClassObjective
from orchestra_strategy.config import StrategyConfig
from orchestra_strategy.strategies.registry import register_strategy
from orchestra_strategy.strategies.self_supervised import SelfSupervisedStrategy

__all__ = [
    "FedBYOLStrategy",
    "FedMaskedStrategy",
    "FedRotPredStrategy",
    "FedSimCLRStrategy",
    "FedSimSiamStrategy",
    "FedSpecLossStrategy",
    "FedSupervisedStrategy",
]


class SimCLRConfig(StrategyConfig):
    """Parameters of ``fed_simclr``.

    Attributes:
        temperature: T of NT-Xent.
    """

    temperature: float = Field(SimCLRSettings().temperature, gt=0)


@register_strategy(strategy_name="fed_simclr", backend="torch")
class FedSimCLRStrategy(SelfSupervisedStrategy):
    """SimCLR: NT-Xent between two views, negatives from the party's own batch."""

    objective_class = SimCLRObjective
    config_class: ClassVar[type[StrategyConfig]] = SimCLRConfig


class SimSiamConfig(StrategyConfig):
    """Parameters of ``fed_simsiam``: those that every strategy has."""


@register_strategy(strategy_name="fed_simsiam", backend="torch")
class FedSimSiamStrategy(SelfSupervisedStrategy):
    """SimSiam: one view's projection predicted from the other's, with a stop-gradient."""

    objective_class = SimSiamObjective
    heads = SimSiamObjective.heads
    config_class: ClassVar[type[StrategyConfig]] = SimSiamConfig


class BYOLConfig(StrategyConfig):
    """Parameters of ``fed_byol``.

    Attributes:
        ema_decay: tau of the target network, which moves as tau * target + (1 - tau) * online.
    """

    ema_decay: float = Field(BYOLSettings().ema_decay, ge=0, le=1)


@register_strategy(strategy_name="fed_byol", backend="torch")
class FedBYOLStrategy(SelfSupervisedStrategy):
    """BYOL: the target network's projection of one view predicted from the other view."""

    objective_class = BYOLObjective
    heads = BYOLObjective.heads
    config_class: ClassVar[type[StrategyConfig]] = BYOLConfig


class SpecLossConfig(StrategyConfig):
    """Parameters of ``fed_specloss``.

    Attributes:
        scale: mu, the squared length of the projections that are compared.
    """

    scale: float = Field(SpecLossSettings().scale, gt=0)


@register_strategy(strategy_name="fed_specloss", backend="torch")
class FedSpecLossStrategy(SelfSupervisedStrategy):
    """Spectral contrastive loss between two views, negatives from the party's own batch."""

    objective_class = SpecLossObjective
    config_class: ClassVar[type[StrategyConfig]] = SpecLossConfig


class RotPredConfig(StrategyConfig):
    """Parameters of ``fed_rotpred``: those that every strategy has."""


@register_strategy(strategy_name="fed_rotpred", backend="torch")
class FedRotPredStrategy(SelfSupervisedStrategy):
    """Rotation prediction: by how many quarters a sample has been turned."""

    objective_class = RotPredObjective
    heads = RotPredObjective.heads
    config_class: ClassVar[type[StrategyConfig]] = RotPredConfig


class MaskedConfig(StrategyConfig):
    """Parameters of ``fed_masked``.

    Attributes:
        mask_ratio: Share of a sample that is hidden: of the 4x4 patches of a picture, or of the
            columns of a table, where those of one category count as one.
    """

    mask_ratio: float = Field(MaskedSettings().mask_ratio, gt=0, lt=1)


@register_strategy(strategy_name="fed_masked", backend="torch")
class FedMaskedStrategy(SelfSupervisedStrategy):
    """Masked reconstruction: what stands in the hidden parts of a sample."""

    objective_class = MaskedObjective
    heads = MaskedObjective.heads
    config_class: ClassVar[type[StrategyConfig]] = MaskedConfig


class SupervisedConfig(StrategyConfig):
    """Parameters of ``fed_supervised``: those that every strategy has."""


@register_strategy(strategy_name="fed_supervised", backend="torch")
class FedSupervisedStrategy(SelfSupervisedStrategy):
    """Supervised learning, the upper reference: cross entropy of the labels, which stay as data do.

    How many classes there are is said by the model's ``classifier``.
    """

    objective_class = ClassObjective
    heads = ClassObjective.heads
    config_class: ClassVar[type[StrategyConfig]] = SupervisedConfig
    metric_names: ClassVar[tuple[str, ...]] = ("train_loss", "train_accuracy")
    needs_labels: ClassVar[bool] = True

    def num_classes(self) -> int:
        """Return the number of the classifier's outputs."""
        _, (classifier,) = parts_of(self.model, self.heads)
        assert isinstance(classifier, nn.Linear)  # parts_of has seen to it
        return classifier.out_features
