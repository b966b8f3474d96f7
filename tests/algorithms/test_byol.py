import copy

import pytest
import torch
import torch.nn.functional as F

from orchestra_strategy.algorithms.byol import BYOLObjective, byol_loss
from orchestra_strategy.algorithms.ema import follow
from orchestra_strategy.algorithms.model import parts_of
from orchestra_strategy.algorithms.objective import LossParts
from orchestra_strategy.errors import ModelError
from orchestra_strategy.privacy import per_example_clipped_mean
from tests.algorithms import tiny
from tests.reference import baselines as slow


def four(seed):
    return list(torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_loss_equals_the_slow_version(seed):
    tensors = four(seed)
    want = slow.byol_loss(*(t.tolist() for t in tensors))
    assert byol_loss(*tensors).item() == pytest.approx(want, abs=1e-5)


def test_loss_by_hand():
    """p1 is t2's direction (0), p2 opposite to t1 (|2|^2)."""
    p1, p2 = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, -2.0]])
    t1, t2 = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    assert byol_loss(p1, p2, t1, t2).item() == pytest.approx(0 + 4, abs=1e-6)


def test_no_gradient_reaches_the_target():
    p1, p2, t1, t2 = (t.clone().requires_grad_() for t in four(0))
    byol_loss(p1, p2, t1, t2).backward()
    assert p1.grad.abs().sum() > 0
    assert p2.grad.abs().sum() > 0
    assert t1.grad is None
    assert t2.grad is None


def test_gradient_of_a_step_reaches_the_online_network_alone():
    model = tiny.model(("predictor",))
    objective = tiny.objective(BYOLObjective, model)
    objective(model, tiny.batch(16)).total.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert all(p.grad is None for p in objective.target.parameters())


@pytest.mark.parametrize("tau", [0.996, 0.25, 0.0, 1.0])
def test_the_target_keeps_tau_of_itself(tau):
    """The other way round, it would be the online network with a little memory."""
    model = tiny.model(("predictor",))
    objective = tiny.objective(BYOLObjective, model, ema_decay=tau)
    before = [t.clone() for t in objective.target.parameters()]
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    objective(model, tiny.batch(8))
    for b, t in zip(before, objective.target.parameters(), strict=True):
        assert torch.allclose(t, tau * b + (1 - tau) * (b + 1), atol=1e-6)


def test_the_target_moves_once_a_step_before_it_projects_and_has_no_predictor():
    model = tiny.model(("predictor",))
    objective = tiny.objective(BYOLObjective, model, ema_decay=0.5)
    with torch.no_grad():
        model.projector[0].weight.mul_(3)
    target = copy.deepcopy(objective.target)
    x1, x2, _, _ = tiny.VIEWS(tiny.images(8), torch.Generator().manual_seed(1))
    want = follow(target, parts_of(model).encoder, 0.5, x1, x2)
    _, prepared = objective.per_example(model, tiny.batch(8))
    assert torch.equal(prepared["target1"], want[0])
    assert torch.equal(prepared["target2"], want[1])
    assert torch.allclose(want[0].norm(dim=1), torch.ones(8))
    assert len(list(objective.target.parameters())) == len(
        [*model.backbone.parameters(), *model.projector.parameters()]
    )


def test_each_view_predicts_the_targets_projection_of_the_other():
    model = tiny.model(("predictor",))
    objective = tiny.objective(BYOLObjective, model)
    loss, prepared = objective.per_example(model, tiny.batch(8))
    p1, p2 = (
        model.predictor(model.projector(model.backbone(prepared[view])))
        for view in ("inputs", "inputs2")
    )
    want = byol_loss(p1, p2, prepared["target1"], prepared["target2"])
    assert loss(model, prepared).total.item() == pytest.approx(want.item(), abs=1e-5)
    swapped = byol_loss(p1, p2, prepared["target2"], prepared["target1"])
    assert want.item() != pytest.approx(swapped.item(), abs=1e-3)


def test_training_lowers_the_loss_and_keeps_the_rank():
    model = tiny.model(("predictor",))
    losses = tiny.train(model, tiny.objective(BYOLObjective, model, ema_decay=0.9))
    assert sum(losses[-5:]) < sum(losses[:5]) - 5
    assert tiny.effective_rank(tiny.projections(model)) > 5.5


def test_one_network_on_both_sides_loses_the_rank():
    """No target, no predictor, no stop-gradient: what the bound above can tell apart."""
    model = tiny.model(("predictor",))
    objective = tiny.objective(BYOLObjective, model)

    def broken(model, batch):
        x1, x2, _, _ = objective.draw(batch)
        z1, z2 = (parts_of(model).encoder(x) for x in (x1, x2))
        return LossParts(4 - 4 * F.cosine_similarity(z1, z2, dim=1).mean(), {})

    tiny.train(model, broken)
    assert tiny.effective_rank(tiny.projections(model)) < 5


def test_without_batch_norm_it_collapses_here():
    """A limit of the method that the README names."""
    model = tiny.model(("predictor",), norm="group")
    tiny.train(model, tiny.objective(BYOLObjective, model, ema_decay=0.9))
    assert tiny.spread(tiny.projections(model)) < 0.15


def test_per_example_clipping_moves_the_target_once():
    model = tiny.model(("predictor",), norm="group")
    plain, clipped = (tiny.objective(BYOLObjective, model, ema_decay=0.5) for _ in range(2))
    with torch.no_grad():
        model.projector[0].weight.mul_(3)
    plain(model, tiny.batch(8)).total.backward()
    got = per_example_clipped_mean(clipped, model, tiny.batch(8), clip_norm=1e6)
    for p, gradient in zip(model.parameters(), got.gradients):
        assert torch.allclose(p.grad, gradient, atol=1e-5)
    for a, b in zip(plain.target.parameters(), clipped.target.parameters()):
        assert torch.equal(a, b)


def test_state_survives_bit_for_bit():
    model = tiny.model(("predictor",))
    objective = tiny.objective(BYOLObjective, model, ema_decay=0.5)
    tiny.train(model, objective, steps=2)
    other = tiny.objective(BYOLObjective, tiny.model(("predictor",), seed=9), ema_decay=0.5)
    other.load_state_dict(objective.state_dict())
    for a, b in zip(objective.target.state_dict().values(), other.target.state_dict().values()):
        assert torch.equal(a, b)


def test_a_model_without_predictor_is_refused():
    with pytest.raises(ModelError, match="without `predictor`"):
        tiny.objective(BYOLObjective, tiny.model())
