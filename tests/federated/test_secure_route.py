"""Route ``secure``: SecretFlow's aggregators in place of a server that sees each payload."""

import numpy as np
import pytest
import torch

from orchestra_strategy import (
    FederatedStrategy,
    OrchestraFLModel,
    host,
    server_aggregation,
    session,
)
from orchestra_strategy.algorithms.moments import clusters_from_moments, moments
from orchestra_strategy.errors import HostError, ParameterError, ReplyError
from orchestra_strategy.strategies.shared_moments import first_clusters
from tests.federated import toy
from tests.federated.test_modes_are_equal import assert_equal, run_two_processes
from tests.strategies.test_baselines import PARAMETERS

PLAIN = host.PlainAggregator


def build(devices, aggregator=None, **kwargs):
    aggregator = PLAIN(devices[0]) if aggregator is None else aggregator
    return toy.build(devices, server=None, aggregator=aggregator, **kwargs)


def states_of(model, func=toy.state_of):
    return host.reveal({d.party: w.apply(func) for d, w in model.workers.items()})


def shared_of(worker):
    return {k: v.numpy() for k, v in worker.method.centroids.state_dict().items()}


class Spy(PLAIN):
    """Keeps what the parties hand to the aggregator, and what it returns."""

    def __init__(self, device):
        super().__init__(device)
        self.calls = []

    def average(self, data, axis=None, weights=None):
        sent = host.reveal(data)
        counts = None if weights is None else host.reveal(list(weights))
        result = super().average(data, axis=axis, weights=weights)
        self.calls.append((sent, counts, host.reveal(result)))
        return result


def test_it_trains_and_all_parties_have_the_same_bits(devices):
    model = build(devices)
    history = model.fit(toy.data(devices), epochs=3)
    assert len(history["global_history"]["train_loss"]) == 3
    assert np.isfinite(history["global_history"]["train_loss"]).all()
    alice, bob = states_of(model).values()
    online = [k for k in alice if k.startswith("online/") and "num_batches" not in k]
    assert_equal({k: bob[k] for k in online}, {k: alice[k] for k in online})
    assert np.array_equal(alice["centroids"], bob["centroids"])
    assert np.linalg.norm(alice["centroids"], axis=1) == pytest.approx(1, abs=1e-5)
    assert_equal(*states_of(model, shared_of).values())
    assert not np.array_equal(alice["memory"], bob["memory"])


def test_only_the_manifests_arrays_reach_the_aggregator(devices):
    spy = Spy(devices[0])
    model = build(devices, spy)
    model.fit(toy.data(devices), epochs=2)
    listed = [row for row in model.manifest() if row["to"] == "aggregator"]
    arrays = [row for row in listed if row["combine"] in ("weighted mean", "secure sum")]
    shapes = [(2,), *(row["shape"] or (1,) for row in arrays)]  # the check comes first
    assert [row["shape"] for row in listed if row["combine"] == "check"] == [(2,)]
    assert {row["name"] for row in arrays if not row["name"].startswith("weights/")} == {
        "moments/S",
        "moments/n",
    }
    assert len(spy.calls) == 1 + 2
    for sent, _, _ in spy.calls:
        for wire in sent:
            assert type(wire) is list
            assert [a.shape for a in wire] == [tuple(s) for s in shapes]
            assert {(type(a), a.dtype.name) for a in wire} == {(np.ndarray, "float32")}


def test_no_row_of_a_memory_reaches_the_aggregator(devices):
    spy = Spy(devices[0])
    model = build(devices, spy)
    model.fit(toy.data(devices), epochs=1)
    memories = [s["memory"] for s in states_of(model).values()]
    for sent, _, _ in spy.calls:
        for wire in sent:
            flat = np.concatenate([a.ravel() for a in wire])
            for row in np.concatenate(memories):
                assert not np.isin(row, flat).all()


def record_memories(worker):
    worker.recorded = []
    send = worker._send

    def recording(phase, samples=None):
        worker.recorded.append(worker.objective.memory.rows.clone())
        return send(phase, samples)

    worker._send = recording


def test_centroids_equal_a_slow_central_computation(devices):
    model = build(devices)
    for worker in model.workers.values():
        worker.apply(record_memories)
    model.fit(toy.data(devices), epochs=2)
    recorded = states_of(model, lambda w: w.recorded).values()
    clusters = first_clusters(4, 16, seed=7)
    for memories in zip(*recorded, strict=True):
        clusters = clusters_from_moments(moments(torch.cat(memories), clusters), clusters)
    for state in states_of(model, shared_of).values():
        assert state["C"] == pytest.approx(clusters.C.numpy(), abs=1e-4)
        assert state["log_scaling"] == pytest.approx(clusters.log_scaling.numpy(), abs=1e-3)


def test_a_second_fit_goes_on_from_the_same_centroids(devices):
    spy = Spy(devices[0])
    model = build(devices, spy)
    model.fit(toy.data(devices), epochs=1)
    before = states_of(model)["alice"]["centroids"]
    seen = []

    class Look(host.Callback):
        def on_train_begin(self, logs=None):
            seen.append(states_of(model)["alice"]["centroids"])

    model.fit(toy.data(devices), epochs=1, callbacks=[Look()])
    assert np.array_equal(seen[0], before)
    assert not spy.calls[2][0][0][-1].any()  # nothing new in a sync: moments of zero


def test_the_manifest_says_who_sees_what(devices):
    def seen(aggregator, **kwargs):
        model = build(devices, aggregator, **kwargs)
        return {row["name"]: row["seen_by"] for row in model.manifest()}

    plain = seen(PLAIN(devices[0]))
    assert plain["moments/S"].startswith("alice: each party's, since PlainAggregator computes in")
    secure = seen(host.SecureAggregator(devices[1], devices))
    assert secure["moments/S"] == (
        "nobody alone: only the sum, by all parties (of two parties, each can work out the other's "
        "from it), through SecureAggregator"
    )
    assert secure["num_samples"] == "bob: each party's, through SecureAggregator"
    assert secure["train_loss"] == "the driver"
    server = {row["name"]: row["seen_by"] for row in toy.build(devices).manifest()}
    assert server["local_centroids"] == "alice: each party's"


def test_fixed_point_changes_the_fifth_digit_and_no_more(devices):
    # After round 0: training amplifies any difference, on blobs with BatchNorm most of all.
    results = []

    class Look(host.Callback):
        def on_train_begin(self, logs=None):
            weights = self.model.workers[devices[0]].averaged_weights()
            results.append((states_of(self.model), host.reveal(weights)))

    for aggregator in (PLAIN(devices[0]), host.SecureAggregator(devices[0], devices)):
        look = Look()
        look.model = build(devices, aggregator)
        look.model.fit(toy.data(devices), epochs=1, callbacks=[look])
    (plain, plain_weights), (secure, secure_weights) = results
    assert np.array_equal(secure["alice"]["centroids"], secure["bob"]["centroids"])
    assert secure["alice"]["centroids"] == pytest.approx(plain["alice"]["centroids"], abs=1e-4)
    for name, value in plain_weights.items():
        assert secure_weights[name] == pytest.approx(value, abs=1e-5), name
    assert any(not np.array_equal(secure_weights[k], v) for k, v in plain_weights.items())


@pytest.mark.parametrize(
    "parameters", [{"user_type": "local_gradient"}, {"user_type": "multiuser_aggregate"}]
)
def test_other_kinds_of_user(devices, parameters):
    spy = Spy(devices[0])
    model = build(devices, spy, **parameters, num_virtual_users=2)
    history = model.fit(toy.data(devices), epochs=2)
    assert np.isfinite(history["global_history"]["train_loss"]).all()
    alice, bob = states_of(model).values()
    online = [k for k in alice if k.startswith("online/") and "num_batches" not in k]
    assert_equal({k: bob[k] for k in online}, {k: alice[k] for k in online})
    assert np.array_equal(alice["centroids"], bob["centroids"])
    # All rows of all users' memories are in the sums of round 0: 16 of each party, or of each user
    # up to its number of samples.
    rows = {"local_gradient": [16, 16], "multiuser_aggregate": [32, 20]}[parameters["user_type"]]
    assert [wire[-1].sum() for wire in spy.calls[0][0]] == pytest.approx(rows, rel=1e-5)


def test_a_strategy_without_centroids_sends_weights_alone(devices):
    spy = Spy(devices[0])
    model = OrchestraFLModel(
        device_list=devices,
        model=toy.MODEL,
        aggregator=spy,
        strategy="orchestra_simple",
        **PARAMETERS["orchestra_simple"],
    )
    model.fit(toy.data(devices), epochs=1)
    names = [r["name"] for r in model.manifest() if r["combine"] == "weighted mean"]
    assert len(spy.calls[-1][0][0]) == 1 + len(names)


def test_plain_fl_model_works(devices):
    model = host.FLModel(
        device_list=devices,
        model=toy.MODEL,
        aggregator=PLAIN(devices[0]),
        strategy="orchestra",
        backend="torch",
        random_seed=7,
        route="secure",
        **toy.PARAMETERS,
    )
    x = toy.data(devices)
    history = model.fit(x, x, batch_size=8, epochs=1, aggregate_freq=10**6, verbose=0)
    assert np.isfinite(history["global_history"]["train_loss"]).all()


def test_plain_fl_model_with_an_aggregator_and_no_route_is_refused(devices):
    with pytest.raises(ParameterError, match=r"or an `aggregator` and `route='secure'`"):
        host.FLModel(
            device_list=devices,
            model=toy.MODEL,
            aggregator=PLAIN(devices[0]),
            strategy="orchestra",
            backend="torch",
            **toy.PARAMETERS,
        )


def test_plain_fl_model_with_both_is_refused(devices):
    with pytest.raises(ParameterError, match="Expected no `server_agg_method` on `route='secure'`"):
        host.FLModel(
            device_list=devices,
            model=toy.MODEL,
            server=devices[0],
            server_agg_method=server_aggregation(num_global_clusters=4),
            strategy="orchestra",
            backend="torch",
            route="secure",
            **toy.PARAMETERS,
        )


class OwnMean(FederatedStrategy):
    @staticmethod
    def aggregate_weights(weights_list, sample_counts):
        return weights_list[0]


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"server": "alice"}, HostError, "either an `aggregator` .* got `aggregator` and `server`"),
        ({"server_agg_method": sum}, HostError, "`aggregator` and `server_agg_method`; leave one"),
        ({"route": "server"}, ParameterError, "`route` to be 'secure', as the .* leave out the"),
        (
            {"strategy": "orchestra_advanced"},
            ParameterError,
            "`aggregation` to be 'mean' on `route='secure'`, got 'quality': .* use `route='server'",
        ),
        ({"aggregation": "median"}, ParameterError, "`aggregation` to be 'mean' .* got 'median'"),
        ({"on_bad_reply": "leave_out"}, ParameterError, "`on_bad_reply` to be 'fail' .* got 'leav"),
        ({"min_parties": 3}, ParameterError, "`min_parties` to be 2 on `route='secure'`, got 3"),
        ({"trim": 0.2}, ParameterError, "`trim` to be 0.1 on `route='secure'`, got 0.2"),
    ],
)
def test_contradictions_are_refused_on_the_driver(devices, kwargs, error, message):
    with pytest.raises(error, match=message):
        toy.build(devices, **{"server": None, "aggregator": PLAIN(devices[0]), **kwargs})


def test_a_party_that_is_not_finite_fails_the_round_by_name_before_it_sends(devices):
    model = build(devices)
    model.fit(toy.data(devices), epochs=1)
    (worker,) = [w for d, w in model.workers.items() if d.party == "bob"]
    worker.apply(lambda w: next(w.model.parameters()).detach().fill_(np.nan))
    with pytest.raises(ReplyError, match=r"of party `bob` to be finite, got NaN"):
        model.fit(toy.data(devices), epochs=1)


@pytest.mark.parametrize(("bits", "fits"), [(None, True), (18, False), (8, True)])
def test_what_does_not_fit_the_aggregator_s_ring_is_refused_before_it_is_sent(devices, bits, fits):
    """2**40 x 41 samples x 2 parties is 2**46.4; the ring holds 2**(63 - bits)."""
    secure = None if bits is None else host.SecureAggregator(devices[0], devices, fxp_bits=bits)
    model = build(devices, secure, local_epochs=1)
    for worker in model.workers.values():  # in the initial average there is no weight
        worker.apply(lambda w: setattr(w, "finish_round", lambda: swell(w)))
    if fits:
        model.fit(toy.data(devices), epochs=1)
        return
    with pytest.raises(
        ReplyError, match=r"running_mean` of party `alice` to be below .* 2 parties"
    ):
        model.fit(toy.data(devices), epochs=1)


def swell(worker):
    buffers = dict(worker.model.named_buffers())
    next(b for n, b in buffers.items() if n.endswith("running_mean")).fill_(2.0**40)


def test_orchestra_advanced_by_the_mean_goes_route_secure(devices):
    model = build(devices, strategy="orchestra_advanced", aggregation="mean")
    model.fit(toy.data(devices), epochs=1)
    assert "quality" not in {row["name"] for row in model.manifest()}


def test_more_refusals(devices):
    with pytest.raises(ParameterError, match=r"`route` to be 'server', .* give an `aggregator`"):
        toy.build(devices, route="secure")
    with pytest.raises(HostError, match=r"`aggregator` to be SecretFlow's PlainAggregator.*got 3"):
        toy.build(devices, server=None, aggregator=3)
    with pytest.raises(HostError, match=r"the parties of `aggregator` .* got \['alice'\] and"):
        build(devices, host.SecureAggregator(devices[0], devices[:1]))
    with pytest.raises(ParameterError, match="OwnMean, got 'secure': it overrides `aggregate_wei"):
        OwnMean.check_route("secure")


def test_parties_of_different_seeds_or_rounds_do_not_go_unnoticed(devices):
    model = build(devices)
    model.fit(toy.data(devices), epochs=1)
    next(iter(model.workers.values())).apply(lambda w: setattr(w, "rounds_done", 2))
    with pytest.raises(ReplyError, match="parties are at different rounds"):
        model.fit(toy.data(devices), epochs=1)


@pytest.fixture(scope="module")
def in_process():
    """States after a run in this process with a SecureAggregator."""
    with session(toy.PARTIES, mode="debug") as devices:
        return toy.run(devices, aggregator=host.SecureAggregator(devices[0], devices))[1]


@pytest.mark.cluster
def test_two_processes_over_grpc(in_process, tmp_path):
    for states in run_two_processes(tmp_path, "secure").values():
        for party in toy.PARTIES:
            assert_equal(states[party], in_process[party])
