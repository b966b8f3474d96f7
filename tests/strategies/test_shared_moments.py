import numpy as np
import pytest
import torch

from orchestra_strategy.algorithms.clustering import random_unit_rows
from orchestra_strategy.algorithms.moments import clusters_from_moments, moments
from orchestra_strategy.errors import ParameterError, ReplyError
from orchestra_strategy.exchange.manifest import Entry, Manifest, meta_entries
from orchestra_strategy.exchange.payload import Payload
from orchestra_strategy.exchange.routes import ROUTES, Sent
from orchestra_strategy.strategies.shared_moments import (
    averaged_clusters,
    first_clusters,
    moment_arrays,
    moment_entries,
)

SECURE = ROUTES["secure"]
WEIGHTS = Entry("weights/w", (2,), "float32", "weighted mean", "server", "w")
SCALAR = Entry("weights/s", (), "float32", "weighted mean", "server", "s")


def manifest(trained=True):
    entries = (WEIGHTS, SCALAR, *moment_entries(2, 3), *meta_entries(("loss",)))
    return Manifest(SECURE.address(entries))


def payload(w=0.0, s=0.0, total=None, num_samples=4, round_index=1, phase="round"):
    weights = {"weights/w": np.full(2, w, np.float32), "weights/s": np.array(s, np.float32)}
    arrays = {**weights, **moment_arrays(total, 2, 3)}
    return Payload(arrays, round_index, phase, num_samples)


def mean(wires, weights):
    """What an aggregator does."""
    return [np.average(arrays, axis=0, weights=weights) for arrays in zip(*wires, strict=True)]


def unpack(wire, round_index=1, phase="round"):
    return SECURE.unpack(wire, Sent(round_index, phase), manifest)


def rows(n, seed):
    return random_unit_rows(n, 3, torch.Generator().manual_seed(seed))


def test_what_travels_is_one_list_of_float32_arrays_of_at_least_one_dimension():
    wire = SECURE.pack(payload(), manifest(), weighted=True)
    assert type(wire) is list
    assert [a.dtype for a in wire] == [np.float32] * 5
    assert [a.shape for a in wire] == [(2,), (2,), (1,), (2, 3), (2,)]
    assert sum(a.nbytes for a in wire) == sum(
        e.nbytes for e in manifest().entries if e.to == "aggregator" and e.name != "num_samples"
    )


def test_weights_are_averaged_and_moments_are_summed_up():
    clusters = first_clusters(2, 3, seed=0)
    parties = [moments(rows(3, 1), clusters), moments(rows(8, 2), clusters)]
    wires = [
        SECURE.pack(payload(w, w, total, n), manifest(), weighted=True)
        for w, total, n in ((0.0, parties[0], 1), (4.0, parties[1], 3))
    ]
    reply = unpack(mean(wires, (1, 3)))
    assert reply.arrays["weights/w"].tolist() == [3.0, 3.0]
    assert reply.arrays["weights/s"].shape == ()
    # Neither party's sum counts for more because of its weight in the mean: n is 3 + 8 in all.
    n = reply.arrays["moments/n"]
    want = (parties[0].n + parties[1].n).numpy()
    assert want.sum() == pytest.approx(11)
    assert n / n.sum() == pytest.approx(want / 11, rel=1e-5)


def test_a_plain_mean_sums_moments_up_as_well():
    clusters = first_clusters(2, 3, seed=0)
    totals = [moments(rows(3, 1), clusters), moments(rows(8, 2), clusters)]
    wires = [
        SECURE.pack(payload(total=t, num_samples=n, phase="init"), manifest(), weighted=False)
        for t, n in zip(totals, (100, 1))
    ]
    reply = unpack(mean(wires, None), phase="init")
    assert reply.arrays["moments/n"] == pytest.approx((totals[0].n + totals[1].n).numpy() / 2)


def test_clusters_of_the_mean_are_those_of_the_pooled_samples():
    clusters = first_clusters(2, 3, seed=0)
    wires = [
        SECURE.pack(payload(total=moments(rows(n, n), clusters), num_samples=n), manifest(), True)
        for n in (5, 9)
    ]
    got = averaged_clusters(unpack(mean(wires, (5, 9))).arrays, clusters)
    want = clusters_from_moments(moments(torch.cat([rows(5, 5), rows(9, 9)]), clusters), clusters)
    assert torch.allclose(got.C, want.C, atol=1e-6)
    assert torch.allclose(got.log_scaling, want.log_scaling, atol=1e-5)


def test_no_moments_leave_the_clusters_as_they_are():
    clusters = first_clusters(2, 3, seed=0)
    same = averaged_clusters(moment_arrays(None, 2, 3), clusters)
    assert torch.equal(same.C, clusters.C)


def test_the_first_clusters_follow_from_the_root_seed_alone():
    assert torch.equal(first_clusters(4, 8, 1).C, first_clusters(4, 8, 1).C)
    assert not torch.equal(first_clusters(4, 8, 1).C, first_clusters(4, 8, 2).C)


@pytest.mark.parametrize(
    ("other", "sent"),
    [
        ({"round_index": 2}, Sent(1, "round")),
        ({"phase": "sync"}, Sent(1, "round")),
        ({"round_index": 2}, Sent(2, "round")),
    ],
)
def test_parties_at_different_rounds_notice(other, sent):
    wires = [SECURE.pack(p, manifest(), True) for p in (payload(), payload(**other))]
    # The other party has one part in a hundred of the samples.
    with pytest.raises(ReplyError, match=r"all parties to be at round .* at different rounds"):
        SECURE.unpack(mean(wires, (99, 1)), sent, manifest)


def test_fixed_point_arithmetic_passes_the_check():
    wire = [a + 2.0**-18 for a in SECURE.pack(payload(round_index=15), manifest(), True)]
    assert unpack(wire, round_index=15).round_index == 15


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        ({"meta": {}, "arrays": {}}, "a list of 5 arrays, got dict: all parties must run"),
        ([np.zeros(2)], "a list of 5 arrays, got 1"),
        ([np.array([2.0, 3.0]), *[np.zeros(3)] * 4], r"`weights/w` of the aggregator to be"),
        (
            [np.array([2.0, 3.0]), np.full(2, np.nan), np.zeros(1), np.zeros((2, 3)), np.zeros(2)],
            "to be finite, got NaN",
        ),
    ],
)
def test_another_form_is_refused(wire, message):
    with pytest.raises(ReplyError, match=message):
        unpack(wire)


def test_what_has_no_mean_is_refused():
    entry = Entry("quality", (1,), "float32", "factor of the weight", "server", "q")
    with pytest.raises(ParameterError, match=r"averaged, got `quality`, which is 'factor of the"):
        SECURE.address((entry,))


def test_an_array_that_is_not_in_the_manifest_cannot_be_sent():
    extra = payload()
    extra.arrays["memory"] = np.zeros((2, 3), np.float32)
    with pytest.raises(ReplyError, match=r"not in the manifest: \['memory'\]"):
        SECURE.pack(extra, manifest(), True)
