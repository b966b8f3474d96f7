"""Route ``secure`` through SPU: the sum is computed on secret shares, on a local Ray."""

import socket

import numpy as np
import pytest

from orchestra_strategy import host, session
from tests.federated import toy
from tests.federated.test_modes_are_equal import assert_equal
from tests.federated.test_secure_route import build, shared_of, states_of

# Hardly any learning: what is left of a difference is the arithmetic's, not the training's.
STILL = {"lr": 1e-6, "ema_decay": 1.0}


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def spu_of(parties):
    ports = free_ports(len(parties))
    nodes = [{"party": p, "address": f"127.0.0.1:{q}"} for p, q in zip(parties, ports, strict=True)]
    return host.SPU(
        {"nodes": nodes, "runtime_config": {"protocol": "SEMI2K", "field": "FM128"}},
        link_desc={"connect_retry_times": 60, "connect_retry_interval_ms": 500},
    )


@pytest.mark.ray
def test_training_through_secret_shares_equals_training_in_the_clear():
    with session(toy.PARTIES, mode="debug") as devices:
        model = build(devices, **STILL)
        model.fit(toy.data(devices), epochs=2)
        plain, plain_shared = states_of(model), states_of(model, shared_of)
    with session(toy.PARTIES, mode="local") as devices:
        model = build(devices, host.SPUAggregator(spu_of(toy.PARTIES)), **STILL)
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
