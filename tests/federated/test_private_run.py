"""Differential privacy over the real FLModel, in process: history, progress, budget."""

import logging
from functools import partial

import numpy as np
import pytest

from federated_orchestra import FederatedOrchestraTrainer
from orchestra_strategy import OrchestraFLModel, host
from orchestra_strategy.errors import ModelError, ParameterError, PrivacyError
from orchestra_strategy.privacy import epsilon_of
from orchestra_strategy.privacy.accounting import Release
from tests.federated import toy

GROUP = partial(toy.MODEL, norm="group")
COMMON = {k: toy.PARAMETERS[k] for k in ("batch_size", "local_epochs", "lr")}
USER = {"privacy": "user", "noise_multiplier": 2.0, "noise_seed": 1}
MODEL = {"backbone": "conv4", "in_channels": 1, "hidden_dim": 16, "projection_dim": 16}


def trainer(devices, rounds, **parameters):
    config = {
        "strategy": "orchestra_private",
        "rounds": rounds,
        "seed": 7,
        "model": {**MODEL, "norm": "group"},
        "parameters": {**toy.PARAMETERS, **USER, **parameters},
    }
    return FederatedOrchestraTrainer(config, devices)


def weights(run):
    worker = next(iter(run.fl_model.workers.values()))
    return host.reveal(worker.averaged_weights())


def test_a_budget_stops_the_training_and_loses_nothing(devices, capsys):
    budget = epsilon_of({Release(2.0): 2}, 1e-5) * 1.001
    stopped = trainer(devices, 5, max_epsilon=budget)
    results = stopped.train(toy.data(devices))
    assert results.rounds == 2
    assert "Training stopped after 2 of 5 epochs: the privacy budget" in results.stop_reason
    assert results.delta == 1e-5
    assert results.epsilon == results.history["privacy_epsilon"][-1] <= budget
    assert results.history["privacy_epsilon"][0] == pytest.approx(
        epsilon_of({Release(2.0): 1}, 1e-5)
    )
    assert "epsilon 3.19" in capsys.readouterr().out
    planned = trainer(devices, 2)
    expected = planned.train(toy.data(devices))
    assert expected.stop_reason is None
    assert expected.history == results.history
    for name, value in weights(planned).items():
        assert np.array_equal(value, weights(stopped)[name]), name
    assert stopped.embed(toy.images("alice")).shape == (41, 512)
    # Nothing is left: a further fit is refused before it begins, and changes nothing.
    before = weights(stopped)
    with pytest.raises(PrivacyError, match=r"a privacy budget for 1 more round\(s\), got 0 left"):
        stopped.fl_model.fit(toy.data(devices), epochs=1)
    assert all(np.array_equal(before[k], v) for k, v in weights(stopped).items())


def test_the_history_has_the_largest_epsilon_of_the_parties(devices):
    options = {**USER, "privacy": "record", "strategy": "fed_rotpred"}
    shared = {k: toy.PARAMETERS[k] for k in ("batch_size", "local_epochs", "lr")}
    model = build(devices, **{**shared, **options})
    history = model.fit(toy.data(devices), epochs=1)
    of_parties = {k: v[0] for k, v in history["local_history"].items() if "epsilon" in k}
    assert set(of_parties) == {"alice_privacy_epsilon", "bob_privacy_epsilon"}
    largest = of_parties["bob_privacy_epsilon"]  # 20 records in batches of 8
    assert largest > 1.1 * of_parties["alice_privacy_epsilon"]
    assert history["global_history"]["privacy_epsilon"] == [largest]
    assert set(history["global_history"]) == {"privacy_epsilon"}


@pytest.mark.parametrize(
    ("route", "users"),
    [("server", {"user_type": "multiuser_aggregate", "num_virtual_users": 4}), ("secure", {})],
)
def test_signal_over_noise_is_that_of_the_round(devices, route, users):
    """The same training with hardly any noise shows the signal."""
    z, clip = 0.002, 0.01
    options = {**COMMON, **USER, **users, "clip_norm": clip, "strategy": "fed_rotpred"}
    if route == "secure":
        options |= {"server": None, "aggregator": host.PlainAggregator(devices[0])}

    def run(noise):
        model = build(devices, **{**options, "noise_multiplier": noise})
        worker = next(iter(model.workers.values()))
        start = host.reveal(worker.averaged_weights())
        history = model.fit(toy.data(devices), epochs=1)["global_history"]
        after = host.reveal(worker.averaged_weights())
        moved = np.concatenate([(after[name] - start[name]).ravel() for name in start])
        return np.linalg.norm(moved), len(moved), history["privacy_snr"]

    signal, weights, _ = run(1e-9)
    std = z * clip * np.sqrt(2) / (2 * users.get("num_virtual_users", 1))
    expected = signal / (std * np.sqrt(weights))
    assert expected > 0.3
    assert run(z)[2] == [pytest.approx(expected, rel=0.05)]


def build(devices, **kwargs):
    options = {"server": devices[0], "device_list": devices, "model": GROUP, "random_seed": 7}
    return OrchestraFLModel(**{**options, **kwargs})


def test_a_known_noise_seed_is_warned_of_on_the_driver(devices, caplog):
    with caplog.at_level(logging.WARNING, "orchestra_strategy.runtime.fl_model"):
        build(devices, strategy="orchestra_private", **{**USER, "noise_seed": None})
        assert not [r for r in caplog.records if "noise_seed" in r.getMessage()]
        build(devices, strategy="orchestra_private", **USER)
    assert [r for r in caplog.records if "whoever knows it can take the noise" in r.getMessage()]


def test_refusals_come_on_the_driver(devices):
    with pytest.raises(ModelError, match=r"without BatchNorm for privacy='user'"):
        build(devices, strategy="orchestra_private", model=toy.MODEL, **USER)
    with pytest.raises(PrivacyError, match=r"use strategy 'orchestra_private'"):
        build(devices, strategy="orchestra", **USER)
    with pytest.raises(PrivacyError, match=r"got SimCLRObjective"):
        build(devices, strategy="fed_simclr", **{**USER, "privacy": "record"})
    with pytest.raises(ParameterError, match=r"Expected no `dp_strategy`.*use `privacy='user'`"):
        build(devices, strategy="orchestra", dp_strategy=object())
