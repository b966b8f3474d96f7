"""``predict``, ``evaluate``, and the vote to stop, through FLModel in process."""

import logging

import numpy as np
import pytest
import torch

from orchestra_strategy import OrchestraFLModel, host, server_aggregation
from orchestra_strategy.data.sources import fed_ndarray
from orchestra_strategy.errors import DataError, ParameterError
from orchestra_strategy.evaluation import clustering_scores
from tests.federated import toy

HEALTH = {"alignment", "uniformity", "effective_rank", "cluster_balance"}


@pytest.fixture
def trained(devices):
    model = toy.build(devices)
    model.fit(toy.data(devices), epochs=1)
    return model


def labels(devices):
    return fed_ndarray({d: np.arange(toy.SIZES[d.party]) % 3 for d in devices})


def values(metrics):
    return {name: float(m.result()) for name, m in metrics.items()}


def test_the_health_of_each_round_is_in_the_history_and_the_manifest(devices):
    model = toy.build(devices)
    history = model.fit(toy.data(devices), epochs=2)
    names = {f"health_{name}" for name in HEALTH}
    assert names <= set(history["global_history"])
    assert all(np.isfinite(history["global_history"][name]).all() for name in names)
    assert names <= {row["name"] for row in model.manifest()}


def test_health_can_be_turned_off(devices):
    model = toy.build(devices, health_samples=0)
    history = model.fit(toy.data(devices), epochs=1)
    assert not [name for name in history["global_history"] if name.startswith("health_")]


def test_measuring_the_health_changes_nothing_in_the_training(devices):
    states = []
    for samples in (0, 64):
        model = toy.build(devices, health_samples=samples)
        model.fit(toy.data(devices), epochs=2)
        worker = next(iter(model.workers.values()))
        states.append(host.reveal(worker.apply(toy.state_of)))
    assert all(np.array_equal(states[0][k], states[1][k]) for k in states[0])


def test_evaluate_without_labels_gives_the_health(devices, trained):
    overall, local = trained.evaluate(toy.data(devices), return_dict=True)
    assert set(overall) == HEALTH
    assert set(local) == {"alice", "bob"}
    by_party = {party: values(metrics) for party, metrics in local.items()}
    sizes = toy.SIZES
    for name, value in values(overall).items():
        expected = sum(by_party[p][name] * sizes[p] for p in sizes) / sum(sizes.values())
        assert value == pytest.approx(expected, rel=1e-5)


def test_the_hosts_own_class_evaluates_and_predicts(devices):
    model = host.FLModel(
        server=devices[0],
        device_list=devices,
        model=toy.MODEL,
        strategy="orchestra",
        backend="torch",
        random_seed=7,
        server_agg_method=server_aggregation(num_global_clusters=4, seed=7),
        predict_output="clusters",
        **toy.PARAMETERS,
    )
    x = toy.data(devices)
    model.fit(x, x, epochs=1, aggregate_freq=10**6, verbose=0)
    overall, _ = model.evaluate(x, x, return_dict=True)
    assert set(overall) == HEALTH
    overall, _ = model.evaluate(x, labels(devices), return_dict=True)
    assert set(overall) > HEALTH
    ids = host.reveal(model.predict(x, batch_size=8))[devices[0]]
    assert ids.shape == (41,)


def test_evaluate_with_labels_adds_how_clusters_fit_them(devices, trained):
    x, y = toy.data(devices), labels(devices)
    _, local = trained.evaluate(x, y, return_dict=True)
    ids = host.reveal(trained.predict(x, output="clusters"))
    for device in devices:
        scores = clustering_scores(ids[device], np.arange(toy.SIZES[device.party]) % 3)
        found = values(local[device.party])
        assert found["nmi"] == pytest.approx(scores.nmi)
        assert found["cluster_accuracy"] == pytest.approx(scores.accuracy)
        assert set(found) == HEALTH | {"nmi", "ari", "cluster_accuracy", "purity"}


def test_evaluate_refuses_labels_that_are_no_classes(devices, trained):
    wrong = fed_ndarray({d: np.full(toy.SIZES[d.party], 0.5) for d in devices})
    with pytest.raises(DataError, match="whole class numbers"):
        trained.evaluate(toy.data(devices), wrong)


def test_evaluate_changes_nothing_at_the_parties(devices, trained):
    worker = next(iter(trained.workers.values()))
    before = host.reveal(worker.apply(toy.state_of))
    trained.evaluate(toy.data(devices), labels(devices))
    after = host.reveal(worker.apply(toy.state_of))
    assert all(np.array_equal(before[k], after[k]) for k in before)


def test_predict_gives_features_projections_or_clusters(devices, trained):
    x = toy.data(devices)
    features = host.reveal(trained.predict(x))[devices[0]]
    projections = host.reveal(trained.predict(x, output="projections"))[devices[0]]
    clusters = host.reveal(trained.predict(x, output="clusters"))[devices[0]]
    assert features.shape == (41, 512)
    assert projections.shape == (41, 16)
    np.testing.assert_allclose(np.linalg.norm(projections, axis=1), 1, rtol=1e-5)
    worker = next(iter(trained.workers.values()))
    C = host.reveal(worker.apply(toy.state_of))["centroids"]
    assert clusters.tolist() == (projections @ C.T).argmax(1).tolist()
    # The parameter is back to what it was.
    assert host.reveal(trained.predict(x))[devices[0]].shape == (41, 512)


def test_predict_refuses_another_output_and_clusters_that_do_not_exist(devices, trained):
    with pytest.raises(ParameterError, match="`predict_output`"):
        trained.predict(toy.data(devices), output="labels")
    simclr = OrchestraFLModel(
        server=devices[0], device_list=devices, model=toy.MODEL, strategy="fed_simclr"
    )
    with pytest.raises(ParameterError, match="strategy with clusters"):
        host.reveal(simclr.predict(toy.data(devices), output="clusters"))


def collapse(worker):
    """Make the encoder give the same for everything, whatever it is trained on."""
    with torch.no_grad():
        for parameter in worker.model.parameters():
            parameter.zero_()
    worker.configure({**worker._given, "lr": 1e-12, "weight_decay": 0.0})


def test_a_collapsed_encoder_stops_the_training_and_says_why(devices, caplog):
    model = toy.build(devices)
    x = toy.data(devices)
    model.fit(x, epochs=1)
    assert model.stop_reason is None
    for worker in model.workers.values():
        host.reveal(worker.apply(collapse))
    with caplog.at_level(logging.WARNING):
        history = model.fit(x, epochs=5, strategy_kwargs={"lr": 1e-12, "weight_decay": 0.0})
    assert "collapsed at 2 of 2 parties" in model.stop_reason
    assert "stop_on_collapse=False" in caplog.text
    worker = next(iter(model.workers.values()))
    assert host.reveal(worker.work_done())["rounds"] < 6
    assert history is not None


def test_collapse_stops_nothing_where_that_is_turned_off(devices):
    model = toy.build(devices, stop_on_collapse=False)
    x = toy.data(devices)
    model.fit(x, epochs=1)
    for worker in model.workers.values():
        host.reveal(worker.apply(collapse))
    model.fit(x, epochs=2, strategy_kwargs={"lr": 1e-12, "weight_decay": 0.0})
    assert model.stop_reason is None
    assert host.reveal(next(iter(model.workers.values())).work_done())["rounds"] == 3


def test_one_party_of_two_cannot_stop_the_training(devices):
    model = toy.build(devices)
    x = toy.data(devices)
    model.fit(x, epochs=1)
    first = next(iter(model.workers.values()))

    def find(worker):
        worker.collapse_found = lambda: "for a test."

    host.reveal(first.apply(find))
    model.fit(x, epochs=2)
    assert model.stop_reason is None
