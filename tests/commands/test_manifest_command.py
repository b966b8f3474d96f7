"""The manifest from the command line is the one of the training."""

import json
import subprocess
import sys

import pytest

from federated_orchestra import FederatedOrchestraTrainer
from orchestra_strategy import session
from orchestra_strategy.commands.yaml_file import parse_yaml
from tests.commands.jobs import JOB, status, write_job


def test_it_is_that_of_the_training(tmp_path, capsys):
    assert status("manifest", write_job(tmp_path), "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    config = parse_yaml(JOB)
    config["parameters"]["streams"] = "secret"
    with session(["alice", "bob"], mode="debug") as devices:
        trained = FederatedOrchestraTrainer(config, devices).setup_model().manifest()
    assert rows == json.loads(json.dumps(trained))


def test_a_table_without_stray_lines(tmp_path):
    command = [sys.executable, "-m", "orchestra_strategy", "manifest", write_job(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.startswith("Upload manifest ")
    assert "weights/*" in done.stdout


def test_the_secure_route_names_the_aggregator(tmp_path, capsys):
    names = ("--parties", "a", "b", "c", "--server", "carol", "--secure")
    assert status("manifest", write_job(tmp_path), *names, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert "aggregator" in {row["to"] for row in rows}
    assert any("carol" in row["seen_by"] for row in rows)


def test_a_job_for_several_machines_says_who_takes_part(tmp_path, capsys):
    parties = "".join(f"  {n}: {{address: 'h{i}:1'}}\n" for i, n in enumerate(("xu", "yan", "zoe")))
    job = write_job(
        tmp_path, f"{JOB}parties:\n{parties}server: yan\ncluster: {{plain_text: true}}\n"
    )
    assert status("manifest", job, "--json") == 0
    seen = {row["seen_by"] for row in json.loads(capsys.readouterr().out)}
    assert any("yan" in who for who in seen)
    assert not any("alice" in who for who in seen)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--parties", "alice"), "Expected `device_list` to have at least two parties, got 1"),
        (("--parties", "alice", "alice"), "Expected `parties` to be different names"),
        (("--import", "no.such.module"), "`--import` to name a module that can be imported"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message, tmp_path, capsys):
    assert status("manifest", write_job(tmp_path), *arguments) in (1, 2)
    assert message in capsys.readouterr().err
