"""Parties that work on a Ray each: the same averages as without, and the same words at a fault.

One job is run and one party killed. ``ORCHESTRA_RAY_FAULTS=1`` tries the other faults of
docs/reliability.md on Ray, too; each starts two Rays, so that takes some ten minutes.
"""

import os
import signal
import time

import pytest

from orchestra_strategy.checkpoints.round_files import RoundFiles
from orchestra_strategy.cluster import make_certificates
from tests.cluster.process_tree import (
    command,
    descendants,
    listens_beyond_this_machine,
    wait_until_gone,
)
from tests.cluster.test_faults import KEYS
from tests.federated.checkpoint_runs import assert_same, flat

pytestmark = [pytest.mark.cluster, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]
ALL = pytest.mark.skipif(not os.environ.get("ORCHESTRA_RAY_FAULTS"), reason="slow")
ROUTES = [{"server": "alice"}, {"aggregator": "secure"}]
LONG = {"rounds": 2000, "checkpoint_dir": "kept-{party}", "keep_checkpoints": 2000}
LIMIT = 60  # seconds; peer_timeout is 10
# Two Rays and their workers are started, each of which imports SecretFlow.
START = 240


def on_ray(job, **changed):
    waits = {"start_timeout": 120, "heartbeat": 0.5, "peer_timeout": 10}
    return job(**{"backend": "ray", "ray": {"num_cpus": 16}, "cluster": waits, **changed})


def family(job):
    """All processes of each party."""
    return {name: descendants(process.pid) for name, process in job.processes.items()}


def assert_gone(processes):
    assert wait_until_gone(set().union(*processes.values()), seconds=15) == []


def kept(job, round_index):
    """All that the parties keep after a round."""
    found = {}
    for name in job.names:
        files = RoundFiles(job.folder / f"kept-{name}" / f"party-{name}", name)
        found |= flat(files.read(round_index)[1]["party"], name)
    return found


def running(job, rounds=2, **changed):
    """Return a job on Ray that has done some rounds, and its processes."""
    made = on_ray(job, **{**LONG, **changed}).start()
    for name in made.names:
        made.wait_for(f"kept-{name}/**/round-*{rounds}.ckpt", seconds=START)
    return made, family(made)


@pytest.mark.parametrize("combiner", [ROUTES[0], pytest.param(ROUTES[1], marks=ALL)], ids=str)
def test_averages_are_those_without_ray_and_a_killed_party_is_named(job, tmp_path, combiner):
    make_certificates(tmp_path / "keys", ["alice", "bob"])
    made, processes = running(job, tls=KEYS, **combiner)
    # Whoever reaches a Ray can run code on it.
    assert listens_beyond_this_machine(processes["alice"]) == set()
    made.send("bob", signal.SIGKILL)
    assert made.end("alice", seconds=LIMIT) == {"alice": 4}, made.log("alice")
    assert "sign of life of bob" in made.log("alice")
    assert "--party alice --resume" in made.log("alice")
    assert "Traceback" not in made.log("alice")
    assert_gone(processes)
    on_rays = kept(made, 2)
    for name in made.names:
        (tmp_path / f"kept-{name}").rename(tmp_path / f"on-ray-{name}")
    without = made.write("without.yaml", backend="threads", ray=None, rounds=2)
    made.start(job=without)
    assert made.end(seconds=LIMIT) == {"alice": 0, "bob": 0}, made.log("alice")
    assert_same(on_rays, kept(made, 2))


@ALL
@pytest.mark.parametrize("combiner", ROUTES, ids=["server", "secure"])
def test_other_settings_at_one_party_are_named_at_both(job, combiner):
    made = on_ray(job, **combiner)
    other = made.write("other.yaml", seed=9)
    made.start("alice").start("bob", job=other)
    assert made.end(seconds=START) == {"alice": 3, "bob": 3}
    for party in made.names:
        assert "`seed`: alice 42, bob 9" in made.log(party)


@ALL
@pytest.mark.parametrize("combiner", ROUTES, ids=["server", "secure"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "term"])
def test_an_interrupted_party_says_so(job, combiner, number):
    made, processes = running(job, **combiner)
    made.send("bob", number)
    assert made.end(seconds=LIMIT) == {"alice": 5, "bob": 130}
    assert "bob was interrupted by its user" in made.log("alice")
    assert_gone(processes)


@ALL
@pytest.mark.parametrize("combiner", ROUTES, ids=["server", "secure"])
def test_a_frozen_party_is_named(job, combiner):
    made, _ = running(job, **combiner)
    made.send("bob", signal.SIGSTOP)
    assert made.end("alice", seconds=LIMIT) == {"alice": 4}
    assert "sign of life of bob" in made.log("alice")
    made.send("bob", signal.SIGCONT)
    assert made.end("bob", seconds=LIMIT) == {"bob": 4}


@ALL
@pytest.mark.parametrize("combiner", ROUTES, ids=["server", "secure"])
def test_a_dead_worker_is_its_partys_end_and_named_at_both(job, combiner):
    made, processes = running(job, **combiner)
    (worker,) = [pid for pid, _ in processes["bob"] if "ActorOrchestra" in command(pid)]
    os.kill(worker, signal.SIGKILL)
    assert made.end(seconds=LIMIT) == {"alice": 4, "bob": 4}
    for party in made.names:
        assert "Expected the worker of bob to go on" in made.log(party)
        assert "Traceback" not in made.log(party)


@ALL
@pytest.mark.parametrize("combiner", ROUTES, ids=["server", "secure"])
def test_data_that_one_cannot_read_end_the_job_for_all(job, tmp_path, combiner):
    made = on_ray(job, **combiner)
    (tmp_path / "bob.npy").unlink()
    made.start()
    assert sorted(made.end(seconds=START).values()) in ([1, 1], [1, 5])
    for party in made.names:
        assert "party `bob`: Expected data in" in made.log(party)
        assert "Traceback" not in made.log(party)


@ALL
@pytest.mark.parametrize("combiner", ROUTES, ids=["server", "secure"])
def test_a_killed_party_resumes_with_the_others(job, combiner):
    made, _ = running(job, **{**combiner, "keep_checkpoints": 1})
    made.send("bob", signal.SIGKILL)
    assert made.end("alice", seconds=LIMIT) == {"alice": 4}
    last = min(
        max(RoundFiles(made.folder / f"kept-{n}" / f"party-{n}", n).committed()) for n in made.names
    )
    rounds = ["--set", f"rounds={last + 3}"]
    made.start(more=["--resume", *rounds])
    assert made.end(seconds=START) == {"alice": 0, "bob": 0}, made.log("alice")


@ALL
def test_threads_at_one_and_ray_at_the_other(job):
    made = on_ray(job)
    other = made.write("other.yaml", backend="threads", ray=None)
    made.start("alice").start("bob", job=other)
    assert made.end(seconds=START) == {"alice": 3, "bob": 3}
    for party in made.names:
        assert "`backend`: alice ray, bob threads" in made.log(party)


@ALL
def test_a_party_that_never_comes_is_named(job):
    waits = {"start_timeout": 4, "heartbeat": 0.5, "peer_timeout": 10}
    start = time.monotonic()
    made = on_ray(job, cluster=waits).start("alice")
    assert made.end("alice", seconds=START) == {"alice": 1}
    assert "Expected bob to come to `start` within 4 s" in made.log("alice")
    assert time.monotonic() - start < START
