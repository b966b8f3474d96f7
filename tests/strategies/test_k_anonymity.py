"""No centroid that leaves a party is a function of fewer than ``k_min`` of its samples.

What a centroid depends on is found by trying: the clustering is run again with one sample of the
memory replaced, and the recorded assignment in place of a new one.
"""

from itertools import combinations
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra_strategy import OrchestraStrategy
from orchestra_strategy.algorithms import clustering
from orchestra_strategy.algorithms.clustering import local_clustering
from orchestra_strategy.algorithms.memory import ProjectionMemory
from tests.federated import toy

DIM = 24  # more than rows are averaged, so that means of different rows differ


def unit_rows(count, seed):
    return F.normalize(torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed)))


def recorded(function):
    """Run ``function``; return its result and every assignment that it made on the way."""
    made = []
    real = clustering.balanced_rounding

    def rounding(A):
        made.append(real(A))
        return made[-1]

    with patch.object(clustering, "balanced_rounding", rounding):
        return function(), made


def cluster(Z, num_clusters, k_min, seed, labels=None):
    """Cluster Z, if ``labels`` are given by these assignments in place of its own."""
    left = iter(labels or ())
    replay = (lambda A: next(left)) if labels else clustering.balanced_rounding
    with patch.object(clustering, "balanced_rounding", replay):
        generator = torch.Generator().manual_seed(seed)
        return local_clustering(Z, num_clusters, k_min=k_min, generator=generator)


def influences(Z, num_clusters, k_min, seed, labels):
    """Whether row i of Z moves centroid j, (m, K): every row is replaced once."""
    before = cluster(Z, num_clusters, k_min, seed, labels).centroids
    moved = torch.zeros(len(Z), len(before), dtype=torch.bool)
    for i in range(len(Z)):
        other = Z.clone()
        other[i] = unit_rows(1, seed=10**6 + i)
        after = cluster(other, num_clusters, k_min, seed, labels).centroids
        moved[i] = (after != before).any(dim=1)
    return moved


@st.composite
def histories(draw):
    """What came into a memory: its size, ids in their order with many repeated, equal samples."""
    k_min = draw(st.integers(2, 4))
    size = draw(st.integers(k_min, 14))
    ids = draw(st.lists(st.integers(0, 20), min_size=3 * k_min, max_size=40))
    alike = draw(st.booleans())  # whether some samples are copies of each other
    return k_min, size, ids, alike, draw(st.integers(0, 10_000))


def fill(size, ids, alike, seed):
    memory = ProjectionMemory(size, DIM)
    for n, idx in enumerate(ids):
        content = idx % 3 if alike else 100 * n + idx
        memory.append(unit_rows(1, seed=seed + content), torch.tensor([idx]))
    return memory


@settings(max_examples=40, deadline=None)
@given(history=histories(), data=st.data())
def test_every_centroid_depends_on_k_min_samples_and_on_no_other_cluster(history, data):
    k_min, size, ids, alike, seed = history
    memory = fill(size, ids, alike, seed)
    if len(memory) < k_min:
        return
    num_clusters = data.draw(st.integers(1, len(memory) // k_min))
    clusters, labels = recorded(
        lambda: local_clustering(
            memory.rows, num_clusters, k_min=k_min, generator=torch.Generator().manual_seed(seed)
        )
    )
    moved = influences(memory.rows, num_clusters, k_min, seed, labels)
    assert torch.equal(moved.sum(dim=0), clusters.sizes)
    assert (moved.sum(dim=1) <= 1).all()
    for j in range(len(clusters.centroids)):
        assert len(set(memory.ids[moved[:, j]].tolist())) >= k_min
        others = memory.rows.clone()
        others[~moved[:, j]] = unit_rows(int((~moved[:, j]).sum()), seed=10**6)
        again = cluster(others, num_clusters, k_min, seed, labels).centroids
        # All the others at once may leave another cluster without a direction, and withheld.
        assert (again == clusters.centroids[j]).all(dim=1).any()


@settings(max_examples=30, deadline=None)
@given(k_min=st.integers(2, 4), spare=st.integers(0, 5), seed=st.integers(0, 10_000))
def test_no_centroid_is_the_mean_of_fewer_samples(k_min, spare, seed):
    """Every smaller choice of the memory's rows is tried."""
    Z = unit_rows(2 * k_min + spare, seed)
    sent = cluster(Z, len(Z) // k_min, k_min, seed).centroids
    for fewer in range(1, k_min):
        for chosen in combinations(range(len(Z)), fewer):
            mean = F.normalize(Z[list(chosen)].mean(dim=0), dim=0)
            assert (sent @ mean).max() < 1 - 1e-4, chosen


@settings(max_examples=12, deadline=None)
@given(samples=st.integers(4, 41), k_min=st.integers(2, 4), seed=st.integers(0, 100))
def test_what_a_party_sends_are_means_of_k_min_different_samples(samples, k_min, seed):
    """Round 0 and a round of training, on whatever number of samples."""
    options = {**toy.PARAMETERS, "memory_size": 16, "num_local_clusters": 4, "k_min": k_min}
    party = OrchestraStrategy(toy.MODEL, random_seed=seed, party="alice", **options)
    party.build_dataset(toy.images("alice", samples))
    for step in range(2):
        send = party.get_weights if step == 0 else lambda: party.train_step(None, 0, 1)[0]
        wire, labels = recorded(send)
        memory = party.objective.memory
        sent = torch.from_numpy(np.array(wire["arrays"]["local_centroids"]))
        members = [labels[-1] == j for j in range(int(labels[-1].max()) + 1)]
        means = torch.stack([F.normalize(memory.rows[m].mean(dim=0), dim=0) for m in members])
        assert len(sent) == len(means)
        assert torch.allclose(sent, means, atol=1e-5)
        for m in members:
            assert len(set(memory.ids[m].tolist())) >= k_min
        party.objective.centroids = F.normalize(unit_rows(4, seed)[:, :16], dim=1)


def test_copies_of_one_image_are_one_sample(caplog):
    """Eight copies of one image must not make a centroid: it would be that image's projection."""
    images = np.repeat(toy.images("alice", 1), 8, axis=0)
    images[4:] = -0.0 * images[4:] + images[4:]
    party = OrchestraStrategy(toy.MODEL, random_seed=7, party="alice", **toy.PARAMETERS)
    party.build_dataset(images)
    assert "of which 1 differ: copies count as one" in caplog.text
    wire = party.get_weights()
    assert len(party.objective.memory) == 1
    assert len(wire["arrays"]["local_centroids"]) == 0
    others = np.concatenate([images, toy.images("alice", 5)[1:]])
    party.build_dataset(others)
    assert party.require_data().num_different == 5
    assert party.require_data().content_ids.tolist() == [0] * 8 + [8, 9, 10, 11]
    wire = party.get_weights()
    assert sorted(party.objective.memory.ids.tolist()) == [0, 8, 9, 10, 11]
    assert len(wire["arrays"]["local_centroids"]) == 1  # five samples, four to a centroid
