import pytest
import torch
from torch import nn

from orchestra_strategy.algorithms.clustering import compactness
from orchestra_strategy.algorithms.objective import l2_penalty
from tests.algorithms import tiny
from tests.reference import baselines as slow


def test_l2_by_hand_has_a_gradient_and_leaves_frozen_parameters_out():
    model = nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3.0, -1.0]]))
        model.bias.fill_(2.0)
    l2_penalty(model).backward()
    assert l2_penalty(model).item() == 9 + 1 + 4
    assert model.weight.grad.tolist() == [[2 * 3, 2 * -1]]
    model.bias.requires_grad_(False)
    assert l2_penalty(model).item() == 9 + 1


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_compactness_equals_the_slow_version(seed):
    Z, C = tiny.unit(7, 4, seed), tiny.unit(3, 4, seed + 10)
    want = slow.compactness(Z.tolist(), C.tolist())
    assert compactness(Z, C) == pytest.approx(want, abs=1e-6)


def test_compactness_by_hand():
    Z = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    assert compactness(Z, Z) == pytest.approx(1)
    assert compactness(Z, Z[:1]) == pytest.approx((1 + 0.6 + 0) / 3)
    assert compactness(Z, -Z[:1]) == 0  # cosines -1, -0.6 and 0
    assert compactness(Z[:0], Z) == compactness(Z, Z[:0]) == 0
