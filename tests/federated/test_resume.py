"""A resumed training equals the uninterrupted one, bit for bit, in all that a party keeps."""

import pytest

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
    "weights as float16": {"parameters": {"payload_dtype": "float16"}},
    "updates of 4 bits": {
        "strategy": "orchestra_private",
        "model": GROUP,
        "parameters": {**USER, "payload_bits": 4},
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
