"""From a strategy's name to what the audit runs: model, the party's objective, the server's view.

The table repeats which objective each strategy has, because strategies need SecretFlow and the
audit must run without it; a test compares the two.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from orchestra_strategy.algorithms.backbones import build_backbone
from orchestra_strategy.algorithms.byol import BYOLObjective
from orchestra_strategy.algorithms.clustering import global_clustering, random_unit_rows
from orchestra_strategy.algorithms.model import orchestra_model
from orchestra_strategy.algorithms.orchestra import OrchestraObjective
from orchestra_strategy.algorithms.rotpred import RotPredObjective
from orchestra_strategy.algorithms.self_supervised import RowwiseObjective, SelfSupervisedObjective
from orchestra_strategy.algorithms.simclr import SimCLRObjective, nt_xent
from orchestra_strategy.algorithms.simsiam import SimSiamObjective
from orchestra_strategy.algorithms.specloss import SpecLossObjective, spectral_loss
from orchestra_strategy.audit.known_losses import (
    KnownLoss,
    OrchestraLoss,
    PairLoss,
    PredictionLoss,
    RotationLoss,
    Supervised,
)
from orchestra_strategy.audit.parts import Classifier, SupervisedParty
from orchestra_strategy.data.views import Views
from orchestra_strategy.errors import DataError, OrchestraError, ParameterError, did_you_mean
from orchestra_strategy.rng import derive_seed, torch_generator

__all__ = ["OBJECTIVES", "SUPERVISED", "Subject", "rowwise"]

SUPERVISED = "supervised"
OBJECTIVES: dict[str, type[SelfSupervisedObjective]] = {
    "orchestra": OrchestraObjective,
    "fed_byol": BYOLObjective,
    "fed_rotpred": RotPredObjective,
    "fed_simclr": SimCLRObjective,
    "fed_simsiam": SimSiamObjective,
    "fed_specloss": SpecLossObjective,
}
_LOCAL_CLUSTERS, _K_MIN = 16, 4  # the published number, and the least behind a centroid


def rowwise(strategy: str) -> bool:
    """Whether the loss is a mean over samples that do not act on each other.

    Raises:
        ParameterError: The strategy is unknown.
    """
    return strategy == SUPERVISED or issubclass(_objective_class(strategy), RowwiseObjective)


def _objective_class(strategy: str) -> type[SelfSupervisedObjective]:
    if strategy not in OBJECTIVES:
        raise ParameterError(
            f"Expected `strategy` to be one that can be audited, got {strategy!r}; "
            f"{did_you_mean(strategy, [*OBJECTIVES, SUPERVISED])}."
        )
    return OBJECTIVES[strategy]


@dataclass(frozen=True)
class Subject:
    """What is audited: a strategy's objective on a network.

    Attributes:
        strategy: A key of :data:`OBJECTIVES`, or ``supervised``.
        views: The augmentation.
        backbone: Name of the backbone.
        norm: ``"group"``, or ``"batch"``.
        hidden_dim: Width of projector and heads.
        projection_dim: Length of a projection.
        num_global_clusters: N_g of Orchestra.
        parameters: Hyper-parameters of the objective, by name.
        seed: Root seed.
    """

    strategy: str
    views: Views
    backbone: str = "conv4"
    norm: str = "group"
    hidden_dim: int = 128
    projection_dim: int = 128
    num_global_clusters: int = 32
    parameters: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        known = () if self.strategy == SUPERVISED else self._settings_class()._fields
        for name in self.parameters:
            if name not in known:
                raise ParameterError(
                    f"Expected `parameters` to be those of the objective of `{self.strategy}`, got "
                    f"`{name}`; {did_you_mean(name, known)}."
                )

    def _settings_class(self) -> Any:
        return _objective_class(self.strategy).settings_class

    def settings(self) -> Any:
        """Return the objective's hyper-parameters."""
        return self._settings_class()(**self.parameters)

    def build_model(self, channels: int, classes: int) -> nn.Module:
        """Return the untrained model, by seed; the global stream stays where it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.seed, "server", 0, "weights"))
            if self.strategy == SUPERVISED:
                body = build_backbone(self.backbone, in_channels=channels, norm=self.norm)
                return Classifier(body, body.out_dim, classes)
            return orchestra_model(
                self.backbone,
                channels,
                self.norm,
                self.hidden_dim,
                self.projection_dim,
                _objective_class(self.strategy).heads,
            )

    def party_objective(
        self, model: nn.Module, views: Any, samples: Tensor, stream: torch.Generator
    ) -> Any:
        """Return the party's objective, ready for a step: Orchestra's has had its round 0.

        Args:
            model: The server's model.
            views: What draws views.
            samples: The party's own (N, C, H, W), which round 0 clusters.
            stream: Source of views and clusters.

        Raises:
            DataError: Orchestra has too few samples to cluster.
        """
        if self.strategy == SUPERVISED:
            return SupervisedParty()
        objective = _objective_class(self.strategy)(model, views, self.settings(), stream)
        if isinstance(objective, OrchestraObjective):
            if len(samples) < _K_MIN:
                raise DataError(
                    f"Expected at least {_K_MIN} samples for Orchestra's clusters, got "
                    f"{len(samples)}."
                )
            rows = samples[: objective.memory.size]
            objective.fill_memory([{"inputs": rows, "ids": torch.arange(len(rows))}])
            self.cluster(objective, stream)
        return objective

    def cluster(self, objective: Any, stream: torch.Generator) -> None:
        """Do what the server does between two rounds; only Orchestra has something to do."""
        if not isinstance(objective, OrchestraObjective):
            return
        number = min(_LOCAL_CLUSTERS, len(objective.memory) // _K_MIN)
        local = objective.local_clusters(number, _K_MIN, stream).centroids
        start = objective.centroids
        if start is None:
            origin = torch_generator(self.seed, "server", 0, "centroids")
            start = random_unit_rows(self.num_global_clusters, local.shape[1], origin)
        temperature = objective.settings.temperature
        objective.centroids = global_clustering(local, start, temperature=temperature).centroids

    def known_loss(self, model: nn.Module, objective: Any) -> KnownLoss:
        """Return what the server knows of the loss, with the model that it sent.

        Args:
            model: The server's model.
            objective: The party's; of it only what the server has is read: Orchestra's centroids.

        Raises:
            OrchestraError: Orchestra's has no centroids so far.
        """
        if isinstance(objective, OrchestraObjective):
            if objective.centroids is None:
                raise OrchestraError("Expected `centroids` of the objective, got None.")
            known = objective.settings
            return OrchestraLoss(model, objective.centroids, known.temperature, known.deg_weight)
        if isinstance(objective, RotPredObjective):
            return RotationLoss()
        if isinstance(objective, SimCLRObjective):
            return PairLoss(partial(nt_xent, temperature=objective.settings.temperature))
        if isinstance(objective, SpecLossObjective):
            return PairLoss(partial(spectral_loss, scale=objective.settings.scale))
        if isinstance(objective, SimSiamObjective | BYOLObjective):
            return PredictionLoss(model, 4.0 if isinstance(objective, BYOLObjective) else 1.0)
        return Supervised("classifier.bias")
