import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra_strategy.algorithms.sinkhorn import balanced_assignment, sinkhorn
from orchestra_strategy.errors import ParameterError
from tests.reference import orchestra as slow


def cosines(n, k, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, k, generator=generator) * 2 - 1


def test_two_by_two_by_hand():
    # Symmetric similarities: P is already doubly stochastic up to the scale, so nothing moves.
    A = sinkhorn(torch.tensor([[1.0, 0.96], [0.96, 1.0]]))
    p = 1 / (1 + torch.exp(torch.tensor(-25 * 0.04)))
    assert torch.allclose(A, torch.tensor([[p, 1 - p], [1 - p, p]]))


@pytest.mark.parametrize(("n", "k"), [(7, 3), (3, 7), (1, 4), (4, 1)])
def test_equals_the_slow_version(n, k):
    S = cosines(n, k)
    assert torch.allclose(sinkhorn(S), torch.tensor(slow.sinkhorn(S.tolist())), atol=1e-6)


def test_stops_at_the_tolerance_like_the_slow_version():
    S = cosines(6, 4) * 0.05  # converges within the first ten iterations
    early = sinkhorn(S, max_iters=100)
    assert torch.allclose(early, sinkhorn(S, max_iters=10))
    slowly = cosines(12, 4)
    assert not torch.equal(sinkhorn(slowly), sinkhorn(slowly, max_iters=10))


def test_clusters_get_equal_weight():
    A = sinkhorn(cosines(40, 5), max_iters=2000, tol=1e-9)
    assert torch.allclose(A.sum(dim=1), torch.ones(40))
    assert torch.allclose(A.sum(dim=0), torch.full((5,), 8.0), atol=1e-3)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(1, 6),
    st.sampled_from([0.0, 1.0, 1e3, 1e30, 3e38]),
    st.integers(0, 9),
)
def test_finite_for_any_finite_input(n, k, scale, seed):
    A = sinkhorn(cosines(n, k, seed) * scale)
    assert torch.isfinite(A).all()
    assert torch.allclose(A.sum(dim=1), torch.ones(n), atol=1e-5)


def test_identical_rows_share_all_clusters():
    A = sinkhorn(torch.tensor([[0.9, 0.1, -0.5]]).repeat(6, 1))
    assert torch.allclose(A, torch.full((6, 3), 1 / 3), atol=1e-6)


def test_gives_no_gradient():
    S = cosines(3, 2).requires_grad_()
    assert not sinkhorn(S).requires_grad


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (3,)])
def test_refuses_empty(shape):
    with pytest.raises(ParameterError, match=r"Expected `S` to be a non-empty \(N, K\) matrix"):
        sinkhorn(torch.zeros(shape))


def test_refuses_nan():
    with pytest.raises(ParameterError, match="Expected `S` to be finite"):
        sinkhorn(torch.tensor([[float("nan"), 0.0]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_carried_scaling_comes_to_the_assignment_solved_in_full(dtype):
    S, scaling = cosines(40, 8) * 0.3, None
    for _ in range(60):
        A, scaling = balanced_assignment(S, start=scaling, max_iters=3, tol=0, dtype=dtype)
    assert torch.allclose(A, sinkhorn(S, max_iters=2000, tol=1e-9), atol=1e-5)
    once = balanced_assignment(S, max_iters=3, tol=0, dtype=dtype).A
    assert not torch.allclose(A, once, atol=1e-3)
