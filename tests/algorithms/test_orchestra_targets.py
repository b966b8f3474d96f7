"""Balanced, sharpened targets and the instance term, by hand; without them Orchestra as it was."""

import math

import pytest
import torch

from orchestra_strategy.algorithms.model import OrchestraModel
from orchestra_strategy.algorithms.orchestra_objective import (
    OrchestraObjective,
    OrchestraSettings,
    cluster_loss,
    orchestra_loss,
    with_length,
)
from orchestra_strategy.algorithms.orchestra_targets import assignments, mean_similarity
from orchestra_strategy.algorithms.simclr import nt_xent
from orchestra_strategy.errors import DataError
from orchestra_strategy.privacy import per_example_clipped_mean
from tests.algorithms import tiny

PLAIN = OrchestraSettings(temperature=0.3, deg_weight=0.7)


def parts(rows=5):
    """z2, tz1, C, rotation logits, rotation."""
    logits = torch.randn(rows, 4, generator=torch.Generator().manual_seed(4))
    return (
        tiny.unit(rows, 6, 1),
        tiny.unit(rows, 6, 2),
        tiny.unit(3, 6, 3),
        logits,
        torch.arange(rows) % 4,
    )


def objective_of(trained, **settings):
    made = tiny.objective(OrchestraObjective, trained, memory_size=32, **settings)
    made.centroids = tiny.unit(4, 16, 3)
    return made


def test_without_options_the_loss_is_the_published_one_bit_for_bit():
    z2, tz1, C, logits, rotation = parts()
    q1 = torch.softmax(tz1 @ C.T / 0.3, dim=1)
    log_p2 = torch.log_softmax(z2 @ C.T / 0.3, dim=1)
    cluster = -(q1 * log_p2).sum(dim=1).mean()
    total = cluster + 0.7 * torch.nn.functional.cross_entropy(logits, rotation)
    loss = orchestra_loss(z2, tz1, C, logits, rotation, PLAIN)
    assert torch.equal(loss.total, total)
    assert torch.equal(loss.parts["cluster"], cluster)
    assert mean_similarity("none", C, tz1) is None


def test_centred_and_sharpened_targets_by_hand():
    # Similarities (1, 0) less their centre (0.75, 0.25): (0.25, -0.25); over T = 0.5: a gap of 1.
    q = assignments(torch.tensor([[1.0, 0.0]]), torch.eye(2), 0.5, torch.tensor([0.75, 0.25]))
    first = 1 / (1 + math.exp(-1))
    assert q.tolist()[0] == pytest.approx([first, 1 - first])
    z2 = torch.tensor([[0.0, 1.0]])
    loss = cluster_loss(
        z2, torch.tensor([[1.0, 0.0]]), torch.eye(2), 1.0, 0.5, torch.tensor([0.75, 0.25])
    )
    log_p = -math.log(1 + math.e)  # of the first; the second has 1 more
    assert loss.item() == pytest.approx(-(first * log_p + (1 - first) * (log_p + 1)))


def test_the_centre_is_the_mean_of_similarities():
    Z, C = tiny.unit(7, 6, 1), tiny.unit(3, 6, 2)
    torch.testing.assert_close(mean_similarity("memory", C, Z), (Z @ C.T).mean(dim=0))
    torch.testing.assert_close(mean_similarity("clusters", C, Z), (C @ C.T).mean(dim=0))
    assert mean_similarity("memory", C, torch.empty(0, 6)) is None


def test_centred_targets_do_not_share_one_cluster():
    """All samples lie nearest to one centroid; what is left of them is what they differ in."""
    shared = torch.tensor([4.0, 0.0, 0.0])
    Z = torch.nn.functional.normalize(shared + tiny.unit(60, 3, 5), dim=1)
    C = torch.eye(3)
    assert assignments(Z, C, 0.1).argmax(dim=1).unique().tolist() == [0]
    centre = mean_similarity("memory", C, Z)
    sizes = assignments(Z, C, 0.05, centre).argmax(dim=1).bincount(minlength=3)
    assert sizes.min() >= 10


def test_gradients_flow_into_the_online_network_alone():
    z2, tz1, C, logits, rotation = parts()
    z2, tz1, C = (t.clone().requires_grad_() for t in (z2, tz1, C))
    settings = PLAIN._replace(target_temperature=0.1, contrast_weight=1.0)
    centre = mean_similarity("clusters", C.detach(), tz1)
    orchestra_loss(z2, tz1, C, logits, rotation, settings, centre).total.backward()
    assert z2.grad.abs().sum() > 0
    assert tz1.grad is None
    assert C.grad is None


def test_with_two_online_views_gradients_flow_into_both():
    z2, tz1, C, logits, rotation = parts()
    z1, z2, tz1 = (t.clone().requires_grad_() for t in (tiny.unit(5, 6, 7), z2, tz1))
    settings = PLAIN._replace(contrast_weight=1.0)
    plain = orchestra_loss(z2, tz1, C, logits, rotation, PLAIN)
    more = orchestra_loss(z2, tz1, C, logits, rotation, settings, None, z1)
    assert (more.total - plain.total).item() == pytest.approx(nt_xent(z2, z1, 0.2).item(), abs=1e-5)
    more.total.backward()
    assert z1.grad.abs().sum() > 0
    assert tz1.grad is None


def test_an_objective_runs_view_1_online_where_the_instance_term_compares_with_it():
    trained = tiny.model(("degeneracy_head",))
    online, target = (
        objective_of(trained, contrast_weight=1.0, contrast_with=network)
        for network in ("online", "target")
    )
    loss, prepared = online.per_example(trained, tiny.batch(8))
    assert "first" not in target.per_example(trained, tiny.batch(8))[1]
    assert (
        "first"
        not in objective_of(trained, contrast_with="online").per_example(trained, tiny.batch(8))[1]
    )
    plain = prepared.copy()
    del plain["first"]
    z1, z2 = (
        torch.nn.functional.normalize(trained.projector(trained.backbone(prepared[view])), dim=1)
        for view in ("first", "inputs")
    )
    difference = nt_xent(z2, z1, 0.2) - nt_xent(z2, prepared["target"], 0.2)
    assert (loss(trained, prepared).total - loss(trained, plain).total).item() == pytest.approx(
        difference.item(), abs=1e-5
    )


def test_the_instance_term_by_hand():
    """Two samples, views on the axes: NT-Xent is log(e^(1/T) + 2) - 1/T for each of the views."""
    e, logits, rotation = torch.eye(2), torch.zeros(2, 4), torch.tensor([0, 1])
    plain = OrchestraSettings(temperature=1.0)
    more = plain._replace(contrast_weight=0.5, contrast_temperature=0.5)
    without = orchestra_loss(e, e, e, logits, rotation, plain)
    with_it = orchestra_loss(e, e, e, logits, rotation, more)
    expected = 0.5 * (math.log(math.exp(2) + 2) - 2)
    assert (with_it.total - without.total).item() == pytest.approx(expected, abs=1e-5)
    assert with_it.parts.keys() == without.parts.keys()
    with pytest.raises(DataError, match="at least 2 samples in a batch for the NT-Xent"):
        orchestra_loss(e[:1], e[:1], e, logits[:1], rotation[:1], more)


@pytest.mark.parametrize("balance", ["memory", "clusters"])
def test_an_objective_centres_by_its_memory_with_the_batch_or_by_the_clusters(balance):
    trained = tiny.model(("degeneracy_head",))
    own = objective_of(trained, balance=balance, target_temperature=0.05)
    own.fill_memory([{"inputs": tiny.images(20), "ids": torch.arange(100, 120)}])
    loss, prepared = own.per_example(trained, tiny.batch(8))
    assert own.memory.ids.tolist()[-8:] == list(range(8))
    rows = own.memory.rows if balance == "memory" else own.centroids
    q = assignments(prepared["target"], own.centroids, 0.05, (rows @ own.centroids.T).mean(dim=0))
    z2 = torch.nn.functional.normalize(
        trained.projector(trained.backbone(prepared["inputs"])), dim=1
    )
    log_p = torch.log_softmax(z2 @ own.centroids.T / 0.1, dim=1)
    got = loss(trained, prepared).parts["cluster"]
    assert got.item() == pytest.approx(-(q * log_p).sum(dim=1).mean().item(), abs=1e-5)


def test_by_the_clusters_a_row_does_not_act_on_the_others():
    """What per-example clipping rests on: a row's gradient is the same in every batch."""
    trained = tiny.model(("degeneracy_head",), norm="group")
    gradients = []
    for rows in (slice(0, 1), slice(0, 8)):
        own = objective_of(trained, balance="clusters", target_temperature=0.05)
        loss, prepared = own.per_example(trained, {k: v[:8] for k, v in tiny.batch(8).items()})
        one = {name: tensor[rows][:1] for name, tensor in prepared.items()}
        gradients.append(torch.autograd.grad(loss(trained, one).total, list(trained.parameters())))
    for first, second in zip(*gradients):
        torch.testing.assert_close(first, second)
    own = objective_of(trained, balance="clusters", target_temperature=0.05)
    other = objective_of(trained, balance="clusters", target_temperature=0.05)
    own(trained, tiny.batch(8)).total.backward()
    clipped = per_example_clipped_mean(other, trained, tiny.batch(8), clip_norm=1e6)
    for p, gradient in zip(trained.parameters(), clipped.gradients):
        torch.testing.assert_close(p.grad, gradient, rtol=1e-3, atol=1e-5)


def test_the_rotation_is_told_from_projections_of_the_length_asked_for():
    trained = tiny.model(("degeneracy_head",))
    own = objective_of(trained, deg_length=4.0)
    loss, prepared = own.per_example(trained, tiny.batch(8))
    z3 = trained.projector(trained.backbone(prepared["rotated"]))
    logits = trained.degeneracy_head(4 * z3 / z3.norm(dim=1, keepdim=True))
    expected = torch.nn.functional.cross_entropy(logits, prepared["rotation"])
    torch.testing.assert_close(loss(trained, prepared).parts["degeneracy"], expected)
    assert torch.equal(with_length(z3, None), z3)


@pytest.mark.parametrize(("length", "bears_it"), [(None, False), (4.0, True)])
def test_at_a_high_rate_the_rotation_loss_stays_near_guessing_where_its_input_is_short(
    length, bears_it
):
    """The published head takes projections of length sqrt(D): here D is 512, as by default."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.ReLU())
        trained = OrchestraModel(body, 32, heads=("degeneracy_head",))
    own = tiny.objective(OrchestraObjective, trained, memory_size=64, deg_length=length)
    own.centroids = tiny.unit(4, 512, 3)
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(20):
        loss = own(trained, tiny.batch(32))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        losses.append(loss.parts["degeneracy"].item())
    assert (max(losses[5:]) < 1.3 * math.log(4)) == bears_it
