"""The loss that the server knows, for each objective."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from orchestra_strategy.algorithms.byol import BYOLObjective
from orchestra_strategy.algorithms.masked import MaskedObjective
from orchestra_strategy.algorithms.orchestra_objective import OrchestraObjective
from orchestra_strategy.algorithms.orchestra_simple_objective import OrchestraSimpleObjective
from orchestra_strategy.algorithms.rotpred import RotPredObjective
from orchestra_strategy.algorithms.simclr import SimCLRObjective, nt_xent
from orchestra_strategy.algorithms.simsiam import SimSiamObjective
from orchestra_strategy.algorithms.specloss import SpecLossObjective, spectral_loss
from orchestra_strategy.audit.attacks.known_losses import (
    KnownLoss,
    MaskedLoss,
    OrchestraLoss,
    PairLoss,
    PredictionLoss,
    RotationLoss,
    ViewsAlone,
)
from orchestra_strategy.errors import OrchestraError

__all__ = ["known_loss"]


def _orchestra(model: nn.Module, objective: OrchestraObjective) -> KnownLoss:
    if objective.centroids is None:
        raise OrchestraError(
            "Expected `centroids` of the objective, got None: round 0 comes first."
        )
    return OrchestraLoss(model, objective.centroids, objective.settings)


def _contrastive(model: nn.Module, objective: Any) -> KnownLoss:
    return PairLoss(partial(nt_xent, temperature=objective.settings.temperature))


def _spectral(model: nn.Module, objective: SpecLossObjective) -> KnownLoss:
    return PairLoss(partial(spectral_loss, scale=objective.settings.scale))


_BUILDERS: dict[type, Callable[[nn.Module, Any], KnownLoss]] = {
    OrchestraObjective: _orchestra,
    # Without its pull to the local centroids, which never leave the party.
    OrchestraSimpleObjective: _contrastive,
    SimCLRObjective: _contrastive,
    SpecLossObjective: _spectral,
    SimSiamObjective: lambda model, objective: PredictionLoss(model),
    BYOLObjective: lambda model, objective: PredictionLoss(model, 4.0),
    RotPredObjective: lambda model, objective: RotationLoss(),
    MaskedObjective: lambda model, objective: MaskedLoss(objective.settings.mask_ratio),
}


def known_loss(model: nn.Module, objective: Any) -> KnownLoss:
    """Return what the server knows of the loss, with the model that it sent.

    Args:
        model: The server's model.
        objective: The party's; of it only what the server has is read, such as hyper-parameters and
            Orchestra's global centroids.

    Returns:
        The loss; for an objective that is not of this package :class:`ViewsAlone`.

    Raises:
        OrchestraError: Orchestra's has no centroids so far.
    """
    for known, build in _BUILDERS.items():
        if isinstance(objective, known):
            return build(model, objective)
    return ViewsAlone(objective)
