"""Differential privacy on route ``secure``: what is summed up over the parties carries noise."""

from functools import partial

import numpy as np
import pytest
import torch

from orchestra_strategy import OrchestraFLModel, OrchestraPrivateStrategy, OrchestraStrategy, host
from orchestra_strategy.algorithms.moments import clusters_from_moments
from orchestra_strategy.errors import PrivacyError
from orchestra_strategy.privacy.private_moments import MOMENTS_SENSITIVITY
from orchestra_strategy.strategies.shared_moments import first_clusters
from tests.federated import toy
from tests.federated.test_secure_route import Spy, shared_of, states_of
from tests.strategies.test_private import COMMON, GROUP, RECORD, USER, VIRTUAL, party

PRIVATE = {"strategy": "orchestra_private", "model": GROUP}
WIDE = partial(GROUP, projection_dim=64)
SCALE = 128  # sums of a party with few samples or users would vanish in fixed point


def build(devices, aggregator, **kwargs):
    return toy.build(devices, server=None, aggregator=aggregator, **{**PRIVATE, **kwargs})


def wire_moments(wire, num_users):
    """What a party put on the wire, in its own units: S, n."""
    S, n = wire[-2:]
    return [np.asarray(a, np.float64) * num_users / SCALE for a in (S, n)]


def record_clean_moments(worker):
    worker.clean, finish = [], worker.method.finish_round

    def recording():
        worker.clean.append(worker.method.moments_sum)
        finish()

    worker.method.finish_round = recording


@pytest.mark.parametrize(
    ("options", "weight", "units"), [(USER, 1, 1), (RECORD, 41, 41), ({**USER, **VIRTUAL}, 4, 4)]
)
def test_moments_leave_with_noise_of_the_planned_size_and_are_paid_for(options, weight, units):
    alice = party(
        **{**options, "noise_multiplier": 0.02},
        route="secure",
        model=WIDE,
        num_global_clusters=64,
        memory_size=16,
        health_samples=0,
    )
    record_clean_moments(alice)
    alice.apply_weights(alice.get_weights())
    wire, samples = alice.train_step(None, 0, 1)
    assert samples == weight
    plan = alice.privacy.plan()
    assert alice.privacy.ledger.spent == {plan.update: plan.steps, plan.moments: 1}
    (clean,) = [moments for moments in alice.clean if moments is not None]
    assert float(clean.n.sum()) == pytest.approx(units, rel=1e-4)
    # By soft assignments under the shared scalings, as everywhere on this route.
    assert float((alice.method.moments(None).n % 1 - 0.5).abs().min()) < 0.49
    S, n = wire_moments(wire, samples)
    std = plan.moments.noise_multiplier * MOMENTS_SENSITIVITY
    assert (S - clean.S.numpy()).std() == pytest.approx(std, rel=0.05)
    assert (n - clean.n.numpy()).std() == pytest.approx(std, rel=0.25)


@pytest.mark.parametrize("cls", [OrchestraStrategy, OrchestraPrivateStrategy])
def test_an_exchange_without_data_is_not_round_0(cls):
    options = USER if cls is OrchestraPrivateStrategy else {}
    alice = cls(GROUP, random_seed=7, route="secure", **toy.PARAMETERS, **options)
    alice.apply_weights(alice.get_weights())
    assert alice.method.needs_initial_pass()


def test_nothing_of_the_clusters_leaves_in_round_0():
    alice = party(**USER, route="secure")
    wire = alice.get_weights()
    assert not any(array.any() for array in wire[-2:])
    alice.apply_weights(wire)
    first = first_clusters(4, 16, seed=7)
    assert torch.equal(alice.objective.centroids, first.C)
    assert torch.equal(alice.method.centroids.clusters.C, first.C)


def test_with_hardly_any_noise_clusters_are_those_of_all_parties_samples(devices):
    quiet = {**USER, "privacy": "record", "noise_multiplier": 1e-3, "moments_share": 0.99}
    model = build(devices, host.PlainAggregator(devices[0]), **quiet)
    for worker in model.workers.values():
        worker.apply(record_clean_moments)
    model.fit(toy.data(devices), epochs=2)
    clusters = first_clusters(4, 16, seed=7)
    for a, b in zip(*states_of(model, lambda w: w.clean).values(), strict=True):
        assert float(a.n.sum() + b.n.sum()) == pytest.approx(61, rel=1e-5)
        clusters = clusters_from_moments(a + b, clusters)
    for state in states_of(model, shared_of).values():
        assert state["C"] == pytest.approx(clusters.C.numpy(), abs=1e-3)


@pytest.mark.parametrize("options", [USER, {**USER, "privacy": "record"}, {**USER, **VIRTUAL}])
def test_all_parties_have_the_same_clusters_and_nothing_unnamed_is_sent(devices, options):
    spy = Spy(devices[0])
    model = build(devices, spy, **{**options, "noise_multiplier": 0.2})
    history = model.fit(toy.data(devices), epochs=2)
    alice, bob = states_of(model, shared_of).values()
    assert np.array_equal(alice["C"], bob["C"])
    assert np.array_equal(alice["log_scaling"], bob["log_scaling"])
    assert not np.array_equal(alice["C"], first_clusters(4, 16, seed=7).C.numpy())
    rows = [r for r in model.manifest() if r["to"] == "aggregator" and r["when"] != "start"]
    arrays = [tuple(r["shape"]) or (1,) for r in rows if r["name"] != "num_samples"]
    sent, counts, _ = spy.calls[-1]
    for wire in sent:
        assert sorted(a.shape for a in wire) == sorted(arrays)
    assert len(history["global_history"]["privacy_epsilon"]) == 2
    assert list(counts) == (
        [41, 20] if options["privacy"] == "record" else [4 if options.get("user_type") else 1] * 2
    )
    noisy = {r["name"]: r["meaning"] for r in model.manifest() if r["name"].startswith("moments")}
    assert all("noisy" in meaning for meaning in noisy.values())


def test_a_strategy_without_clusters_sends_noisy_weights_alone(devices):
    spy = Spy(devices[0])
    options = {"device_list": devices, "model": GROUP, "random_seed": 7, "aggregator": spy}
    model = OrchestraFLModel(strategy="fed_rotpred", **options, **COMMON, **USER)
    model.fit(toy.data(devices), epochs=1)
    sent, counts, _ = spy.calls[-1]
    weights = [r["name"] for r in model.manifest() if r["name"].startswith("weights/")]
    assert [len(wire) for wire in sent] == [1 + len(weights)] * 2
    assert list(counts) == [1, 1]


def test_orchestra_itself_is_refused_since_its_moments_have_no_noise():
    with pytest.raises(PrivacyError, match=r"`moments/S`, `moments/n` without noise.*_private'"):
        party(OrchestraStrategy, route="secure", **USER)
