from itertools import permutations

import numpy as np
import pytest
import torch
from torchmetrics.functional import clustering as other

from orchestra_strategy.errors import DataError, ParameterError
from orchestra_strategy.evaluation import (
    cluster_class_table,
    cluster_features,
    clustering_scores,
)

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 4, 200)
CLUSTERS = np.where(RNG.random(200) < 0.6, LABELS, RNG.integers(0, 6, 200))


def slow_accuracy(clusters, labels):
    """Try every way of giving classes to clusters, each class at most once."""
    names, classes = sorted(set(clusters)), sorted(set(labels))
    classes += [None] * (len(names) - len(classes))
    best = 0
    for order in permutations(classes, len(names)):
        of_cluster = dict(zip(names, order))
        best = max(best, sum(of_cluster[c] == y for c, y in zip(clusters, labels)))
    return best / len(labels)


class TestScores:
    def test_by_hand(self):
        # Cluster 0 holds classes 0 0 1, cluster 1 holds 1, cluster 2 holds 1 1. One to one: cluster
        # 0 is class 0 (2 right), cluster 2 class 1 (2 right). Many to one: 2 + 1 + 2.
        clusters, labels = np.array([0, 0, 0, 1, 2, 2]), np.array([0, 0, 1, 1, 1, 1])
        scores = clustering_scores(clusters, labels)
        assert scores.accuracy == pytest.approx(4 / 6)
        assert scores.purity == pytest.approx(5 / 6)
        assert (scores.num_clusters, scores.num_classes) == (3, 2)

    def test_matching_is_not_greedy(self):
        # Greedy takes cluster 0 = class 0 (5) and is left with 0; the best is 4 + 4.
        clusters, labels = np.repeat([0, 0, 1], [5, 4, 4]), np.repeat([0, 1, 0], [5, 4, 4])
        assert clustering_scores(clusters, labels).accuracy == pytest.approx(8 / 13)

    def test_accuracy_equals_the_best_of_all_matchings(self):
        scores = clustering_scores(CLUSTERS, LABELS)
        assert scores.accuracy == slow_accuracy(CLUSTERS.tolist(), LABELS.tolist())
        assert scores.accuracy < scores.purity < 1

    def test_fewer_clusters_than_classes(self):
        scores = clustering_scores(np.array([0, 0, 1, 1]), np.array([0, 1, 2, 3]))
        assert scores.accuracy == scores.purity == 0.5

    def test_nmi_and_ari_equal_another_implementation(self):
        scores = clustering_scores(CLUSTERS, LABELS)
        pair = torch.from_numpy(CLUSTERS), torch.from_numpy(LABELS)
        assert scores.nmi == pytest.approx(float(other.normalized_mutual_info_score(*pair)), 1e-5)
        assert scores.ari == pytest.approx(float(other.adjusted_rand_score(*pair)), 1e-6)
        assert 0.1 < scores.nmi < 0.9
        assert 0.1 < scores.ari < 0.9

    def test_ari_of_many_samples_does_not_overflow(self):
        # Two clusters, 30 % of the samples in the wrong one: the Rand index is 0.7^2 + 0.3^2 =
        # 0.58 beside 0.5 by chance, so the ARI is 0.16. Products of pair counts overflow int64.
        labels = np.repeat([0, 1], 100_000)
        clusters = labels ^ (np.arange(200_000) % 10 < 3)
        assert clustering_scores(clusters, labels).ari == pytest.approx(0.16, abs=1e-4)

    def test_names_and_order_do_not_count(self):
        renamed = np.array([90, 7, 1000, 3, 12, 5])[CLUSTERS]
        order = RNG.permutation(200)
        assert clustering_scores(renamed[order], 9 * LABELS[order]).__dict__ == pytest.approx(
            clustering_scores(CLUSTERS, LABELS).__dict__
        )

    def test_limits(self):
        perfect = clustering_scores((LABELS + 1) % 4, LABELS)
        assert (perfect.nmi, perfect.ari) == pytest.approx((1, 1))
        assert perfect.accuracy == perfect.purity == 1
        single = clustering_scores(np.zeros(200, int), LABELS)
        assert (single.nmi, single.ari) == (0, 0)
        assert single.accuracy == single.purity == np.bincount(LABELS).max() / 200
        own = clustering_scores(np.arange(200), LABELS)
        assert own.purity == 1
        assert own.accuracy == 4 / 200

    def test_tensors(self):
        tensors = torch.from_numpy(CLUSTERS), torch.from_numpy(LABELS)
        assert clustering_scores(*tensors) == clustering_scores(CLUSTERS, LABELS)

    @pytest.mark.parametrize(
        ("clusters", "labels", "message"),
        [
            ([0, 1], [0], r"`labels` to have shape \(2,\)"),
            ([0.0, 1.0], [0, 1], "`clusters` to be integer classes, got float64"),
            ([0, -1], [0, 1], "`clusters` to be classes of at least 0, got -1"),
        ],
    )
    def test_refuses(self, clusters, labels, message):
        with pytest.raises(DataError, match=message):
            clustering_scores(np.array(clusters), np.array(labels))
        with pytest.raises(DataError, match="`clusters` to have at least one sample, got none"):
            clustering_scores(np.zeros(0, int), np.zeros(0, int))


class TestTable:
    def test_counts_by_hand(self):
        table = cluster_class_table(np.array([0, 2, 2, 2]), np.array([1, 0, 0, 1]), 4, 3)
        assert table.tolist() == [[0, 0, 2, 0], [1, 0, 1, 0], [0, 0, 0, 0]]

    def test_equals_the_loop(self):
        expected = np.zeros((4, 6), int)
        for cluster, label in zip(CLUSTERS, LABELS):
            expected[label, cluster] += 1
        assert (cluster_class_table(CLUSTERS, LABELS) == expected).all()

    @pytest.mark.parametrize("name", ["num_clusters", "num_classes"])
    def test_too_small_a_table_is_refused(self, name):
        with pytest.raises(ParameterError, match=f"`{name}` to be above 1, got 1"):
            cluster_class_table(np.array([0, 1]), np.array([0, 1]), **{name: 1})


class TestFeatures:
    BLOBS = (8 * np.eye(5)[LABELS] + RNG.normal(size=(200, 5))).astype(np.float32)

    @pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
    def test_finds_separate_blobs(self, convert):
        clusters = cluster_features(convert(self.BLOBS), 4)
        assert clusters.dtype == np.int64
        assert clustering_scores(clusters, LABELS).accuracy == 1

    def test_seed_decides_and_the_global_generator_is_left_alone(self):
        noise = RNG.normal(size=(150, 8))
        before = repr(np.random.get_state())
        first, again, other_seed = (cluster_features(noise, 9, seed, 1) for seed in (0, 0, 1))
        assert (first == again).all()
        assert clustering_scores(first, other_seed).ari < 1
        assert repr(np.random.get_state()) == before

    def test_collapsed_features_are_one_cluster(self, recwarn):
        assert set(cluster_features(np.ones((20, 3)), 4)) == {0}
        assert not recwarn

    @pytest.mark.parametrize(
        ("changed", "error", "message"),
        [
            ({"num_clusters": 0}, ParameterError, "`num_clusters` to be at least 1, got 0"),
            ({"restarts": 0}, ParameterError, "`restarts` to be at least 1, got 0"),
            ({"num_clusters": 201}, DataError, "`num_clusters` = 201 rows, got 200"),
            ({"features": BLOBS * np.nan}, DataError, "`features` to be finite"),
        ],
    )
    def test_refuses(self, changed, error, message):
        with pytest.raises(error, match=message):
            cluster_features(**{"features": self.BLOBS, "num_clusters": 4, **changed})
