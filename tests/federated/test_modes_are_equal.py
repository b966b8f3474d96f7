"""The same rounds in process and as two processes over gRPC: bit for bit."""

import socket

import numpy as np
import pytest

from orchestra_strategy import session
from orchestra_strategy.checkpoints.round_files import RoundFiles
from tests.cluster.party_process import CONTEXT
from tests.federated import toy
from tests.federated.cluster_party import main


@pytest.fixture(scope="module")
def debug_run():
    with session(toy.PARTIES, mode="debug") as devices:
        return toy.run(devices)


def assert_equal(got, want):
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert np.array_equal(got[name], value), name


def test_the_toy_run_trains(debug_run):
    history, states = debug_run
    assert len(history["global_history"]["train_loss"]) == 2
    alice, bob = states["alice"], states["bob"]
    weights = [k for k in alice if k.startswith("online/") and "num_batches" not in k]
    assert_equal({k: bob[k] for k in weights}, {k: alice[k] for k in weights})
    assert not np.array_equal(alice["memory"], bob["memory"])
    assert np.array_equal(alice["centroids"], bob["centroids"])


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def run_two_processes(tmp_path, route):
    """Run the toy as two processes; return what each of them revealed, by party."""
    ports = ",".join(str(p) for p in free_ports(4))
    logs = {me: tmp_path / f"{me}.log" for me in toy.PARTIES}
    parties = {
        me: CONTEXT.Process(
            target=main, args=(me, ports, str(tmp_path / f"{me}.npz"), route, str(logs[me]))
        )
        for me in toy.PARTIES
    }
    try:
        for process in parties.values():
            process.start()
        for me, process in parties.items():
            process.join(180)
            assert process.exitcode == 0, f"{me}: {logs[me].read_text()[-4000:]}"
    finally:
        for process in parties.values():
            process.kill()
            process.join(10)
    revealed = {}
    for me in toy.PARTIES:
        saved = dict(np.load(tmp_path / f"{me}.npz"))
        revealed[me] = {
            party: {
                k.removeprefix(f"{party}/"): v
                for k, v in saved.items()
                if k.startswith(f"{party}/")
            }
            for party in toy.PARTIES
        }
    return revealed


@pytest.mark.cluster
def test_two_processes_over_grpc_equal_debug(debug_run, tmp_path):
    for states in run_two_processes(tmp_path, "server").values():
        for party in toy.PARTIES:
            assert_equal(states[party], debug_run[1][party])


@pytest.mark.cluster
def test_two_processes_with_float16_weights_equal_debug(debug_run, tmp_path):
    with session(toy.PARTIES, mode="debug") as devices:
        _, half = toy.run(devices, payload_dtype="float16")
    weight = "online/projector.0.weight"
    assert np.array_equal(half["alice"][weight], half["bob"][weight].astype(np.float16))
    assert not np.array_equal(half["alice"][weight], debug_run[1]["alice"][weight])
    for states in run_two_processes(tmp_path, "float16").values():
        for party in toy.PARTIES:
            assert_equal(states[party], half[party])


@pytest.mark.cluster
def test_two_processes_resume_from_their_own_disks(debug_run, tmp_path):
    for states in run_two_processes(tmp_path, "resume").values():
        for party in toy.PARTIES:
            assert_equal(states[party], debug_run[1][party])
    for me, other in (("alice", "bob"), ("bob", "alice")):
        disk = tmp_path / f"disk-of-{me}"
        assert RoundFiles(disk / f"party-{me}", me).committed() == [1, 2]
        assert not (disk / f"party-{other}").exists()
