"""``secretflow component run`` in a process for each party: what comes out, and how it ends."""

import signal

import pytest
from secretflow_spec.v1.report_pb2 import Report

from tests.component.inputs import PARTIES, embed_call, train_call, write_table
from tests.component.party_command import Task, addresses_of, outputs, start, told

pytestmark = pytest.mark.cluster
SOON = {"waiting/start_timeout": 20.0, "waiting/heartbeat": 0.3, "waiting/peer_timeout": 4.0}
LONG = {"rounds": 2000, **SOON}


@pytest.fixture
def task(tmp_path):
    made = []

    def make(backend="grpc", parties=PARTIES):
        made.append(Task(tmp_path, backend, parties))
        return made[-1]

    yield make
    for one in made:
        one.close()


def table_of(report, name):
    found = Report()
    report.meta.Unpack(found)
    return next(tab for tab in found.tabs if tab.name == name).divs[0].children[0].table


def losses(report):
    return [[item.f for item in row.items[1:]] for row in table_of(report, "losses").rows]


def test_the_real_command_over_brpc(tmp_path):
    """Kuscia's default backend, in processes that import all by themselves."""
    tables = [write_table(tmp_path / party, party) for party in PARTIES]
    call, addresses = train_call(tables, **SOON), addresses_of(PARTIES)
    running = [start(tmp_path, p, call, addresses, "brpc_link") for p in PARTIES]
    try:
        codes = [process.wait(120) for process in running]
    finally:
        for process in running:
            process.kill()
    assert codes == [0, 0], (tmp_path / "alice.log").read_text(encoding="utf-8")[-3000:]
    each = [outputs(tmp_path, party) for party in PARTIES]
    assert len(losses(each[0][1])) == 2
    assert losses(each[0][1]) == losses(each[1][1])
    copies = {
        (tmp_path / ref.party / ref.uri).read_bytes()
        for ref in each[0][0].data_refs
        if ref.format == "safetensors"
    }
    assert len(copies) == 1


def test_over_grpc_with_a_party_that_has_no_table(task, tmp_path):
    made = task("grpc", parties=("carol", *PARTIES))
    call = train_call(made.tables, **SOON, combiner="secure", server=["carol"])
    made.start(call)
    assert made.end(seconds=90) == dict.fromkeys(("carol", *PARTIES), True), made.log("alice")
    model, report = outputs(tmp_path, "alice")
    assert {ref.party for ref in model.data_refs} == set(PARTIES)
    assert losses(report) == losses(outputs(tmp_path, "carol")[1])
    told_to = {row.items[-1].s for row in table_of(report, "manifest").rows}
    assert "carol, alice, bob: each party's, as every party's process is a driver" in told_to
    made.start(embed_call(model, made.tables[1]))
    assert made.end(seconds=60) == dict.fromkeys(("carol", *PARTIES), True), made.log("bob")
    assert (tmp_path / "bob" / "features").exists()
    assert not (tmp_path / "alice" / "features").exists()


@pytest.mark.parametrize(
    ("backend", "number"),
    [("brpc_link", signal.SIGKILL), ("grpc", signal.SIGSTOP)],
    ids=["killed", "frozen"],
)
def test_a_lost_party_is_named(task, tmp_path, backend, number):
    made = task(backend)
    made.start(train_call(made.tables, **LONG)).wait_for("alice", "round   1/")
    made.send("bob", number)
    assert made.end("alice", seconds=30) == {"alice": False}  # which waits no longer
    assert "Expected a sign of life of bob every 0.3 s" in told(tmp_path, "alice")["error_msg"]


def test_a_party_whose_task_is_stopped_tells_the_others(task, tmp_path):
    made = task()
    made.start(train_call(made.tables, **LONG)).wait_for("alice", "round   1/")
    made.send("alice", signal.SIGTERM)
    assert made.end(seconds=30) == {"alice": False, "bob": False}
    assert "This party's task was stopped" in told(tmp_path, "alice")["error_msg"]
    assert "alice was interrupted by its user" in told(tmp_path, "bob")["error_msg"]


def test_other_settings_at_a_party_are_named_at_all(task, tmp_path):
    made = task("brpc_link")
    made.start(train_call(made.tables, **SOON), "alice")
    made.start(train_call(made.tables, **SOON, lr=0.5), "bob")
    assert made.end(seconds=60) == {"alice": False, "bob": False}
    for party in PARTIES:
        assert "`lr`: alice 0.003, bob 0.5" in told(tmp_path, party)["error_msg"]


@pytest.mark.parametrize("backend", ["grpc", "brpc_link"])
def test_a_party_that_has_stopped_before_is_not_waited_for_longer_than_the_limit(
    task, tmp_path, backend
):
    made = task(backend)
    limits = {**SOON, "waiting/start_timeout": 5.0}
    made.start(train_call(made.tables, **limits), "alice")
    made.start(train_call(made.tables, **limits, lr=0.0), "bob")  # SecretFlow's own refusal
    assert made.end(seconds=40) == {"alice": False, "bob": False}
    assert "bob to come to " in told(tmp_path, "alice")["error_msg"]
