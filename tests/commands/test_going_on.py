"""When a job goes on without a party: what the settings allow, and what is run then."""

import argparse
from pathlib import Path

import pytest

from orchestra_strategy.cli import main
from orchestra_strategy.commands.cluster_job import ClusterJob
from orchestra_strategy.commands.going_on import with_all, without_lost
from orchestra_strategy.config import parse_config
from orchestra_strategy.errors import PeerLostError

JOB = """
rounds: 2
parties:
  alice: {address: "127.0.0.1:9801"}
  bob: {address: "127.0.0.1:9802"}
  carol: {address: "127.0.0.1:9803"}
data: "{party}.npy"
checkpoint_dir: kept
parameters: {on_bad_reply: leave_out}
"""


def lost(party):
    error = PeerLostError("gone")
    error.party = party
    return error


def given(*absent):
    return argparse.Namespace(
        job=Path("job.yaml"), party="alice", local=None, changes=["seed=3"], without=list(absent)
    )


def job(**changed):
    import yaml

    return parse_config(ClusterJob, {**yaml.safe_load(JOB), **changed})


def test_the_same_command_without_the_lost_party():
    again = without_lost(job(), given(), lost("bob"))
    assert again.arguments == [
        *("train", "job.yaml", "--party", "alice", "--resume", "--set", "seed=3"),
        *("--without", "bob"),
    ]
    assert "--without" not in with_all(given("bob")).arguments


@pytest.mark.parametrize(
    ("changed", "absent", "party"),
    [
        ({"parameters": {}}, (), "bob"),
        ({"parameters": {"on_bad_reply": "leave_out", "min_parties": 3}}, (), "bob"),
        ({"aggregator": "secure", "parameters": {}}, (), "bob"),
        ({"checkpoint_dir": None}, (), "bob"),
        ({}, (), "alice"),  # the server
        ({}, ("carol",), "bob"),
        ({}, (), None),
    ],
)
def test_settings_that_do_not_allow_it(changed, absent, party):
    assert without_lost(job(**changed), given(*absent), lost(party)) is None


@pytest.mark.parametrize(
    ("changes", "absent", "message"),
    [
        (["aggregator=secure", "parameters={}"], ["bob"], "sum among each other (`aggregator`)"),
        (["server=carol"], ["carol"], "got one whose server is carol"),
        (["checkpoint_dir=null"], ["bob"], "one without `checkpoint_dir`"),
        ([], ["bob", "carol"], "1 parties left where `min_parties` is 2"),
        ([], ["bbo"], "to be parties of the job, got 'bbo'; did you mean `bob`"),
    ],
)
def test_without_is_refused_by_name(tmp_path, capsys, changes, absent, message):
    (tmp_path / "job.yaml").write_text(JOB)
    arguments = [x for change in changes for x in ("--set", change)]
    arguments += [x for name in absent for x in ("--without", name)]
    assert main(["train", str(tmp_path / "job.yaml"), "--party", "alice", *arguments]) == 2
    assert message in capsys.readouterr().err
