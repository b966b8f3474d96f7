"""Orchestra made simple: local clusters and a contrastive loss, nothing that leaves the party.

Of Orchestra (E. S. Lubana et al., ICML 2022, PMLR 162, https://arxiv.org/abs/2205.11506) this keeps
the local clustering, for a first experiment and for teaching: no target network, no rotations, no
memory, no global clusters. What keeps its projections apart is NT-Xent (T. Chen et al., ICML 2020,
https://arxiv.org/abs/2002.05709). Local centroids belong to one round and one party, are never
sent, and are constants for the gradient.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchestra_strategy.algorithms.clustering import local_clustering
from orchestra_strategy.algorithms.ema import frozen_statistics
from orchestra_strategy.algorithms.model import parts_of
from orchestra_strategy.algorithms.objective import Batch, LossParts
from orchestra_strategy.algorithms.objective_bases import SelfSupervisedObjective, two_projections
from orchestra_strategy.algorithms.precision import in_fp32
from orchestra_strategy.algorithms.simclr import nt_xent
from orchestra_strategy.errors import DataError, OrchestraError

__all__ = [
    "MIN_CLUSTER_SIZE",
    "OrchestraSimpleObjective",
    "OrchestraSimpleSettings",
    "nearest_centroid_loss",
    "orchestra_simple_loss",
]

MIN_CLUSTER_SIZE = 2
"""Samples behind a centroid, at least; a cluster of one would hold its sample where it is."""


class OrchestraSimpleSettings(NamedTuple):
    """Hyper-parameters: number of local clusters, T of NT-Xent, and the weights of both losses.

    The distance pulls with the same force however near the centroid is, NT-Xent with less and less:
    with a ``cluster_weight`` of 1, models without BatchNorm collapse onto the centroids.
    """

    num_clusters: int = 16
    temperature: float = 0.5
    cluster_weight: float = 0.1
    contrastive_weight: float = 1.0


@in_fp32
def nearest_centroid_loss(z: Tensor, C: Tensor) -> Tensor:
    """mean_b min_k |z_b - c_k|, the distance to the nearest centroid.

    Args:
        z: Unit-norm projections, shape (B, D).
        C: Local unit-norm centroids, shape (K, D); no gradient flows here. Without any, the loss
            is 0.

    >>> z, C = torch.tensor([[1.0, 0.0], [0.6, 0.8]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    >>> round(nearest_centroid_loss(z, C).item(), 4)  # (0 + sqrt(0.4)) / 2
    0.3162
    """
    if len(C) == 0:  # clusters whose samples cancel out have no centroid
        return z.sum() * 0.0
    # Differences, not |z|^2 - 2 z c + |c|^2: that loses small distances, and their gradient.
    mode = "donot_use_mm_for_euclid_dist"
    return torch.cdist(z, C.detach(), compute_mode=mode).min(dim=1).values.mean()


def orchestra_simple_loss(
    z1: Tensor, z2: Tensor, C: Tensor, settings: OrchestraSimpleSettings
) -> LossParts:
    """L = cluster_weight * L_cluster + contrastive_weight * L_contrastive.

    L_cluster is the mean of :func:`nearest_centroid_loss` over both views, L_contrastive NT-Xent.

    Args:
        z1: Unit-norm projections of view 1, shape (B, D), B >= 2.
        z2: Unit-norm projections of view 2, shape (B, D), in the same order.
        C: Local unit-norm centroids, shape (K, D).
        settings: T and the weights.
    """
    cluster = nearest_centroid_loss(torch.cat([z1, z2]), C)
    contrastive = nt_xent(z1, z2, settings.temperature)
    total = settings.cluster_weight * cluster + settings.contrastive_weight * contrastive
    return LossParts(total, {"cluster": cluster, "contrastive": contrastive})


class OrchestraSimpleObjective(SelfSupervisedObjective):
    """Both losses on two views; see :class:`SelfSupervisedObjective` for the arguments.

    Attributes:
        centroids: Local centroids of the round under way, shape (K, D), or None before the first.
    """

    settings_class = OrchestraSimpleSettings
    settings: OrchestraSimpleSettings
    centroids: Tensor | None = None

    def __call__(self, model: nn.Module, batch: Batch) -> LossParts:
        """Return the loss of one local step on ``inputs`` (B, ...), B >= 2.

        Raises:
            OrchestraError: There are no local centroids so far.
        """
        if self.centroids is None:
            raise OrchestraError(
                "Expected `centroids` before a training step, got None: call `fit_centroids` "
                "first, once a round."
            )
        x1, x2, _, _ = self.draw(batch)
        z1, z2 = two_projections(model, x1, x2)
        return orchestra_simple_loss(z1, z2, self.centroids, self.settings)

    @torch.no_grad()
    def fit_centroids(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> None:
        """Make this round's centroids of one view of a party's own samples.

        Args:
            model: The network at the round's start; its BatchNorm statistics do not move.
            batch: ``inputs`` (m, ...) of distinct samples, m >= 2; fewer than 2 * ``num_clusters``
                make fewer clusters.
            generator: Draws where the centroids start.

        Raises:
            DataError: Fewer than two samples.
        """
        samples = len(batch["inputs"])
        if samples < MIN_CLUSTER_SIZE:
            raise DataError(
                f"Expected at least {MIN_CLUSTER_SIZE} samples to cluster, got {samples}."
            )
        x1, _, _, _ = self.draw(batch)
        with frozen_statistics(model):
            Z = F.normalize(parts_of(model).encoder(x1), dim=1)
        num_clusters = min(self.settings.num_clusters, samples // MIN_CLUSTER_SIZE)
        clusters = local_clustering(Z, num_clusters, k_min=MIN_CLUSTER_SIZE, generator=generator)
        self.centroids = clusters.centroids
