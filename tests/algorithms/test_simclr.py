import math

import pytest
import torch

from orchestra_strategy.algorithms.objective import LossParts
from orchestra_strategy.algorithms.objective_bases import two_projections
from orchestra_strategy.algorithms.simclr import SimCLRObjective, nt_xent
from orchestra_strategy.errors import DataError
from orchestra_strategy.privacy import per_example_clipped_mean
from tests.algorithms import tiny
from tests.reference import baselines as slow


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_loss_equals_the_slow_version(seed, temperature):
    z1, z2 = tiny.unit(6, 5, seed), tiny.unit(6, 5, seed + 10)
    want = slow.nt_xent(z1.tolist(), z2.tolist(), temperature)
    assert nt_xent(z1, z2, temperature).item() == pytest.approx(want, abs=1e-5)


def test_loss_by_hand():
    """Two samples at a right angle, views alike: one partner at cosine 1, two others at 0."""
    z = torch.eye(2)
    want = -math.log(math.exp(1 / 0.5) / (math.exp(1 / 0.5) + 2 * math.exp(0)))
    assert nt_xent(z, z, 0.5).item() == pytest.approx(want, abs=1e-6)


def test_loss_depends_neither_on_the_order_of_samples_nor_on_that_of_views():
    z1, z2 = tiny.unit(6, 5, 1), tiny.unit(6, 5, 2)
    order = torch.tensor([3, 0, 5, 1, 2, 4])
    want = nt_xent(z1, z2, 0.5).item()
    assert nt_xent(z1[order], z2[order], 0.5).item() == pytest.approx(want, abs=1e-6)
    assert nt_xent(z2, z1, 0.5).item() == pytest.approx(want, abs=1e-6)
    assert nt_xent(z1, z2[order], 0.5).item() != pytest.approx(want, abs=1e-2)


def test_loss_is_finite_where_exp_is_not():
    z = torch.eye(2)
    assert nt_xent(z, z, 0.001).item() == pytest.approx(0.0)  # exp(1000) is infinite
    assert nt_xent(z, z.flip(0), 0.001).item() == pytest.approx(1000.0)


def test_gradient_reaches_both_views_and_the_whole_encoder():
    model = tiny.model()
    objective = tiny.objective(SimCLRObjective, model)
    objective(model, tiny.batch(16)).total.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    z1, z2 = (tiny.unit(4, 6, s).requires_grad_() for s in (1, 2))
    nt_xent(z1, z2, 0.5).backward()
    assert z1.grad.abs().sum() > 0
    assert z2.grad.abs().sum() > 0


def test_the_network_runs_on_the_two_views_alone():
    model, calls = tiny.model(), []
    model.backbone.register_forward_hook(lambda *_: calls.append(1))
    tiny.objective(SimCLRObjective, model)(model, tiny.batch(8))
    assert len(calls) == 2


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_training_lowers_the_loss_and_keeps_projections_apart(norm):
    model = tiny.model(norm=norm)
    losses = tiny.train(model, tiny.objective(SimCLRObjective, model))
    assert sum(losses[-5:]) < sum(losses[:5]) - 1
    assert tiny.spread(tiny.projections(model)) > 0.6
    assert tiny.effective_rank(tiny.projections(model)) > 4.5


def test_without_negatives_projections_collapse():
    """What the two bounds above can tell apart."""
    model = tiny.model(norm="group")
    objective = tiny.objective(SimCLRObjective, model)

    def pull_together(model, batch):
        x1, x2, _, _ = objective.draw(batch)
        z1, z2 = two_projections(model, x1, x2)
        return LossParts(-(z1 * z2).sum(dim=1).mean(), {})

    tiny.train(model, pull_together)
    assert tiny.spread(tiny.projections(model)) < 0.1


def test_a_batch_of_one_is_refused_and_so_is_per_example_clipping():
    with pytest.raises(
        DataError, match=r"at least 2 samples in a batch for the NT-Xent loss.*got 1"
    ):
        nt_xent(torch.ones(1, 1), torch.ones(1, 1), 0.5)
    model = tiny.model(norm="group")
    with pytest.raises(DataError, match=r"per-example clipping.*cannot be used"):
        per_example_clipped_mean(
            tiny.objective(SimCLRObjective, model), model, {"inputs": tiny.images(4)}, 1.0
        )
