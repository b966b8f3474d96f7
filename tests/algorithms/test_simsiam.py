import pytest
import torch
import torch.nn.functional as F

from orchestra_strategy.algorithms import simsiam
from orchestra_strategy.algorithms.simsiam import SimSiamObjective, negative_cosine, simsiam_loss
from orchestra_strategy.errors import ModelError
from orchestra_strategy.privacy import per_example_clipped_mean
from tests.algorithms import tiny
from tests.reference import baselines as slow


def four(seed, grad=False):
    generator = torch.Generator().manual_seed(seed)
    return [t.requires_grad_(grad) for t in torch.randn(4, 6, 5, generator=generator)]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_loss_equals_the_slow_version(seed):
    tensors = four(seed)
    want = slow.simsiam_loss(*(t.tolist() for t in tensors))
    assert simsiam_loss(*tensors).item() == pytest.approx(want, abs=1e-5)


def test_loss_by_hand():
    """cos(p1, z2) = 0.6 and cos(p2, z1) = 0; lengths do not matter."""
    p1, p2 = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0]])
    z1, z2 = torch.tensor([[5.0, 0.0]]), torch.tensor([[0.1, 0.0]])
    assert simsiam_loss(p1, p2, z1, z2).item() == pytest.approx(-(0.6 + 0.0) / 2, abs=1e-6)


def test_the_stop_gradient_branch_gets_none():
    p1, p2, z1, z2 = (t.clone().requires_grad_() for t in four(0))
    simsiam_loss(p1, p2, z1, z2).backward()
    assert p1.grad.abs().sum() > 0
    assert p2.grad.abs().sum() > 0
    assert z1.grad is None
    assert z2.grad is None


def test_gradient_reaches_encoder_and_predictor():
    model = tiny.model(("predictor",))
    tiny.objective(SimSiamObjective, model)(model, tiny.batch(16)).total.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("seed", [0, 1])
def test_training_keeps_the_rank_and_without_the_stop_gradient_loses_it(monkeypatch, seed):
    """BatchNorm keeps the spread, so the collapse is one of dimensions."""
    ranks = []
    for broken in (False, True):
        if broken:
            everywhere = lambda p, z: -F.cosine_similarity(p, z, dim=1).mean()  # noqa: E731
            monkeypatch.setattr(simsiam, "negative_cosine", everywhere)
        model = tiny.model(("predictor",), seed=seed)
        losses = tiny.train(model, tiny.objective(SimSiamObjective, model))
        assert sum(losses[-5:]) < sum(losses[:5]) - 1
        ranks.append(tiny.effective_rank(tiny.projections(model)))
    assert ranks[0] > 6
    assert ranks[1] < 5


def test_without_batch_norm_it_collapses_here():
    """A limit of the method that the README names."""
    model = tiny.model(("predictor",), norm="group")
    tiny.train(model, tiny.objective(SimSiamObjective, model))
    assert tiny.spread(tiny.projections(model)) < 0.15


def test_per_example_gradients_are_the_batch_gradient_where_nothing_is_clipped():
    model = tiny.model(("predictor",), norm="group")
    plain, clipped = (tiny.objective(SimSiamObjective, model) for _ in range(2))
    plain(model, tiny.batch(8)).total.backward()
    got = per_example_clipped_mean(clipped, model, tiny.batch(8), clip_norm=1e6)
    for p, gradient in zip(model.parameters(), got.gradients):
        assert torch.allclose(p.grad, gradient, atol=1e-5)


def test_a_model_without_predictor_is_refused_with_the_remedy():
    with pytest.raises(ModelError, match=r"without `predictor` \(h.*heads=\('predictor',\)\)"):
        tiny.objective(SimSiamObjective, tiny.model(("degeneracy_head",)))


def test_negative_cosine_of_equal_directions_is_minus_one():
    p = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    assert negative_cosine(p, 5 * p).item() == pytest.approx(-1)
