"""The command, from a file of images to a report."""

import json
import runpy
import sys

import numpy as np
import pytest

from orchestra_strategy import cli
from orchestra_strategy.audit.attacks.table import ATTACKS
from orchestra_strategy.audit.settings import AuditConfig
from orchestra_strategy.commands import audit_command
from orchestra_strategy.errors import DataError
from tests.algorithms.tiny import images
from tests.audit.parties import PLAIN, SMALL, TINY
from tests.evaluation.test_html_report import Page


@pytest.fixture
def folder(tmp_path):
    np.savez(tmp_path / "party.npz", x=images(40).numpy(), y=np.arange(40) % 2)
    short = {**SMALL, "rounds": 1, "parameters": TINY}
    (tmp_path / "short.json").write_text(json.dumps(short))
    return tmp_path


def run(folder, *arguments):
    paths = ("--data", folder / "party.npz", "--config", folder / "short.json")
    cli.main(["audit", *map(str, (*paths, "--out", folder / "out")), *arguments])
    out = folder / "out"
    page = Page((out / "audit.html").read_text(encoding="utf-8"))
    assert page.open == []
    return json.loads((out / "audit.json").read_text()), page


def status(arguments):
    """The exit code, of the parser or of the command."""
    try:
        return cli.main(arguments)
    except SystemExit as stopped:
        return stopped.code


def test_the_help_has_the_defaults_of_the_settings():
    settings = AuditConfig()
    assert {name: getattr(settings, name) for name in audit_command.DEFAULTS} == (
        audit_command.DEFAULTS
    )
    assert list(ATTACKS) == list(audit_command.ATTACKS)


def test_the_command_writes_a_report(folder, capsys):
    report, page = run(folder)
    shown = capsys.readouterr().out
    first = shown.index("Verdicts")
    assert first < shown.index("What to do") < shown.index("What the server can learn")
    told = "- The party sends one averaged gradient of one batch each round; no privacy: "
    assert told in " ".join(shown[first:].split())
    assert "1 of 6: local_gradient, no privacy" in shown
    assert "…" not in shown  # all columns, in a window of 80 characters as well
    assert report["schema"] == 2
    assert (report["data"], report["sample_shape"]) == ("party.npz", [1, 8, 8])
    rows = [(r["user_type"], r["setting"]) for r in report["results"]]
    assert rows == [
        ("local_gradient", "no privacy"),
        ("local_gradient", "record level, epsilon 8"),
        ("local_update", "no privacy"),
        ("local_update", "record level, epsilon 8"),
        ("multiuser_aggregate", "no privacy"),
        ("multiuser_aggregate", "user level, epsilon 8"),
    ]
    for result in report["results"]:
        assert [auc["signal"] for auc in result["membership"]] == ["loss", "alignment"]
        assert all(auc["low"] <= auc["value"] <= auc["high"] for auc in result["membership"])
        assert [reply["attack"] for reply in result["replies"]] == ["span"]
        assert 0 <= result["utility"]["knn"] <= 1
        assert (result["epsilon"] is None) == (result["setting"] == "no privacy")
    assert report["limits"] == [t for t in page.of("p") if t in report["limits"]]
    assert "untrained (control)" in page.of("td")
    assert any("must not leave the party" in text for text in page.of("p"))
    assert page.of("h2")[:4] == ["Verdicts", "What to do", "Words", "All settings"]
    assert [tag for tag, _ in page.tags].count("img") == 3
    # Pictures stand with the numbers of the same kind of user.
    tags = [tag for tag, _ in page.tags if tag in ("h2", "img", "table")]
    own = tags[tags.index("img") - 1 : tags.index("img") + 2]
    assert own == ["h2", "img", "table"]


def test_without_labels_utility_is_not_compared(folder):
    np.savez(folder / "party.npz", x=images(40).numpy())
    report, page = run(folder, "--user-types", "local_update", "--privacy", "none")
    assert report["untrained"]["probe"] is None
    assert any("effective rank" in text for text in page.of("caption"))
    assert report["results"][0]["beats_untrained"] is None


def test_privacy_settings_from_the_command_line(folder, monkeypatch):
    """What is audited; that each setting has its row, the report above says."""
    asked = []

    def run_audit(_, config, *_more, **_named):
        asked.append(config)
        raise DataError("enough")

    monkeypatch.setattr("orchestra_strategy.audit.run.run_audit", run_audit)
    arguments = ("--user-types", "local_update", "--privacy", "none", "user", "record")
    paths = ("--data", str(folder / "party.npz"), "--out", str(folder / "out"))
    assert status(["audit", *paths, *arguments, "--noise", "1", "2", "--clip", "0.5"]) in (1, 2)
    assert asked[0].user_types == ("local_update",)
    assert list(asked[0].privacy) == [
        {},
        *({"privacy": "user", "noise_multiplier": z, "clip_norm": 0.5} for z in (1.0, 2.0)),
        *({"privacy": "record", "noise_multiplier": z, "clip_norm": 0.5} for z in (1.0, 2.0)),
    ]


def test_parameters_of_the_strategy_from_the_command_line(folder):
    names = ("--set", "lr=0.5", "--set", "views=grey")
    report, _ = run(folder, "--user-types", "local_update", "--privacy", "none", *names)
    assert report["config"]["parameters"] == {**TINY, "lr": 0.5, "views": "grey"}


def test_an_image_folder_in_colour(folder):
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(20):
        path = folder / "photos" / f"class{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    arguments = ("--data", str(folder / "photos"), "--user-types", "local_gradient")
    report, _ = run(folder, *arguments, "--privacy", "none", "--members", "8")
    assert report["sample_shape"] == [3, 8, 8]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "Expected data in `nowhere`, got no such file or folder"),
        (["--out", __file__], "Expected `--out` to be a folder, got the file"),
        (["--config", "nowhere"], "`--config` to be a JSON file, got `nowhere`: No such file"),
        (["--strategy", "x"], "`strategy` to be one that can be audited, got 'x'; known: `fed_"),
        (["--set", "temprature=1"], "got `temprature`; did you mean `temperature`"),
        (["--set", "lr={"], "Expected `--set lr` to be a JSON value, got {"),
        (["--noise", "1"], "Expected `--privacy` with `--noise`, got none; say what it protects"),
        (
            ["--privacy", "none", "--epsilon", "2"],
            "`--privacy` with `--epsilon` to name 'user' or 'record', got 'none' alone",
        ),
        (["--privacy", "none", "none", "--clip", "2"], "`--privacy` with `--clip` to name 'user'"),
        (
            ["--privacy", "users"],
            "Expected `privacy` to be 'none', 'user' or 'record', got 'users'",
        ),
        (["--privacy", "user", "--noise", "-1"], "`noise_multiplier` to be greater than 0, got -1"),
        (["--privacy", "user", "--norm", "batch"], "Expected a model without BatchNorm"),
        (["--images", "5"], "Expected `images` to be a multiple of 2, got 5"),
        (["--images", "five"], "argument --images: invalid int value: 'five'"),
        (["--imagess", "5"], "unrecognized arguments: --imagess 5"),
        (["--data-option", "image_size"], "`--data-option` to be name=value, got 'image_size'"),
        (["--data-option", "mode={"], "Expected `--data-option mode` to be a JSON value, got {"),
        (["--data-option", "mode=L"], "no reading options for scikit-learn's digits, got `mode`"),
        (["--import", "no.such.module"], "`--import` to name a module that can be imported, got"),
    ],
)
def test_bad_arguments_end_with_a_sentence(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert status(["audit", *arguments]) in (1, 2)  # of data or a model that cannot be used: 1
    told = capsys.readouterr().err
    assert told.startswith(("Expected ", "orchestra-fl"))
    assert "usage" not in told
    assert message in " ".join(told.split())
    assert not (tmp_path / "audit_out").exists()


def test_a_configuration_file_is_one_object(tmp_path, capsys):
    (tmp_path / "list.json").write_text("[1]")
    assert cli.main(["audit", "--data", "digits", "--config", str(tmp_path / "list.json")]) == 2
    assert "`--config` to hold one JSON object, got list" in " ".join(
        capsys.readouterr().err.split()
    )


@pytest.mark.parametrize("content", [b"\x89PNG\xff", b"{", b"[" * 60_000])
def test_a_configuration_file_that_cannot_be_read_is_named(tmp_path, capsys, content):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    assert cli.main(["audit", "--data", "digits", "--config", str(path)]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert f"Expected `--config` to be a JSON file, got `{path}`: " in told


def test_the_module_runs_too(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["audit", "--help"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("orchestra_strategy.audit", run_name="__main__")
    assert stopped.value.code == 0
    assert "--user-types" in capsys.readouterr().out


# ---- Tables, own strategies, reading options ---------------------------------------------------

OWN = """
from orchestra_strategy import FederatedStrategy, register_strategy
from orchestra_strategy.algorithms.simclr import SimCLRObjective
from orchestra_strategy.strategies.baselines import FedSimCLRStrategy


class OwnObjective(SimCLRObjective):
    pass


@register_strategy(strategy_name="own_for_audit", backend="torch")
class OwnStrategy(FedSimCLRStrategy):
    objective_class = OwnObjective
"""
ONE = ("--user-types", "local_gradient", "--privacy", "none")


def test_a_strategy_of_ones_own(folder, monkeypatch):
    (folder / "own_strategies_for_audit.py").write_text(OWN)
    monkeypatch.chdir(folder)
    (folder / "short.json").write_text(json.dumps({**SMALL, "rounds": 1, "parameters": PLAIN}))
    named = ("--import", "own_strategies_for_audit", "--strategy", "own_for_audit")
    report, _ = run(folder, *ONE, *named)
    assert [r["strategy"] for r in report["results"]] == ["own_for_audit"]


def test_a_table_is_told_column_by_column_in_its_own_units(folder):
    rng = np.random.default_rng(0)
    rows = zip(rng.normal(40, 10, 60), rng.normal(5e4, 1e4, 60), rng.choice(["a", "b"], 60))
    lines = [f"{age:.1f};{balance:.0f};{kind}" for age, balance, kind in rows]
    path = folder / "party.csv"
    path.write_text("\n".join(["age;balance;kind", *lines]))
    report, page = run(
        folder,
        *ONE,
        "--data",
        str(path),
        "--data-option",
        "delimiter=;",
        *("--data-option", 'categories={"kind": ["a", "b"]}'),
    )
    columns = {c["name"]: c for c in report["results"][0]["columns"]}
    assert list(columns) == ["age", "balance", "kind=a", "kind=b"]
    # Guessing the mean is off by about two thirds of a standard deviation.
    assert 2 < columns["age"]["guess"] < 15
    assert 2e3 < columns["balance"]["guess"] < 1.5e4
    assert "age" in page.of("td")
    assert "img" not in [tag for tag, _ in page.tags]


def test_every_reading_option_is_at_hand_and_a_misspelt_one_is_named(folder, capsys):
    path = folder / "party.csv"
    path.write_text("\n".join(["a,b,c,d,e", *(f"{i},{i % 7},1,{i % 3},2" for i in range(40))]))
    chosen = 'columns=["a", "b", "d", "e"]'
    report, _ = run(folder, *ONE, "--data", str(path), "--data-option", chosen)
    assert report["sample_shape"] == [4]
    wrong = ("--data", str(path), "--data-option", "colums=1", "--out", str(folder / "wrong"))
    assert status(["audit", *ONE, *wrong]) in (1, 2)
    assert "did you mean `columns`" in " ".join(capsys.readouterr().err.split())
