"""Route ``secure`` through SPU: sums of secret shares, as two processes."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
import spu
from spu.utils.simulation import Simulator, sim_jax

from orchestra_strategy import host
from orchestra_strategy.errors import HostError
from orchestra_strategy.runtime import cluster_session
from orchestra_strategy.runtime.checks import route_of
from tests.federated import toy
from tests.federated.test_modes_are_equal import assert_equal, run_two_processes

# Hardly any learning: what is left of a difference is the arithmetic's, not the training's.
STILL = {"lr": 1e-6, "ema_decay": 1.0}


@pytest.mark.cluster
def test_two_processes_over_grpc(tmp_path):
    by_process = run_two_processes(tmp_path, "spu")
    for states in by_process.values():
        alice, bob = (states[party] for party in toy.PARTIES)
        assert np.array_equal(alice["centroids"], bob["centroids"])
        assert np.array_equal(alice["online/projector.0.weight"], bob["online/projector.0.weight"])
    assert_equal(by_process["alice"]["alice"], by_process["bob"]["alice"])


@pytest.mark.parametrize("field", ["FM64", "FM128"])
@pytest.mark.parametrize("weight", [1, 1000])
def test_the_limit_of_the_ring_is_where_an_spu_goes_wrong(field, weight):
    """SecretFlow's average in SPU's own arithmetic, of two parties in this process."""
    conf = spu.RuntimeConfig(protocol=spu.ProtocolKind.SEMI2K, field=getattr(spu.FieldType, field))
    aggregator = object.__new__(host.SPUAggregator)
    aggregator.device = SimpleNamespace(conf=conf)
    limit = host.ring_limit(aggregator)
    assert limit == {"FM64": 2.0**25, "FM128": 2.0**73}[field]

    def average(mine, theirs, weights):
        return jnp.average(jnp.array([mine, theirs]), axis=0, weights=weights)

    sign = np.where(np.arange(4000) % 2, 1, -1).astype(np.float32)
    for factor, right in ((0.99, True), (4.0, False)):
        values = sign * np.float32(limit * factor / (2 * weight))
        run = sim_jax(Simulator(2, conf), average)
        mean = run(values, values, np.array([weight, weight]))
        assert np.allclose(mean, values, rtol=1e-3) == right


def test_in_cluster_mode_it_is_refused_before_anything_is_sent(monkeypatch):
    aggregator = object.__new__(host.SPUAggregator)
    assert route_of(aggregator, None, None, None) == "secure"
    monkeypatch.setattr(cluster_session._Active, "members", object())
    with pytest.raises(HostError, match="in cluster mode to be a SecureAggregator, got an SPUAgg"):
        route_of(aggregator, None, None, None)
