"""A job's file and ``--set``: what is read, and what is refused with its line."""

import pytest
import yaml

from orchestra_strategy.commands.yaml_file import parse_yaml
from tests.commands.jobs import JOB, status, write_job


def printed(capsys, *arguments):
    assert status("manifest", *arguments, "--print-config") == 0, capsys.readouterr().err
    return yaml.safe_load(capsys.readouterr().out)


def test_all_settings_are_printed_and_make_the_same_job(tmp_path, capsys):
    values = printed(capsys, write_job(tmp_path))
    assert values["rounds"] == 2
    assert values["model"]["projection_dim"] == 512  # a default
    assert values["parameters"]["lr"] == 0.01  # 1e-2, a word in YAML 1.1
    assert values["parameters"]["momentum"] == 0.9
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(values))
    assert printed(capsys, again) == values


def test_set_changes_a_setting(tmp_path, capsys):
    job = write_job(tmp_path)
    changes = ("--set", "rounds=7", "--set", "parameters.lr=1e-3", "--set", "model.norm=group")
    values = printed(capsys, job, *changes)
    assert (values["rounds"], values["parameters"]["lr"]) == (7, 0.001)
    assert values["model"] == {**values["model"], "norm": "group", "backbone": "conv4"}
    assert printed(capsys, job, "--set", "data_options.image_size=8")["data_options"] == {
        "image_size": 8
    }


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rounds: 2", "roundz: 2", "`{job}`, line 1: Expected a parameter of a job, got `roundz`"),
        ("rounds: 2", "roundz: 2", "did you mean `rounds`?"),
        ("rounds: 2", "rounds: 0", "line 1: Expected `rounds` to be greater than or equal to 1"),
        ("rounds: 2", "rounds: two", "line 1: Expected `rounds` to be a valid integer, got 'two'"),
        ("backbone:", "backbon:", "line 3: Expected a parameter of `model`, got `backbon`; did"),
        ("  lr:", "  rl:", "line 8: Expected a parameter of strategy `orchestra`, got `rl`"),
        ("lr: 1e-2", "lr: -1", "line 8: Expected `lr` to be greater than 0, got -1."),
        ("lr: 1e-2", "views: gray", "line 8: Expected `views` to be a known name, got 'gray'"),
        ("lr: 1e-2", "payload_bits: 7", "line 8: Expected `payload_bits` to be 4, 8, 16 or None"),
        ("lr: 1e-2", "view_options: {turn: 1}", "line 8: Expected the options of views `grey`"),
        ("rounds: 2", "strategy: orchestre", "line 1: Expected `strategy` to be a registered one"),
        ("rounds: 2", "rounds: 2\nrounds: 3", "line 2: Expected `rounds` once, got it in line 1"),
        ("rounds: 2", "rounds: [2", "line 2: Expected YAML, got expected ',' or ']'"),
        ("rounds: 2", "rounds: &a 2\nseed: *a", "line 2: Expected YAML, got an alias (`*`)"),
        ("rounds: 2", "2: rounds", "line 1: Expected a name before the colon, got '2'"),
        ("rounds: 2", "out_dir: ''", "line 1: Expected `out_dir` to name a folder, got ''"),
        (JOB, "", "to hold settings by name, got nothing"),
        (JOB, "- 1", "to hold settings by name, got list"),
        (JOB, "a: " + "[" * 5000, "nested too deep"),
    ],
)
def test_a_wrong_setting_is_named_with_its_line(old, new, message, tmp_path, capsys):
    job = write_job(tmp_path, JOB.replace(old, new))
    assert status("manifest", job) == 2
    assert message.format(job=job) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("rounds", "Expected `--set` to be name=value, got 'rounds'"),
        ("rounds=0", "`--set rounds`: Expected `rounds` to be greater than or equal to 1, got 0"),
        ("model.backbon=mlp", "`--set model.backbon`: Expected a parameter of `model`"),
        ("rounds.x=1", "to change a setting within `rounds`, which is 2 and has none"),
        ("parameters.lr=[", "Expected the value of `--set parameters.lr` to be YAML, got '['"),
        ("parameters.lr=0", "`--set parameters.lr`: Expected `lr` to be greater than 0, got 0"),
    ],
)
def test_a_wrong_change_is_named(change, message, tmp_path, capsys):
    assert status("manifest", write_job(tmp_path), "--set", change) == 2
    assert message in capsys.readouterr().err


def test_all_that_is_wrong_is_told_at_once(tmp_path, capsys):
    job = write_job(tmp_path, JOB.replace("rounds: 2", "rounds: 0").replace("backbone", "backbon"))
    assert status("manifest", job) == 2
    told = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[0] for line in told] == [f"`{job}`, line 3", f"`{job}`, line 1"]


def test_files_that_are_not_there_or_no_text(tmp_path, capsys):
    assert status("manifest", tmp_path / "nowhere.yaml") == 2
    assert "nowhere.yaml`, got: No such file" in capsys.readouterr().err
    (tmp_path / "job.yaml").write_bytes(b"\xff\xfe\x00")
    assert status("manifest", tmp_path / "job.yaml") == 2
    assert "Expected YAML, got bytes that are no UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("1e-3", 0.001), ("1.5", 1.5), (".5", 0.5), ("-2E4", -2e4), ("3", 3), ("0x1f", 31)),
        *(("e1", "e1"), ("1e", "1e"), (".", "."), ("true", True), ("null", None), ("'1'", "1")),
    ],
)
def test_numbers_are_numbers(text, value):
    parsed = parse_yaml(text)
    assert (parsed, type(parsed)) == (value, type(value))
