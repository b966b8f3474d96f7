import math
import re

import numpy as np
import pytest
import torch

from orchestra_strategy.errors import DataError, ParameterError
from orchestra_strategy.evaluation import (
    Health,
    alignment,
    cluster_balance,
    collapse_reason,
    effective_rank,
    geometry,
    health_of,
    uniformity,
)


@pytest.fixture
def z():
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def rotation():
    square = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
    return torch.linalg.qr(square).Q


def slow_uniformity(z, t):
    """All pairs, one by one."""
    rows = [row / math.sqrt((row**2).sum()) for row in z.double().numpy()]
    terms = []
    for i, a in enumerate(rows):
        for b in rows[i + 1 :]:
            terms.append(math.exp(-t * sum((x - y) ** 2 for x, y in zip(a, b))))
    return math.log(sum(terms) / len(terms))


class TestAlignment:
    def test_by_hand(self):
        # 0 degrees: 0. Opposite: 4. Right angle: 2.
        z1 = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
        z2 = torch.tensor([[7.0, 0.0], [-3.0, 0.0], [1.0, 0.0]])
        assert alignment(z1, z2) == pytest.approx((0 + 4 + 2) / 3)

    def test_only_directions_count(self, z, rotation):
        scale = torch.rand(len(z), 1) + 0.1
        assert alignment(z, z * scale) == pytest.approx(0, abs=1e-12)
        other = z.roll(1, dims=0)
        turned = alignment(z @ rotation, other @ rotation)
        assert turned == pytest.approx(alignment(z, other), rel=1e-5)

    def test_other_shape_is_refused(self, z):
        with pytest.raises(DataError, match=r"`z1` and `z2` to have one shape.*\(40, 6\) and \(39"):
            alignment(z, z[1:])


class TestUniformity:
    def test_by_hand(self):
        # Three pairs at squared distances 2, 2 and 4.
        z = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        expected = math.log((math.exp(-2) + math.exp(-2) + math.exp(-4)) / 3)
        assert uniformity(z, t=1.0) == pytest.approx(expected)

    @pytest.mark.parametrize("entries", [1, 100, 2**22])
    def test_equals_the_loop_over_pairs_in_blocks_of_any_size(self, z, monkeypatch, entries):
        monkeypatch.setattr(geometry, "_BLOCK_ENTRIES", entries)
        assert uniformity(z, t=1.5) == pytest.approx(slow_uniformity(z, 1.5), rel=1e-9)

    def test_order_and_rotation_and_length_do_not_count(self, z, rotation):
        expected = uniformity(z)
        assert uniformity(z[torch.randperm(40)]) == pytest.approx(expected, rel=1e-9)
        assert uniformity(z @ rotation) == pytest.approx(expected, rel=1e-5)
        assert uniformity(5 * z) == pytest.approx(expected, rel=1e-5)

    def test_collapse_is_zero(self):
        assert uniformity(torch.full((30, 4), 0.3)) == pytest.approx(0, abs=1e-12)
        assert uniformity(torch.zeros(30, 4)) == pytest.approx(0, abs=1e-12)

    def test_sharp_kernels_and_extreme_lengths_stay_finite(self):
        opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
        assert uniformity(opposite, t=1e4) == pytest.approx(-4e4)
        extreme = torch.tensor([[1e-200, 0.0], [0.0, 1e300]], dtype=torch.float64)
        assert uniformity(extreme) == pytest.approx(-4)

    def test_refuses(self, z):
        with pytest.raises(DataError, match="`z` to have at least 2 rows, to make a pair, got 1"):
            uniformity(z[:1])
        for t in (0.0, -1.0, math.inf, math.nan):
            with pytest.raises(ParameterError, match="`t` to be a finite number above 0, got"):
                uniformity(z, t)


class TestEffectiveRank:
    def test_by_hand(self):
        # Singular values 3 and 1: p = 3/4 and 1/4.
        z = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
        entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
        assert effective_rank(z) == pytest.approx(math.exp(entropy))

    @pytest.mark.parametrize("shape", [(40, 6), (6, 40), (12, 12)])
    def test_equals_the_singular_values(self, shape):
        z = torch.randn(shape, generator=torch.Generator().manual_seed(2)) * 2 + 1
        singular = np.linalg.svd(z.double().numpy(), compute_uv=False)
        p = singular / singular.sum()
        assert effective_rank(z) == pytest.approx(math.exp(-sum(p * np.log(p))), rel=1e-9)

    def test_rotation_and_scale_do_not_count(self, z, rotation):
        assert effective_rank(z @ rotation) == pytest.approx(effective_rank(z), rel=1e-5)
        assert effective_rank(1e-30 * z) == pytest.approx(effective_rank(z), rel=1e-5)

    def test_limits(self):
        assert effective_rank(torch.ones(500, 300)) == pytest.approx(1, abs=1e-5)
        assert effective_rank(torch.zeros(5, 3)) == 0
        assert effective_rank(torch.eye(7)) == pytest.approx(7)
        for scale in (1e-300, 1e300):  # their squares are out of range
            assert effective_rank(scale * torch.eye(3).double()) == pytest.approx(3)


class TestClusterBalance:
    def test_by_hand(self):
        # Sizes 2, 1, 1, 0 of 4.
        entropy = -(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25))
        got = cluster_balance(torch.tensor([0, 2, 0, 1]), num_clusters=4)
        assert got == pytest.approx(entropy / math.log(4))

    def test_names_and_order_do_not_count(self):
        clusters = np.array([0, 0, 0, 1, 2, 2])
        renamed = np.array([3, 1, 0])[clusters][::-1]
        assert cluster_balance(clusters, 4) == pytest.approx(cluster_balance(renamed, 4))

    def test_limits(self):
        assert cluster_balance(np.arange(12) % 3, 3) == pytest.approx(1)
        assert cluster_balance(np.full(12, 2), 3) == 0

    @pytest.mark.parametrize(
        ("clusters", "count", "error", "message"),
        [
            ([0, 0], 1, ParameterError, "`num_clusters` to be at least 2, got 1"),
            ([0, 4], 4, DataError, "`assignments` to be below `num_clusters` = 4, got 4"),
            ([0, -1], 4, DataError, "`assignments` to be classes of at least 0, got -1"),
        ],
    )
    def test_refuses(self, clusters, count, error, message):
        with pytest.raises(error, match=message):
            cluster_balance(np.array(clusters), count)
        with pytest.raises(DataError, match="`assignments` to have at least one sample, got none"):
            cluster_balance(np.zeros(0, int), 4)


class TestHealth:
    def test_is_its_four_numbers(self, z):
        other, clusters = z + 0.1, torch.arange(40) % 5
        assert health_of(z, other, clusters, 8) == Health(
            alignment(z, other), uniformity(z), effective_rank(z), cluster_balance(clusters, 8)
        )
        assert health_of(z, other).cluster_balance is None

    @pytest.mark.parametrize("measure", [uniformity, effective_rank, lambda z: alignment(z, z)])
    def test_not_finite_is_refused(self, z, measure):
        z[3, 2] = math.nan
        with pytest.raises(DataError, match="to be finite, got NaN or infinite values in 1 of 40"):
            measure(z)

    def test_leaves_the_features_alone(self, z):
        before = z.clone().requires_grad_()
        health_of(before, before)
        assert torch.equal(before, z)

    @pytest.mark.parametrize(
        "given", [{"assignments": torch.zeros(40).long()}, {"num_clusters": 4}]
    )
    def test_assignments_need_their_number(self, z, given):
        with pytest.raises(ParameterError, match="together, got no `"):
            health_of(z, z, **given)

    def test_assignments_of_other_samples_are_refused(self, z):
        with pytest.raises(DataError, match=r"`assignments` to have shape \(40,\)"):
            health_of(z, z, torch.zeros(39).long(), 4)


class TestCollapse:
    def test_healthy_features_have_no_reason(self, z):
        assert collapse_reason(health_of(z, z, torch.arange(40) % 4, 4)) is None

    @pytest.mark.parametrize(
        ("features", "reason"),
        [
            (
                torch.ones(40, 6),
                "point nearly the same way: the uniformity is -?0.000, above -0.01",
            ),
            (torch.zeros(40, 6), "point nearly the same way"),
            # Both ends of one line: uniform enough, but a single direction.
            (
                torch.ones(40, 6) * (torch.arange(40) % 2 * 2 - 1)[:, None],
                "span too few directions: their effective rank is 1.00, below 2",
            ),
        ],
    )
    def test_collapsed_features(self, features, reason):
        found = collapse_reason(health_of(features, features))
        assert re.search(reason, found)

    def test_one_cluster(self, z):
        reason = collapse_reason(health_of(z, z, torch.full((40,), 3), 16))
        assert reason == (
            "One cluster holds nearly all samples: the balance of the clusters is 0.000, below "
            "0.01."
        )

    def test_not_finite(self):
        reason = collapse_reason(Health(0.1, math.nan, math.inf))
        assert reason == "Not finite: uniformity, effective_rank. The training has diverged."

    def test_bounds_are_arguments(self, z):
        healthy = health_of(z, z, torch.arange(40) % 2, 16)  # balance 1/4
        assert "directions" in collapse_reason(healthy, min_effective_rank=5.99)
        assert "same way" in collapse_reason(healthy, max_uniformity=-3.9)
        assert "One cluster" in collapse_reason(healthy, min_cluster_balance=0.3)
        assert collapse_reason(healthy, min_cluster_balance=0.2) is None
