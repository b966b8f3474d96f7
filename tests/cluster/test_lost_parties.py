"""A party that is gone, stands still or was interrupted is named by the others, within a limit."""

import signal
import time

import pytest

pytestmark = pytest.mark.cluster
ROUTES = [{"server": "alice"}, {"aggregator": "secure"}]
LONG = {"rounds": 500, "checkpoint_dir": "kept-{party}", "keep_checkpoints": 1}
STARTED = "kept-bob/**/*.ckpt"
LIMIT = 30  # seconds; peer_timeout is 6


def running(job, parties=2, **changed):
    """Return a job in which all parties have done a round."""
    made = job(parties, **{**LONG, **changed}).start()
    made.wait_for(STARTED, seconds=30)
    return made


# Each value with each other one, but for the slow ones: then all together.
SERVER, SECURE = ROUTES
PAIRS = [
    (signal.SIGKILL, "alice", SERVER),
    (signal.SIGKILL, "bob", SECURE),
    (signal.SIGSTOP, "alice", SECURE),
    (signal.SIGSTOP, "bob", SERVER),
]
OTHERS = [
    (signal.SIGKILL, "alice", SECURE),
    (signal.SIGKILL, "bob", SERVER),
    (signal.SIGSTOP, "alice", SERVER),
    (signal.SIGSTOP, "bob", SECURE),
]


@pytest.mark.parametrize(
    ("fault", "victim", "combiner"),
    [*PAIRS, *(pytest.param(*other, marks=pytest.mark.slow) for other in OTHERS)],
)
def test_a_killed_or_frozen_party_is_named_by_the_others(job, combiner, victim, fault):
    made = running(job, 3, **combiner)
    made.send(victim, fault)
    left = [name for name in made.names if name != victim]
    assert made.end(*left, seconds=LIMIT) == dict.fromkeys(left, 4)
    for name in left:
        assert f"sign of life of {victim}" in made.log(name)
        assert f"--party {name} --resume" in made.log(name)
        assert "Traceback" not in made.log(name)


def test_a_party_that_wakes_up_hears_that_it_was_given_up(job):
    made = running(job)
    made.send("bob", signal.SIGSTOP)
    time.sleep(8)
    made.send("bob", signal.SIGCONT)
    assert set(made.end(seconds=LIMIT).values()) == {4}


def test_a_party_that_stands_still_for_a_moment_is_not_given_up(job):
    made = job(**{**LONG, "rounds": 8}).start()
    made.wait_for(STARTED, seconds=30)
    made.send("bob", signal.SIGSTOP)
    time.sleep(2)  # of 6 that are allowed
    made.send("bob", signal.SIGCONT)
    assert made.end(seconds=60) == {"alice": 0, "bob": 0}, made.log("alice")


@pytest.mark.parametrize("combiner", ROUTES, ids=["server", "secure"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "term"])
def test_an_interrupted_party_says_so(job, combiner, number):
    made = running(job, **combiner)
    made.send("bob", number)
    assert made.end(seconds=LIMIT) == {"alice": 5, "bob": 130}
    assert "bob was interrupted by its user" in made.log("alice")
    assert "Interrupted." in made.log("bob")
