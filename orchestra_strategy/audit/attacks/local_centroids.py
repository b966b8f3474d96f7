"""Membership from local centroids: means of projections that leave Orchestra's parties.

A centroid is the mean of several samples' projections, so it lies nearer to those than to others.
The signal was fixed before any result was seen: a candidate's largest cosine with a centroid, by
the encoder that the server had sent. The first centroids are read, since then the server knows
exactly which network made them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from orchestra_strategy.audit.attacks.roc import Auc, auc_with_interval
from orchestra_strategy.audit.attacks.scene import Attack, FirstCentroids, Scene
from orchestra_strategy.data.augmentation.views import Views
from orchestra_strategy.rng import torch_generator

__all__ = ["LocalCentroids", "centroid_scores"]

_DRAWS = 8  # the attacker's own views of each sample


@torch.no_grad()
def centroid_scores(
    centroids: FirstCentroids, samples: Tensor, views: Views, generator: torch.Generator
) -> Tensor:
    """Return each sample's largest cosine with a centroid, over the attacker's own views, (N,).

    Args:
        centroids: What has left the party.
        samples: Candidates (N, ...).
        views: The augmentation, which is public.
        generator: Source of the attacker's views.
    """
    centroids.encoder.eval()
    draws = [views(samples, generator).x1 for _ in range(_DRAWS)]
    z = torch.stack([F.normalize(centroids.encoder(x1), dim=1) for x1 in draws])  # (K, N, D)
    return (z @ centroids.rows.T).amax(dim=(0, 2))


class LocalCentroids(Attack):
    """The attack on the first centroids that leave a party."""

    name = "local_centroids"
    sees = "the first local centroids, each a mean of several samples' projections"
    limits = "It looks at one round and at one sample at a time."

    def reason_against(self, scene: Scene) -> str | None:
        """Refuse strategies that send none."""
        return "no centroids left the party" if scene.centroids is None else None

    def run(self, scene: Scene) -> tuple[Auc, ...]:
        """Compare members with others."""
        assert scene.centroids is not None
        scores = []
        for who, samples in scene.split.sides():
            stream = torch_generator(scene.config.seed, "attacker", 0, f"centroids {who}")
            scores.append(centroid_scores(scene.centroids, samples, scene.views, stream))
        return (auc_with_interval(scores[0], scores[1], "local centroids", self.name),)
