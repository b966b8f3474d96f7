"""Several virtual users at a time: same bits for any number, same errors, no process left."""

import gc
import os
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
import torch

from orchestra_strategy import OrchestraStrategy, host, session
from orchestra_strategy.checkpoints.state import restore, state_of
from orchestra_strategy.errors import HostError, OrchestraError, ParameterError
from orchestra_strategy.party import user_workers
from orchestra_strategy.party.own_server import answer_of_one
from orchestra_strategy.party.user_store import UserStore
from orchestra_strategy.strategies.baselines import FedBYOLStrategy, FedSimCLRStrategy
from orchestra_strategy.strategies.private import OrchestraPrivateStrategy
from tests.federated import toy

VIRTUAL = {
    "user_type": "multiuser_aggregate",
    "num_virtual_users": 5,
    "batch_size": 8,
    "local_epochs": 1,
    "lr": 0.01,
}
ORCHESTRA = {
    "num_global_clusters": 4,
    "num_local_clusters": 2,
    "memory_size": 16,
    "ema_decay": 0.9,
}
PRIVATE = {**ORCHESTRA, "noise_multiplier": 1.0, "noise_seed": 3, "privacy": "user"}
MODEL = partial(toy.MODEL, heads=("degeneracy_head", "predictor"))
GROUP = partial(MODEL, norm="group")


def party(cls=OrchestraStrategy, model=MODEL, size=43, **options):
    made = cls(model, random_seed=7, party="alice", **{**VIRTUAL, **options})
    made.build_dataset(toy.images("alice", size))
    return made


def rounds(one, count):
    """Round 0 and ``count`` more of a party alone; returns all payloads."""
    wires = [one.get_weights()]
    one.apply_weights(answer_of_one(one, wires[0]))
    for _ in range(count):
        wires.append(one.train_step(None, 0, 1)[0])
    return wires


def flat(value, path=""):
    """Nested values by path, tensors as arrays."""
    if isinstance(value, dict):
        return {k: v for key, part in value.items() for k, v in flat(part, f"{path}/{key}").items()}
    if isinstance(value, list | tuple):
        return flat(dict(enumerate(value)), path)
    return {path: value.numpy() if isinstance(value, torch.Tensor) else value}


def assert_same_bits(got, want):
    got, want = flat(got), flat(want)
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert np.array_equal(got[name], value), name


def is_running(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def pids(one):
    return [p.pid for p in one.user_type.workers()._processes]


# ---- One process is enough for these ----------------------------------------------------------


def test_users_in_memory_and_in_files_are_the_same_bits():
    kept = []
    for limit in (2**30, 3000, 0):  # all in memory, some in files, all in files
        one = party(**ORCHESTRA)
        one.method.store = store = UserStore(in_memory=limit)
        wires = rounds(one, 2)
        kept.append(({"wires": wires, "state": state_of(one).as_dict()}, len(store._kept)))
    (memory, all_of_them), (mixed, some), (files, none) = kept
    assert (all_of_them, none) == (5, 0)
    assert 0 < some < 5
    assert_same_bits(mixed, memory)
    assert_same_bits(files, memory)


@pytest.mark.parametrize("value", [0, -1, 1.5, "2"])
def test_a_number_that_is_none_is_refused(value):
    with pytest.raises(ParameterError, match="Expected `user_workers` to be"):
        party(user_workers=value, **ORCHESTRA)


def test_a_party_that_is_one_user_has_no_workers():
    with pytest.raises(ParameterError, match=r"`user_workers` to be 1 with user_type='local_upd"):
        party(user_type="local_update", user_workers=2, **ORCHESTRA)


class Remembers(FedSimCLRStrategy):
    """What one user does, the next one sees."""

    def after_local_training(self, user):
        self.last = user


class Counting(FedSimCLRStrategy):
    """An objective that keeps something of every user."""

    def make_objective(self):
        objective = super().make_objective()
        objective.state_dict = lambda: {"steps": 0}
        return objective


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (Remembers, "overrides `after_local_training`, got 2"),
        (Counting, "which keeps steps, got 2"),
    ],
)
def test_users_that_depend_on_each_other_are_refused(cls, words):
    with pytest.raises(ParameterError, match=words):
        party(cls, user_workers=2)
    party(cls)


# ---- Processes --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cls", "model", "options"),
    [
        (OrchestraStrategy, MODEL, {**ORCHESTRA, "users_per_round": 3, "user_split": "blocks"}),
        (OrchestraStrategy, MODEL, {**ORCHESTRA, "route": "secure"}),
        (OrchestraPrivateStrategy, GROUP, PRIVATE),
        (FedBYOLStrategy, MODEL, {"streams": "secret"}),
    ],
    ids=["drawn", "secure", "private", "byol"],
)
def test_any_number_of_workers_gives_the_same_bits(cls, model, options):
    one = party(cls, model, **options)
    start = state_of(one)
    many = party(cls, model, user_workers=3, **options)
    restore(many, start)  # a secret, for those that have one
    many.build_dataset(toy.images("alice", 43))
    assert_same_bits(rounds(many, 2), rounds(one, 2))
    assert_same_bits(state_of(many).as_dict(), state_of(one).as_dict())
    assert len(pids(many)) == 3


class Breaks(FedSimCLRStrategy):
    """Fails for users whose first sample is one of some."""

    def loss_terms(self, model, batch):
        if int(batch["ids"].min()) in (0, 2):
            raise ZeroDivisionError("of these samples")
        return super().loss_terms(model, batch)


@pytest.mark.slow
def test_an_error_of_a_user_is_the_same_as_without_workers():
    told = []
    for workers in (1, 2):
        one = party(Breaks, user_workers=workers)
        with pytest.raises(OrchestraError, match="ZeroDivisionError: of these samples") as caught:
            one.train_step(None, 0, 1)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        told.append((str(caught.value), one.user_type.user.failed_users))
    assert told[0] == told[1]
    assert "in loss_terms" in str(caught.value.__cause__.__cause__)  # where it was, elsewhere


@pytest.mark.slow
def test_an_error_of_a_protected_user_does_not_show_with_workers_either():
    done = []
    for workers in (1, 2):
        options = {"privacy": "user", "noise_multiplier": 1.0, "noise_seed": 3}
        one = party(Breaks, GROUP, user_workers=workers, **options)
        one.privacy.rehearsed = None
        done.append((one.train_step(None, 0, 1)[0], one.privacy.silence.failures))
    assert done[0][1] == done[1][1] > 0
    assert_same_bits(done[1][0], done[0][0])


@pytest.mark.slow
def test_a_process_that_dies_is_told_and_ends_the_others():
    one = party(FedSimCLRStrategy, user_workers=2)
    one.train_step(None, 0, 1)
    first = pids(one)
    os.kill(first[1], signal.SIGKILL)
    with pytest.raises(HostError, match=r"Expected the 2 processes of `user_workers` .*code -9"):
        one.train_step(None, 0, 1)
    assert not any(is_running(process) for process in first)
    one.train_step(None, 0, 1)  # with new ones


@pytest.mark.slow
def test_processes_end_with_their_parameters_and_their_party():
    one = party(FedSimCLRStrategy, user_workers=2)
    one.train_step(None, 0, 1)
    first = pids(one)
    one.configure({"lr": 0.02})
    one.train_step(None, 0, 1)
    assert not any(is_running(process) for process in first)  # they had another rate
    second = pids(one)
    assert all(is_running(process) for process in second)
    del one
    gc.collect()
    assert not any(is_running(process) for process in second)


KILLED = """
import os, signal
from tests.party.test_user_workers import FedSimCLRStrategy, party, pids
one = party(FedSimCLRStrategy, user_workers=2)
one.train_step(None, 0, 1)
print("workers", *pids(one), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_workers_of_a_killed_party_end():
    killed = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True)
    lines = killed.stdout.splitlines()
    told = next((line for line in lines if line.startswith("workers")), killed.stderr)
    processes = [int(pid) for pid in told.split()[1:]]
    assert len(processes) == 2
    for _ in range(600):
        if not any(is_running(process) for process in processes):
            break
        time.sleep(0.1)
    assert not any(is_running(process) for process in processes)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["debug", "local"])
def test_workers_in_secretflow(mode):
    found = []
    for workers in (1, 2) if mode == "debug" else (2,):
        with session(toy.PARTIES, mode=mode) as devices:
            model = toy.build(
                devices, strategy="orchestra_aggregate", num_virtual_users=4, user_workers=workers
            )
            model.fit(toy.data(devices), epochs=2)
            found.append(host.reveal(model.workers[devices[1]].get_weights()))
    FOUND.setdefault("debug", found[0])
    for weights in found:
        assert_same_bits(weights, FOUND["debug"])


FOUND = {}


def test_processes_that_do_not_answer_in_time_are_ended(monkeypatch):
    """Processes need some seconds to start: with a limit of one they are as good as frozen."""
    monkeypatch.setattr(user_workers, "_LONGEST", 1)
    workers = user_workers.UserWorkers(party(user_workers=2), 2)
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1]
    )
    with pytest.raises(HostError, match="of the 2 processes of `user_workers` within 1 s, got n"):
        list(workers.work("round", [0, 1]))
    assert len(started) == 2
    assert all(process.poll() is not None for process in started)


def test_a_process_that_is_frozen_at_work_is_given_up(monkeypatch):
    one = party(user_workers=2)
    workers = user_workers.UserWorkers(one, 1)
    one.open_round()
    work = workers.work("init", [0, 1])
    assert next(work)[0] == 0
    (process,) = workers._processes
    monkeypatch.setattr(user_workers, "_LONGEST", 1)
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(HostError, match="within 1 s, got none"):
        next(work)
    assert process.poll() is not None
