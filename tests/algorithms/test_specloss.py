import pytest
import torch

from orchestra_strategy.algorithms.specloss import SpecLossObjective, spectral_loss
from orchestra_strategy.errors import DataError
from tests.algorithms import tiny
from tests.reference import baselines as slow


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_loss_equals_the_slow_version(seed, scale):
    z1, z2 = tiny.unit(6, 5, seed), tiny.unit(6, 5, seed + 10)
    want = slow.spectral_loss(z1.tolist(), z2.tolist(), scale)
    assert spectral_loss(z1, z2, scale).item() == pytest.approx(want, abs=1e-5)


def test_loss_by_hand():
    """Views alike at cosine 0.6 to the other sample; mu = 2 scales products by 2."""
    z = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    want = -2 * 2 * 1 + (2 * 0.6) ** 2
    assert spectral_loss(z, z, 2.0).item() == pytest.approx(want, abs=1e-6)


def test_the_best_is_orthogonal_samples_with_equal_views_and_not_collapse():
    apart, collapsed = torch.eye(4), torch.eye(4)[:1].expand(4, 4)
    assert spectral_loss(apart, apart, 1.0).item() == -2
    assert spectral_loss(collapsed, collapsed, 1.0).item() == -1


def test_gradient_reaches_the_whole_encoder():
    model = tiny.model()
    tiny.objective(SpecLossObjective, model)(model, tiny.batch(16)).total.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize(("norm", "rank"), [("batch", 5.0), ("group", 2.0)])
def test_training_lowers_the_loss_and_keeps_projections_apart(norm, rank):
    model = tiny.model(norm=norm)
    losses = tiny.train(model, tiny.objective(SpecLossObjective, model))
    assert sum(losses[-5:]) < sum(losses[:5]) - 1
    assert tiny.spread(tiny.projections(model)) > 0.4  # 0.01 without negatives: test_simclr.py
    assert tiny.effective_rank(tiny.projections(model)) > rank


def test_a_batch_of_one_is_refused():
    with pytest.raises(DataError, match=r"for the spectral contrastive loss.*got 1"):
        spectral_loss(torch.ones(1, 1), torch.ones(1, 1), 1.0)
