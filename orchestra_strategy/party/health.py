"""The health of a party's own encoder, without labels, and its clusters against labels.

Everything here runs at the party on the party's samples; a handful of scalars leave it.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from orchestra_strategy.evaluation import (
    ClusteringScores,
    Health,
    cluster_features,
    clustering_scores,
    extract_features,
    health_of,
)
from orchestra_strategy.global_randomness import drawing_from
from orchestra_strategy.party.roles import Party
from orchestra_strategy.rng import derive_seed

__all__ = [
    "EVALUATION_NAMES",
    "clustering_of",
    "health_metrics",
    "health_names",
    "measure_health",
]

_SCORES = ("nmi", "ari", "cluster_accuracy", "purity")

EVALUATION_NAMES = (*Health._fields, *_SCORES, "accuracy")
"""Names of the numbers that an evaluation may give."""

_MIN_ROWS = 2  # a distance needs two


def health_names(party: Party) -> tuple[str, ...]:
    """Return the names under which a party's health is logged; none where it is not measured."""
    if party.config.health_samples == 0 or not party.overrides("draw_views"):
        return ()
    clusters = party.overrides("assign_clusters")
    return tuple(
        f"health_{name}" for name in Health._fields if clusters or name != "cluster_balance"
    )


def measure_health(party: Party, samples: npt.NDArray[Any], num_samples: int) -> Health | None:
    """Measure two views of some of the samples, the same ones and the same views each time.

    The network normalises by the batch, as it does in training: running statistics lag behind a
    network that has just been moved.

    Args:
        party: A strategy; its ``draw_views``, ``project`` and ``assign_clusters`` are used.
        samples: (n, ...) as the party stores them.
        num_samples: How many of them at most.

    Returns:
        None where the strategy has no views, or there are too few samples; NaN for everything where
        the network has diverged.
    """
    n = min(num_samples, len(samples))
    if n < _MIN_ROWS:
        return None
    stream = party.streams.for_torch(party.party, 0, "health")
    rows = torch.randperm(len(samples), generator=stream)[:n].sort().values.numpy()
    inputs = torch.from_numpy(np.array(samples[rows])).to(party.exe_device)
    generator = party.streams.for_torch(party.party, 0, "health views", party.exe_device)
    views = party.draw_views(inputs, generator)
    if views is None:
        return None
    with drawing_from(party.streams, party.party, 0, "health networks", party.exe_device):
        z1, z2 = party.project(views.x1), party.project(views.x2)
    clusters = party.assign_clusters(z1)
    if not (z1.isfinite().all() and z2.isfinite().all()):
        return Health(math.nan, math.nan, math.nan, None if clusters is None else math.nan)
    if clusters is None:
        return health_of(z1.cpu(), z2.cpu())
    assignments, num_clusters = clusters
    return health_of(z1.cpu(), z2.cpu(), assignments.cpu(), num_clusters)


def health_metrics(health: Health | None, prefix: str = "health_") -> dict[str, float]:
    """Return the measured numbers by the name under which they are logged."""
    if health is None:
        return {}
    return {prefix + k: v for k, v in health._asdict().items() if v is not None}


def clustering_of(
    party: Party,
    clusters: npt.NDArray[np.int64] | None,
    samples: npt.NDArray[Any],
    labels: npt.NDArray[np.int64],
) -> Mapping[str, float]:
    """Return how well clusters fit the labels: the strategy's, or else k-means of the features.

    Args:
        party: A strategy.
        clusters: Ids (n,) of the strategy's clusters; None for k-means.
        samples: (n, ...).
        labels: (n,) classes.
    """
    if clusters is None:
        features = extract_features(party.model, samples, device=party.exe_device)
        seed = derive_seed(party.seed, party.party, 0, "evaluation clusters") % 2**32
        clusters = cluster_features(features, num_clusters=len(np.unique(labels)), seed=seed)
    scores: ClusteringScores = clustering_scores(clusters, labels)
    numbers = (scores.nmi, scores.ari, scores.accuracy, scores.purity)
    return dict(zip(_SCORES, numbers, strict=True))
