"""A resumed training equals the uninterrupted one, bit for bit, in all that a party keeps."""

import os

import pytest

from orchestra_strategy import host, session
from orchestra_strategy.errors import CheckpointError
from tests.federated import toy
from tests.federated.checkpoint_runs import (
    GROUP,
    RECORD,
    USER,
    VIRTUAL,
    assert_same,
    numbers,
    states,
    trainer,
)

CASES = {
    "orchestra": {},
    "orchestra, secure": {"secure": True},
    "momentum": {"strategy": "fed_simsiam", "parameters": {"momentum": 0.9}},
    "byol": {"strategy": "fed_byol", "parameters": {"ema_decay": 0.9}},
    "simple": {"strategy": "orchestra_simple", "parameters": {"num_clusters": 3}},
    "one gradient a round": {"strategy": "orchestra_single_step"},
    "virtual users": {"parameters": VIRTUAL},
    "user level": {"strategy": "orchestra_private", "model": GROUP, "parameters": USER},
    "user level, secure": {
        "strategy": "orchestra_private",
        "model": GROUP,
        "parameters": USER,
        "secure": True,
    },
    "virtual users, user level": {
        "strategy": "orchestra_private",
        "model": GROUP,
        "parameters": {**USER, **VIRTUAL},
    },
    "record level": {"strategy": "fed_rotpred", "model": GROUP, "parameters": RECORD},
    "orchestra, record level": {
        "strategy": "orchestra_private",
        "model": GROUP,
        "parameters": RECORD,
    },
    "every second round": {"checkpoint_every": 2},
}


@pytest.mark.parametrize("case", CASES)
def test_resumed_equals_uninterrupted(devices, tmp_path, case):
    options = CASES[case]
    data = toy.data(devices)
    whole = trainer(devices, 4, None, **options)
    expected = whole.train(data)
    first = trainer(devices, 2, tmp_path, **options)
    assert first.train(data).rounds == expected.rounds // 2
    second = trainer(devices, 4, tmp_path, **options)
    resumed = second.resume(data)
    assert numbers(resumed) == numbers(expected)
    ours, theirs = states(second), states(whole)
    for party in toy.PARTIES:
        assert_same(ours[party], theirs[party])
    # And so does a further training, which begins with an exchange.
    again = [run.fl_model.fit(data, epochs=1)["global_history"] for run in (second, whole)]
    assert again[0] == again[1]
    assert_same(states(second)["bob"], states(whole)["bob"])


@pytest.mark.parametrize("case", ["orchestra", "orchestra, secure", "orchestra, record level"])
def test_what_is_read_back_is_what_was_written(devices, tmp_path, case):
    """Before any round is trained on it, which would make some of it anew."""
    first, second = (trainer(devices, 2, tmp_path, **CASES[case]) for _ in range(2))
    first.train(toy.data(devices))
    second.resume(toy.data(devices))
    for party in toy.PARTIES:
        theirs = states(first)[party]
        theirs["/data"] = None  # none have been given to the new workers
        assert_same(states(second)[party], theirs)


@pytest.mark.ray
def test_resumed_on_local_ray_equals_uninterrupted_in_process(tmp_path):
    """Each party writes from a process of its own, and is started anew in another one."""
    with session(toy.PARTIES, mode="debug") as devices:
        whole = trainer(devices, 3, None)
        expected, theirs = whole.train(toy.data(devices)), states(whole)
    with session(toy.PARTIES, mode="local") as devices:
        trainer(devices, 1, tmp_path).train(toy.data(devices))
        second = trainer(devices, 2, tmp_path)
        second.resume(toy.data(devices))
    with session(toy.PARTIES, mode="local") as devices:  # a new cluster
        third = trainer(devices, 3, tmp_path)
        assert numbers(third.resume(toy.data(devices))) == numbers(expected)
        ours = states(third)
        for party in toy.PARTIES:
            assert_same(ours[party], theirs[party])
        (tmp_path / "party-bob" / "round-000003.ckpt").unlink()
        with pytest.raises(CheckpointError, match=r"party `bob` to have its state of round 3"):
            trainer(devices, 4, tmp_path).resume(toy.data(devices))


@pytest.mark.ray
def test_a_worker_that_is_killed_costs_that_round_alone(tmp_path):
    with session(toy.PARTIES, mode="debug") as devices:
        expected = trainer(devices, 3, None).train(toy.data(devices))

    class Kill(host.Callback):
        def on_epoch_begin(self, epoch=None, logs=None):
            if epoch == 1:
                (bob,) = [w for d, w in run.fl_model.workers.items() if d.party == "bob"]
                bob.apply(lambda worker: os._exit(9))

    with session(toy.PARTIES, mode="local") as devices:
        run = trainer(devices, 3, tmp_path)
        with pytest.raises(Exception, match=r"(?i)actor.*died|died"):
            run.train(toy.data(devices), callbacks=[Kill()])
        assert numbers(run.resume(toy.data(devices))) == numbers(expected)
