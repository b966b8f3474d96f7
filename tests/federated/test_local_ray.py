"""Each party in a process of its own, on one local Ray that all these tests share.

Starting Ray and its processes takes most of such a test's time. What is expected is worked out in
process before that: SecretFlow runs in one mode at a time.
"""

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from federated_orchestra import FederatedOrchestraTrainer
from orchestra_strategy import host, session
from orchestra_strategy.data.sources import (
    fed_from_paths,
    fed_labelled_from_paths,
    fed_ndarray,
)
from orchestra_strategy.errors import (
    CheckpointError,
    DataError,
    HostError,
    PeerLostError,
    ReplyError,
)
from tests.federated import flmodel, toy
from tests.federated import test_bad_replies as replies
from tests.federated import test_federated_probe as probes
from tests.federated import test_shared_noise as shared_noise
from tests.federated.checkpoint_runs import assert_same, numbers, states, trainer
from tests.federated.test_modes_are_equal import assert_equal, free_ports
from tests.federated.test_secure_route import build, shared_of, states_of
from tests.federated.test_sources import pixels
from tests.federated.test_spu import STILL

pytestmark = pytest.mark.ray


def encoder():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return toy.MODEL().eval()


@pytest.fixture(scope="module")
def in_process():
    """What the same trainings yield in this process."""
    with session(toy.PARTIES, mode="debug") as devices:
        still = build(devices, **STILL)
        still.fit(toy.data(devices), epochs=2)
        whole = trainer(devices, 3, None)
        results = whole.train(toy.data(devices))
        return SimpleNamespace(
            server=toy.run(devices),
            half=toy.run(devices, payload_dtype="float16"),
            secure=toy.run(devices, aggregator=host.SecureAggregator(devices[0], devices))[1],
            still=(states_of(still), states_of(still, shared_of)),
            three_rounds=(numbers(results), states(whole)),
            probe=probes.probe(encoder(), devices).accuracy,
        )


def shared_run(devices, folder, rounds, aggregator=None):
    config = {
        **{"strategy": "fed_rotpred", "rounds": rounds, "seed": 7, "progress": False},
        "model": {"backbone": "conv4", "in_channels": 1, "norm": "group"}
        | {"hidden_dim": 16, "projection_dim": 16},
        "parameters": {**shared_noise.COMMON, **shared_noise.SHARED, "max_epsilon": 8.0},
        "checkpoint_dir": None if folder is None else str(folder),
    }
    aggregator = aggregator or host.SecureAggregator(devices[0], devices)
    trainer = FederatedOrchestraTrainer(config, devices, aggregator=aggregator)
    return trainer, shared_noise.data(devices)


def averaged(trainer):
    worker = next(iter(trainer.fl_model.workers.values()))
    return host.reveal(worker.averaged_weights())


@pytest.fixture(scope="module")
def shared_in_process(tmp_path_factory):
    """One round, all that the budget allows, and a folder with the checkpoint of the first."""
    folder = tmp_path_factory.mktemp("shared")
    with session(replies.NAMES, mode="debug") as devices:
        (first, x), (whole, _) = shared_run(devices, folder, 1), shared_run(devices, None, 9)
        first.train(x)
        results = whole.train(x)
        return SimpleNamespace(
            folder=folder, results=results, first=averaged(first), whole=averaged(whole)
        )


@pytest.fixture(scope="module")
def three(in_process, shared_in_process):
    """Alice, bob and carol on a local Ray."""
    with session(replies.NAMES, mode="local") as devices:
        yield devices


@pytest.fixture
def devices(three):
    """Alice and bob."""
    return three[:2]


def test_route_server_equals_the_run_in_process(devices, in_process):
    history, found = toy.run(devices)
    for party in toy.PARTIES:
        assert_equal(found[party], in_process.server[1][party])
    assert history["global_history"] == in_process.server[0]["global_history"]


def test_float16_weights_equal_the_run_in_process(devices, in_process):
    history, found = toy.run(devices, payload_dtype="float16")
    for party in toy.PARTIES:
        assert_equal(found[party], in_process.half[1][party])
    assert history["global_history"] == in_process.half[0]["global_history"]


def test_route_secure_equals_the_run_in_process(devices, in_process):
    _, found = toy.run(devices, aggregator=host.SecureAggregator(devices[0], devices))
    for party in toy.PARTIES:
        assert_equal(found[party], in_process.secure[party])


def test_validation_and_files_of_models_on_both_classes(devices, tmp_path):
    """SecretFlow does not look at what its calls of workers come to; so it must show afterwards."""
    x = toy.data(devices)
    y = flmodel.labels(devices)
    ours = toy.build(devices)
    theirs = flmodel.plain(devices, simulation=True)
    histories = [
        ours.fit(x, epochs=2, validation_data=(x, y), audit_log_dir=str(tmp_path / "ours")),
        flmodel.fit_plain(
            theirs, x, epochs=2, validation_data=(x, y), audit_log_dir=str(tmp_path / "theirs")
        ),
    ]
    for history in histories:
        assert len(history["global_history"]["val_nmi"]) == 2
        assert len(history["local_history"][f"{devices[0]}_val_alignment"]) == 2
    for model, folder in ((ours, "ours"), (theirs, "theirs")):
        again = toy.build(devices, random_seed=9)
        again.load_model(str(tmp_path / folder / "base_model" / "1"), is_test=True)
        want, got = toy.states(_as_ours(model)), toy.states(again)
        for party in toy.PARTIES:
            assert_equal(got[party], want[party])
        again.fit(x, epochs=1)
    weights = fed_ndarray({d: np.ones(toy.SIZES[d.party]) for d in devices})
    with pytest.raises(Exception, match="Expected no `sample_weight`, got one"):
        flmodel.fit_plain(flmodel.plain(devices), x, epochs=1, sample_weight=weights)


def _as_ours(model):
    return SimpleNamespace(workers=host.workers_of(model))


def test_training_through_secret_shares_equals_training_in_the_clear(devices, in_process):
    plain, plain_shared = in_process.still
    model = build(devices, host.SPUAggregator(toy.spu(free_ports(2))), **STILL)
    seen = {row["name"]: row["seen_by"] for row in model.manifest()}
    history = model.fit(toy.data(devices), epochs=2)
    found, shared = states_of(model), states_of(model, shared_of)
    assert np.isfinite(history["global_history"]["train_loss"]).all()
    assert_equal(*shared.values())
    alice, bob = found.values()
    assert np.array_equal(alice["centroids"], bob["centroids"])
    weights = [k for k in alice if k.startswith("online/") and "num_batches" not in k]
    for name in weights:
        assert np.array_equal(alice[name], bob[name]), name
        assert alice[name] == pytest.approx(plain["alice"][name], abs=2e-4), name
    assert shared["alice"]["C"] == pytest.approx(plain_shared["alice"]["C"], abs=2e-3)
    # Who sees what: secret shares hide even the numbers of samples.
    assert seen["moments/S"].startswith("nobody alone: only the sum, by all parties")
    assert seen["num_samples"] == "nobody: only as secret shares, through SPUAggregator"


def test_resumed_equals_uninterrupted(devices, in_process, tmp_path):
    """Each party writes from a process of its own, and is started anew in another one."""
    expected, theirs = in_process.three_rounds
    trainer(devices, 1, tmp_path).train(toy.data(devices))
    trainer(devices, 2, tmp_path).resume(toy.data(devices))
    third = trainer(devices, 3, tmp_path)
    assert numbers(third.resume(toy.data(devices))) == expected
    ours = states(third)
    for party in toy.PARTIES:
        assert_same(ours[party], theirs[party])
    (tmp_path / "party-bob" / "round-000003.ckpt").unlink()
    with pytest.raises(CheckpointError, match=r"party `bob` to have its state of round 3"):
        trainer(devices, 4, tmp_path).resume(toy.data(devices))


def test_a_worker_that_is_killed_costs_that_round_alone(devices, in_process, tmp_path):
    class Kill(host.Callback):
        def on_epoch_begin(self, epoch=None, logs=None):
            if epoch == 1:
                (bob,) = [w for d, w in run.fl_model.workers.items() if d.party == "bob"]
                bob.apply(lambda worker: os._exit(9))

    run = trainer(devices, 3, tmp_path, max_restarts=1)
    # Once it goes on by itself, from round 1; of the second end, in round 3, it tells.
    with pytest.raises(
        PeerLostError, match=r"worker of party `bob` .* after round 2 is in .*`:"
    ) as told:
        run.train(toy.data(devices), callbacks=[Kill()])
    assert told.value.party == "bob"
    assert numbers(run.resume(toy.data(devices))) == in_process.three_rounds[0]


def test_both_policies_for_bad_replies(three):
    strict = toy.build(three)
    with pytest.raises(ReplyError, match=r"of party `bob` to be finite, got NaN"):
        strict.fit(replies.data(three), epochs=2, callbacks=[replies.Spoil(strict, "bob", 1)])
    lenient = toy.build(three, on_bad_reply="leave_out")
    spoil = replies.Spoil(lenient, "bob", 1)
    history = lenient.fit(replies.data(three), epochs=3, callbacks=[spoil])
    assert len(history["global_history"]["train_loss"]) == 3
    assert list(lenient.left_out()) == ["bob"]
    after = replies.states(lenient)
    for name, value in after["bob"].items():
        assert np.isfinite(value).all(), name
    name = "online/backbone.body.0.weight"
    assert np.array_equal(after["bob"][name], after["alice"][name])


@pytest.mark.slow
def test_shared_noise_and_a_budget_that_survives(shared_in_process, three):
    """Masks and shares give the same sums; what is spent is known after the end of a process."""
    expected = shared_in_process
    assert "budget does not allow" in expected.results.stop_reason
    assert 2 <= expected.results.rounds < 9
    again, x = shared_run(three, expected.folder, 9)
    resumed = again.resume(x)
    assert resumed.history == expected.results.history
    assert resumed.epsilon == expected.results.epsilon <= 8.0
    for name, value in averaged(again).items():
        assert np.array_equal(value, expected.whole[name]), name
    spent = json.loads((expected.folder / "party-bob" / "privacy.json").read_bytes())
    assert spent["assumes"].startswith("at most 1 of 3 parties")
    spu = host.SPUAggregator(toy.spu(free_ports(3), replies.NAMES))
    by_shares, _ = shared_run(three, None, 1, spu)
    by_shares.train(x)
    for name, value in averaged(by_shares).items():
        # An SPU divides by approximation; noise and updates are a tenth.
        assert value == pytest.approx(expected.first[name], abs=2e-4), name


def test_a_federated_probe(devices, in_process):
    found = probes.probe(encoder(), devices).accuracy
    assert found == pytest.approx(in_process.probe, abs=0.03)


def test_each_process_reads_its_own_file(devices, tmp_path, monkeypatch):
    for party in toy.PARTIES:
        np.savez(tmp_path / f"{party}.npz", x=pixels(party), y=np.zeros(toy.SIZES[party]))
    paths = {d: tmp_path / f"{d.party}.npz" for d in devices}
    # The driver itself could not read them: what is replaced here is not replaced there.
    monkeypatch.setattr("orchestra_strategy.data.readers.numpy_files._member", None)
    x, y = fed_labelled_from_paths(paths)
    for device in devices:
        found = host.reveal({"x": x.partitions[device], "y": y.partitions[device]})
        assert np.array_equal(found["x"], pixels(device.party))
        assert found["x"].dtype == np.uint8
        assert len(found["y"]) == toy.SIZES[device.party]
    (tmp_path / "bob.npz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"1 of 2 parties .*: party `bob`: .*bob.npz` to be"):
        fed_from_paths(paths)
    with pytest.raises(HostError, match=r"the data of all .* within 0 s, still waiting for"):
        fed_from_paths({**paths, host.PYU("dave"): Path("x.npy")}, timeout_s=0.1)


def test_a_party_that_is_late_is_named(devices):
    naps = {d.party: d(time.sleep)(5) for d in devices}
    with pytest.raises(HostError, match=r"a nap within 1 s, still waiting for \['alice', 'bob'\]"):
        host.reveal_within(naps, 1, "a nap")


def test_too_few_logical_cpus_are_refused_instead_of_a_hang(devices, monkeypatch):
    monkeypatch.setattr("orchestra_strategy.host.logical_cpus", lambda: 2)
    with pytest.raises(HostError, match=r"got 2 for 2: workers would wait.*num_cpus=16"):
        toy.build(devices)
