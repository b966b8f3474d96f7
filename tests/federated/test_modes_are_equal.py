"""The same rounds in process, on a local Ray, and as two processes over gRPC: bit for bit."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from orchestra_strategy import host, session
from orchestra_strategy.checkpoints.file import kept_rounds
from orchestra_strategy.errors import HostError
from tests.federated import toy

ROOT = Path(__file__).parents[2]


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


@pytest.mark.ray
def test_local_ray_equals_debug(debug_run):
    with session(toy.PARTIES, mode="local") as devices:
        history, states = toy.run(devices)
    for party in toy.PARTIES:
        assert_equal(states[party], debug_run[1][party])
    assert history["global_history"].keys() == debug_run[0]["global_history"].keys()
    for name, values in debug_run[0]["global_history"].items():
        assert history["global_history"][name] == values


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
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parties = {
        me: subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.federated.cluster_party", me, ports),
                *(str(tmp_path / f"{me}.npz"), route),
            ],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for me in toy.PARTIES
    }
    try:
        for me, process in parties.items():
            output, _ = process.communicate(timeout=180)
            assert process.returncode == 0, f"{me}: {output[-4000:]}"
    finally:
        for process in parties.values():
            process.kill()
            process.wait(10)
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
def test_two_processes_resume_from_their_own_disks(debug_run, tmp_path):
    for states in run_two_processes(tmp_path, "resume").values():
        for party in toy.PARTIES:
            assert_equal(states[party], debug_run[1][party])
    for me, other in (("alice", "bob"), ("bob", "alice")):
        disk = tmp_path / f"disk-of-{me}"
        assert kept_rounds(disk / f"party-{me}") == kept_rounds(disk / "shared") == [1, 2]
        assert not (disk / f"party-{other}").exists()


@pytest.mark.ray
def test_a_ray_with_too_few_logical_cpus_is_refused_instead_of_hanging(monkeypatch):
    monkeypatch.setattr("orchestra_strategy.runtime.session.logical_cpus", lambda parties: 2)
    with session(toy.PARTIES, mode="local") as devices:
        with pytest.raises(HostError, match=r"got 2 for 2: workers would wait.*num_cpus=16"):
            toy.build(devices)
        naps = {d.party: d(time.sleep)(30) for d in devices}
        with pytest.raises(
            HostError, match=r"a nap within 1 s, still waiting for \['alice', 'bob'\]"
        ):
            host.reveal_within(naps, 1, "a nap")
