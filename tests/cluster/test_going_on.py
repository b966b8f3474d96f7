"""Route server with ``on_bad_reply: leave_out``: the others go on without a party that is gone."""

import signal
import time

import pytest

from orchestra_strategy.checkpoints.round_files import RoundFiles

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def lenient(job, parties=4, **changed):
    limits = {"start_timeout": 150, "heartbeat": 0.5, "peer_timeout": 15}
    kept = {"checkpoint_dir": "kept-{party}", "keep_checkpoints": 1, "cluster": limits}
    made = job(parties, **{**kept, **changed})
    parameters = {**made.values["parameters"], "on_bad_reply": "leave_out"}
    made.values["parameters"] = {**parameters, **changed.get("parameters", {})}
    made.write()
    return made


def files(job, name):
    return RoundFiles(job.folder / f"kept-{name}" / f"party-{name}", name)


def wait_for_round(job, name, round_index, seconds=150):
    end = time.monotonic() + seconds
    while max(files(job, name).committed(), default=0) < round_index:
        job.start_again()
        assert time.monotonic() < end, job.log(name)
        assert job.processes[name].exitcode is None, job.log(name)
        time.sleep(0.05)


def test_three_of_four_go_on_and_the_fourth_comes_back(job):
    made = lenient(job, rounds=10_000)
    # Twice each starts its command anew. Alice does it as users' processes do, which import all
    # again; for the others' sake that would take most of the test.
    made.start("alice").start("bob", "carol", "dave", forks=True)
    wait_for_round(made, "carol", 2)
    made.send("carol", signal.SIGKILL)
    made.processes["carol"].join(10)
    gone = max(files(made, "carol").committed())
    wait_for_round(made, "alice", gone + 2)
    assert "Going on without carol" in made.log("bob")
    made.start("carol", more=["--resume"])
    wait_for_round(made, "carol", gone + 3)
    assert "carol is back" in made.log("bob")
    made.send("dave", signal.SIGTERM)
    assert made.end(seconds=60) == {"alice": 5, "bob": 5, "carol": 5, "dave": 130}
    last = min(max(files(made, name).committed()) for name in made.names)
    found = {name: files(made, name).offered()[0] for name in made.names}
    whole = {name: labels.get(last) for name, labels in found.items()}
    assert len({label.digest for label in whole.values()}) == 1
    rows = files(made, "bob").read(last)[1]["common"]["ledger"]
    without = [row["round"] for row in rows if row["left_out"] == ["carol"]]
    assert [row["round"] for row in rows] == list(range(1, last + 1))
    assert without == list(range(without[0], without[-1] + 1))
    assert gone <= without[0]
    assert without[-1] < last
    assert files(made, "carol").read(last)[1]["party"]["progress"]["left_out"].keys() >= set(
        range(gone + 1, without[-1] + 1)
    )
    for name in made.names:
        assert "Traceback" not in made.log(name)
