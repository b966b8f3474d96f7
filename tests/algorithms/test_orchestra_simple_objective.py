import copy
import math

import pytest
import torch

from orchestra_strategy.algorithms.orchestra_simple_objective import (
    OrchestraSimpleObjective,
    OrchestraSimpleSettings,
    nearest_centroid_loss,
    orchestra_simple_loss,
)
from orchestra_strategy.errors import DataError, OrchestraError
from tests.algorithms import tiny
from tests.reference import baselines as slow


def ready(model, seed=0, samples=64, **settings):
    objective = tiny.objective(OrchestraSimpleObjective, model, **settings)
    objective.fit_centroids(model, tiny.batch(samples), torch.Generator().manual_seed(seed))
    return objective


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_loss_equals_the_slow_version(seed):
    z1, z2, C = tiny.unit(6, 5, seed), tiny.unit(6, 5, seed + 10), tiny.unit(3, 5, seed + 20)
    settings = OrchestraSimpleSettings(3, 0.3, 0.7, 1.9)
    got = orchestra_simple_loss(z1, z2, C, settings)
    cluster, contrastive, total = slow.orchestra_simple_loss(
        *(t.tolist() for t in (z1, z2, C)), 0.3, 0.7, 1.9
    )
    assert got.parts["cluster"].item() == pytest.approx(cluster, abs=1e-5)
    assert got.parts["contrastive"].item() == pytest.approx(contrastive, abs=1e-5)
    assert got.total.item() == pytest.approx(total, abs=1e-5)


def test_distance_by_hand():
    z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    C = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    want = (0 + math.sqrt(2) + math.sqrt(2)) / 3
    assert nearest_centroid_loss(z, C).item() == pytest.approx(want, abs=1e-6)


def test_distance_has_a_finite_gradient_on_a_centroid_and_is_0_without_any():
    z = torch.eye(2).requires_grad_()
    nearest_centroid_loss(z, torch.eye(2)).backward()
    assert z.grad.tolist() == [[0, 0], [0, 0]]
    assert nearest_centroid_loss(z, torch.empty(0, 2)).item() == 0


def test_centroids_are_constants():
    z1, z2, C = (tiny.unit(4, 6, s).requires_grad_() for s in (1, 2, 3))
    orchestra_simple_loss(z1, z2, C, OrchestraSimpleSettings()).total.backward()
    assert z1.grad.abs().sum() > 0
    assert z2.grad.abs().sum() > 0
    assert C.grad is None


def test_gradient_reaches_the_whole_encoder():
    model = tiny.model()
    objective = ready(model, num_clusters=4, contrastive_weight=0.0)
    objective(model, tiny.batch(16)).total.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert not objective.centroids.requires_grad


def test_centroids_are_seeded_unit_means_and_leave_the_model_as_it_was():
    model = tiny.model()
    before = copy.deepcopy(model.state_dict())
    first, again, other = (ready(model, seed, num_clusters=4).centroids for seed in (0, 0, 1))
    assert first.shape == (4, 16)
    assert torch.allclose(first.norm(dim=1), torch.ones(4), atol=1e-5)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-3)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(("samples", "clusters"), [(3, 1), (5, 2), (16, 8), (17, 8)])
def test_clusters_scale_down_to_two_samples_each(samples, clusters):
    assert len(ready(tiny.model(), samples=samples, num_clusters=8).centroids) == clusters


def test_two_samples_under_batch_norm_have_no_centroid_and_no_pull():
    """Normalised by their own statistics they are each other's opposite: the mean is zero."""
    model = tiny.model()
    objective = ready(model, samples=2)
    assert len(objective.centroids) == 0
    assert objective(model, tiny.batch(2)).parts["cluster"].item() == 0


def test_pulling_to_centroids_makes_clusters():
    """The mean distance to the nearest centroid falls further than NT-Xent alone lets it."""
    distances = []
    for weight in (0.0, 1.0):
        model = tiny.model()
        objective = ready(model, num_clusters=4, cluster_weight=weight)
        tiny.train(model, objective)
        loss = objective(model, tiny.batch())
        distances.append(loss.parts["cluster"].item())
    assert distances[1] < distances[0] - 0.2


def rounds(model, **settings):
    """Train 4 rounds of 15 steps, each with centroids of its own."""
    losses = []
    for seed in range(4):
        objective = ready(model, seed, num_clusters=8, **settings)
        losses += tiny.train(model, objective, steps=15)
    return losses


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_training_lowers_the_loss_and_keeps_projections_apart(norm):
    model = tiny.model(norm=norm)
    losses = rounds(model)
    assert losses[-1] < losses[0] - 0.2
    assert tiny.spread(tiny.projections(model)) > 0.3


def test_without_the_contrastive_loss_projections_collapse():
    model = tiny.model(norm="group")
    rounds(model, cluster_weight=1.0, contrastive_weight=0.0)
    assert tiny.spread(tiny.projections(model)) < 0.05


def test_a_step_without_centroids_and_a_single_sample_are_refused():
    model = tiny.model()
    objective = tiny.objective(OrchestraSimpleObjective, model)
    with pytest.raises(OrchestraError, match="got None: call `fit_centroids`"):
        objective(model, tiny.batch(8))
    with pytest.raises(DataError, match="at least 2 samples to cluster, got 1"):
        objective.fit_centroids(model, tiny.batch(1), torch.Generator())
