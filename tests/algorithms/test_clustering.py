import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra_strategy.algorithms.clustering import (
    balanced_rounding,
    local_clustering,
    random_unit_rows,
)
from orchestra_strategy.errors import ParameterError
from tests.reference import orchestra as slow


def unit_rows(n, d, seed=0):
    return random_unit_rows(n, d, torch.Generator().manual_seed(seed))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_rounding_by_hand():
    # Rows 0, 1, 2 all prefer cluster 0, which has two seats; row 2 loses least by moving.
    A = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7]])
    assert balanced_rounding(A).tolist() == [0, 0, 1, 1]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 3), st.integers(0, 99))
def test_rounding_is_the_best_balanced_one(n, k, seed):
    A = torch.rand(n, k, generator=generator(seed))
    labels = balanced_rounding(A)
    _, best = slow.balanced_rounding(A.tolist())
    sizes = torch.bincount(labels, minlength=k)
    assert sizes.min() >= n // k
    assert sizes.max() <= -(-n // k)
    assert A[torch.arange(n), labels].sum().item() == pytest.approx(best, abs=1e-6)


def test_local_clustering_equals_the_slow_version():
    Z = unit_rows(7, 3)
    start = torch.randperm(7, generator=generator(5))[:2].tolist()
    want, want_sizes = slow.local_clustering(Z.tolist(), start)
    got = local_clustering(Z, 2, k_min=2, generator=generator(5))
    assert torch.allclose(got.centroids, torch.tensor(want), atol=1e-5)
    assert got.sizes.tolist() == want_sizes


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 5), st.integers(1, 6), st.integers(0, 9), st.booleans(), st.integers(0, 99))
def test_every_centroid_is_a_mean_of_at_least_k_min_samples(k_min, k, spare, same, seed):
    m = k * k_min + spare
    Z = unit_rows(1, 8, seed).repeat(m, 1) if same else unit_rows(m, 8, seed)
    clusters = local_clustering(Z, k, k_min=k_min, generator=generator(seed))
    assert clusters.sizes.min() >= k_min
    assert clusters.sizes.sum() == m
    # And none of them is one sample's projection.
    if not same:
        nearest = (clusters.centroids @ Z.T).max(dim=1).values
        assert (nearest < 1 - 1e-6).all()


def test_a_cluster_whose_samples_cancel_out_is_withheld():
    Z = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    clusters = local_clustering(Z, 1, k_min=2, generator=generator())
    assert clusters.centroids.shape == (0, 2)


@pytest.mark.parametrize(("clusters", "k_min"), [(3, 4), (0, 2), (6, 2)])
def test_too_many_clusters_are_refused_with_both_numbers(clusters, k_min):
    with pytest.raises(ParameterError, match=rf"got {clusters} clusters for 10 samples"):
        local_clustering(unit_rows(10, 4), clusters, k_min=k_min, generator=generator())


def test_k_min_of_one_is_refused():
    with pytest.raises(ParameterError, match="`k_min` to be at least 2, got 1"):
        local_clustering(unit_rows(10, 4), 2, k_min=1, generator=generator())
