import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra_strategy.algorithms.clustering import random_unit_rows
from orchestra_strategy.algorithms.moments import (
    Moments,
    SharedClusters,
    clusters_from_moments,
    moments,
)
from orchestra_strategy.errors import ParameterError


def unit_rows(n, d, seed=0):
    return random_unit_rows(n, d, torch.Generator().manual_seed(seed))


def shared(k, d, seed=0):
    scaling = torch.randn(k, generator=torch.Generator().manual_seed(seed))
    return SharedClusters(unit_rows(k, d, seed), scaling)


def slow_moments(Z, C, log_scaling, sharpness):
    """The sums as loops over samples, clusters and coordinates."""
    S = [[0.0] * len(C[0]) for _ in C]
    n = [0.0] * len(C)
    for z in Z:
        weights = [
            math.exp(sharpness * sum(a * b for a, b in zip(z, c)) + s)
            for c, s in zip(C, log_scaling)
        ]
        for j, weight in enumerate(weights):
            q = weight / sum(weights)
            n[j] += q
            for d, coordinate in enumerate(z):
                S[j][d] += q * coordinate
    return S, n


def test_moments_by_hand():
    # exp(ln 3 * 1) : exp(0) = 3 : 1, so the sample is 3/4 of cluster 0 and 1/4 of cluster 1.
    two = SharedClusters(torch.eye(2), torch.zeros(2))
    S, n = moments(torch.tensor([[1.0, 0.0]]), two, sharpness=math.log(3))
    assert S.flatten().tolist() == pytest.approx([3 / 4, 0, 1 / 4, 0])
    assert n.tolist() == pytest.approx([3 / 4, 1 / 4])


def test_a_scaling_draws_samples_in():
    # The scaling 3 of cluster 1 makes up for the similarity.
    two = SharedClusters(torch.eye(2), torch.tensor([0.0, math.log(3)]))
    _, n = moments(torch.tensor([[1.0, 0.0]]), two, sharpness=math.log(3))
    assert n.tolist() == pytest.approx([1 / 2, 1 / 2])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 9), st.integers(1, 4), st.integers(0, 99))
def test_moments_equal_the_slow_version(m, k, seed):
    Z, clusters = unit_rows(m, 3, seed), shared(k, 3, seed + 1)
    want_S, want_n = slow_moments(Z.tolist(), *(c.tolist() for c in clusters), sharpness=25.0)
    S, n = moments(Z, clusters)
    assert torch.allclose(S, torch.tensor(want_S, dtype=S.dtype), atol=1e-6)
    assert torch.allclose(n, torch.tensor(want_n, dtype=n.dtype), atol=1e-6)


def test_moments_of_parties_add_up_to_those_of_the_pooled_samples():
    clusters = shared(4, 5)
    parties = [unit_rows(n, 5, seed) for seed, n in enumerate((7, 1, 0, 12))]
    pooled = moments(torch.cat(parties), clusters)
    total = sum((moments(Z, clusters) for Z in parties[1:]), moments(parties[0], clusters))
    assert torch.allclose(total.S, pooled.S)
    assert torch.allclose(total.n, pooled.n)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(0, 999))
def test_one_sample_changes_the_moments_by_at_most_root_two(k, seed):
    clusters, Z = shared(k, 4, seed), unit_rows(6, 4, seed + 1)
    with_it, without = moments(Z, clusters), moments(Z[:-1], clusters)
    change = torch.cat([(a - b).flatten() for a, b in zip(with_it, without)])
    assert change.norm() <= math.sqrt(2) + 1e-6


def test_the_bound_of_root_two_is_reached():
    one = SharedClusters(torch.tensor([[1.0, 0.0]]), torch.zeros(1))
    S, n = moments(torch.tensor([[0.0, 1.0]]), one)
    assert torch.cat([S.flatten(), n]).norm().item() == pytest.approx(math.sqrt(2))


def test_centroids_by_hand():
    # 3 and 4 of 5; the second cluster is even and keeps to its mean's direction.
    C = torch.eye(2)
    total = Moments(torch.tensor([[3.0, 4.0], [-2.0, 0.0]]), torch.tensor([6.0, 6.0]))
    new = clusters_from_moments(total, SharedClusters(C, torch.zeros(2)))
    assert new.C.tolist() == [pytest.approx([0.6, 0.8]), pytest.approx([-1.0, 0.0])]
    assert new.log_scaling.tolist() == [0.0, 0.0]


def test_scalings_by_hand():
    # Sizes 4 and 1: shares 8/5 and 2/5 of an even one, so logarithms -ln 8/5 and -ln 2/5, centred.
    total = Moments(torch.eye(2), torch.tensor([4.0, 1.0]))
    new = clusters_from_moments(total, SharedClusters(torch.eye(2), torch.zeros(2)))
    centre = -(math.log(8 / 5) + math.log(2 / 5)) / 2
    want = [-math.log(8 / 5) - centre, -math.log(2 / 5) - centre]
    assert new.log_scaling.tolist() == pytest.approx(want)


def test_an_empty_cluster_keeps_its_centroid_and_draws_more_samples_in():
    clusters = SharedClusters(torch.eye(3), torch.zeros(3))
    S = torch.tensor([[0.0, 5.0, 0.0], [5.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    new = clusters_from_moments(Moments(S, torch.tensor([5.0, 5.0, 0.0])), clusters)
    assert new.C.tolist() == [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    assert new.log_scaling[2] > new.log_scaling[0]
    assert new.log_scaling.isfinite().all()


def test_samples_that_cancel_out_leave_the_centroid_where_it_is():
    clusters = SharedClusters(torch.eye(2), torch.zeros(2))
    new = clusters_from_moments(
        Moments(torch.tensor([[0.0, 0.0], [0.0, 4.0]]), torch.tensor([4.0, 4.0])), clusters
    )
    assert new.C.tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_nothing_and_the_errors_of_masks_change_nothing():
    clusters = shared(3, 4)
    for n in (torch.zeros(3), torch.full((3,), -1e-6)):
        new = clusters_from_moments(Moments(torch.zeros(3, 4), n), clusters)
        assert torch.equal(new.C, clusters.C)
        assert torch.equal(new.log_scaling, clusters.log_scaling)


def test_a_common_factor_changes_nothing():
    clusters = shared(3, 4)
    total = moments(unit_rows(20, 4), clusters)
    once, scaled = (
        clusters_from_moments(Moments(total.S * f, total.n * f), clusters) for f in (1, 1 / 700)
    )
    assert torch.allclose(once.C, scaled.C, atol=1e-6)
    assert torch.allclose(once.log_scaling, scaled.log_scaling, atol=1e-6)


def test_scalings_make_clusters_equal_where_plain_softmax_leaves_them_empty():
    # Two of four centroids are far from all samples.
    Z = F.normalize(torch.tensor([1.0, 0.0, 0.0]) + 0.3 * unit_rows(40, 3), dim=1)
    C = F.normalize(torch.tensor([[1.0, 0.1, 0], [1, -0.1, 0], [-1, 0.1, 0], [-1, 0, 0.1]]), dim=1)
    clusters = SharedClusters(C, torch.zeros(4))
    before = moments(Z, clusters).n
    for _ in range(20):
        clusters = clusters_from_moments(moments(Z, clusters), clusters)
    after = moments(Z, clusters).n
    assert before.min() < 0.1
    assert after.min() > 5


def test_projections_of_another_width_are_refused():
    with pytest.raises(
        ParameterError, match=r"`Z` to be \(m, 3\) like the centroids, got \(5, 2\)"
    ):
        moments(unit_rows(5, 2), shared(2, 3))
