"""Route ``secure`` through SPU: sums of secret shares, on a local Ray and as two processes."""

import numpy as np
import pytest

from orchestra_strategy import host, session
from tests.federated import toy
from tests.federated.test_modes_are_equal import assert_equal, free_ports, run_two_processes
from tests.federated.test_secure_route import build, shared_of, states_of

# Hardly any learning: what is left of a difference is the arithmetic's, not the training's.
STILL = {"lr": 1e-6, "ema_decay": 1.0}


@pytest.mark.ray
def test_training_through_secret_shares_equals_training_in_the_clear():
    with session(toy.PARTIES, mode="debug") as devices:
        model = build(devices, **STILL)
        model.fit(toy.data(devices), epochs=2)
        plain, plain_shared = states_of(model), states_of(model, shared_of)
    with session(toy.PARTIES, mode="local") as devices:
        model = build(devices, host.SPUAggregator(toy.spu(free_ports(2))), **STILL)
        seen = {row["name"]: row["seen_by"] for row in model.manifest()}
        history = model.fit(toy.data(devices), epochs=2)
        states, shared = states_of(model), states_of(model, shared_of)
    assert np.isfinite(history["global_history"]["train_loss"]).all()
    assert_equal(*shared.values())
    alice, bob = states.values()
    assert np.array_equal(alice["centroids"], bob["centroids"])
    weights = [k for k in alice if k.startswith("online/") and "num_batches" not in k]
    for name in weights:
        assert np.array_equal(alice[name], bob[name]), name
        assert alice[name] == pytest.approx(plain["alice"][name], abs=2e-4), name
    assert shared["alice"]["C"] == pytest.approx(plain_shared["alice"]["C"], abs=2e-3)
    # Who sees what: secret shares hide even the numbers of samples.
    assert seen["moments/S"].startswith("nobody alone: only the sum, by all parties")
    assert seen["num_samples"] == "nobody: only as secret shares, through SPUAggregator"


@pytest.mark.cluster
def test_two_processes_over_grpc(tmp_path):
    by_process = run_two_processes(tmp_path, "spu")
    for states in by_process.values():
        alice, bob = (states[party] for party in toy.PARTIES)
        assert np.array_equal(alice["centroids"], bob["centroids"])
        assert np.array_equal(alice["online/projector.0.weight"], bob["online/projector.0.weight"])
    assert_equal(by_process["alice"]["alice"], by_process["bob"]["alice"])
