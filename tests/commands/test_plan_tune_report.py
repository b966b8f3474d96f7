"""``plan``, ``tune`` and ``report`` say what a training does, or has done."""

import json

import numpy as np
import pytest

from federated_orchestra import FederatedOrchestraTrainer
from orchestra_strategy import fed_ndarray, session
from orchestra_strategy.commands.yaml_file import parse_yaml
from orchestra_strategy.privacy import Release, find_noise_multiplier
from tests.commands.jobs import JOB, status, write_job
from tests.evaluation.test_html_report import Page

RNG = np.random.default_rng(0)
SAMPLES = {"alice": 40, "bob": 25}
PRIVATE = (
    *("--set", "parameters.privacy=record", "--set", "model.norm=group"),
    *("--set", "parameters.noise_multiplier=2", "--set", "strategy=fed_rotpred"),
)
# Of a baseline: it has no clusters.
CLUSTERS = ("num_global_clusters", "num_local_clusters", "memory_size")
PLAIN = "".join(line + "\n" for line in JOB.splitlines() if not line.strip().startswith(CLUSTERS))


def trained(folder, **changes):
    """The results of a training of JOB, written to a folder."""
    config = {**parse_yaml(JOB), "out_dir": str(folder), "progress": False, **changes}
    with session(list(SAMPLES), mode="debug") as devices:
        trainer = FederatedOrchestraTrainer(config, devices)
        images = {d: RNG.random((SAMPLES[d.party], 8, 8), dtype=np.float32) for d in devices}
        return trainer.train(fed_ndarray(images))


def planned(capsys, *arguments):
    given = [word for name, n in SAMPLES.items() for word in ("--samples", f"{name}={n}")]
    assert status("plan", *arguments, *given, "--json") == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_a_plan_has_the_bytes_of_the_training(tmp_path, capsys):
    plan = planned(capsys, write_job(tmp_path))
    results = trained(tmp_path / "out")
    up = [r for r in results.manifest if r["when"] in ("round", "both") and r["to"] != "driver"]
    assert plan["bytes_per_round"] == sum(r["bytes"] for r in up)
    assert plan["rounds"] == results.rounds == 2
    assert {n: p["steps_per_round"] for n, p in plan["parties"].items()} == {"alice": 3, "bob": 2}


def test_a_plan_has_the_epsilon_of_the_training(tmp_path, capsys):
    plan = planned(capsys, write_job(tmp_path, PLAIN), *PRIVATE)
    config = parse_yaml(PLAIN)
    config["model"]["norm"] = "group"
    config["parameters"] |= {"privacy": "record", "noise_multiplier": 2.0}
    results = trained(tmp_path / "out", **config, strategy="fed_rotpred")
    largest = max(party["epsilon"] for party in plan["parties"].values())
    assert results.epsilon == pytest.approx(largest, rel=1e-9)


def test_a_plan_tells_of_a_budget_that_ends_the_training(tmp_path, capsys):
    more = ("--set", "parameters.max_epsilon=20", "--set", "rounds=500")
    plan = planned(capsys, write_job(tmp_path, PLAIN), *PRIVATE, *more)
    for party in plan["parties"].values():
        assert 0 < party["rounds_within_budget"] < 500
        assert party["epsilon"] <= 20
    job = write_job(tmp_path, PLAIN)
    assert status("plan", job, "--samples", "alice=40", *PRIVATE, *more) == 0
    assert "rounds, all that the budget allows" in capsys.readouterr().out


def test_a_plan_tells_what_signal_a_budget_leaves(tmp_path, capsys):
    """The noise is that of the training; its norm is worked out by hand."""
    job = write_job(tmp_path, PLAIN)
    more = ("--set", "strategy=fed_rotpred", "--set", "model.norm=group")
    wanted = ("--users", 1000, "--epsilon", 8, "--parties", 5)
    assert status("plan", job, *more, *wanted, "--json") == 0
    signal = json.loads(capsys.readouterr().out)["signal"]
    z = find_noise_multiplier(lambda z: {Release(z): 1}, 8.0, 1e-5, rounds=2)
    assert signal["noise_multiplier"] == pytest.approx(z)
    by_hand = (5 * signal["weights"]) ** 0.5 * z / 1000
    assert signal["noise_over_clip"] == pytest.approx(by_hand)
    assert status("plan", job, *more, *wanted) == 0
    assert f"is {by_hand:.3g} times the clip" in capsys.readouterr().out


def test_a_plan_knows_of_shared_noise(tmp_path, capsys):
    job = write_job(tmp_path, PLAIN)
    more = ("--set", "strategy=fed_rotpred", "--set", "model.norm=group", "--secure")
    wanted = ("--users", 1000, "--epsilon", 8, "--parties", 5, "--samples")
    wanted = (*wanted, *(f"{name}=10" for name in "abcde"), "--json")
    over = {}
    for noise in ("local", "shared"):
        assert (
            status(
                "plan",
                job,
                *more,
                "--set",
                f"parameters.noise={noise}",
                "--set",
                "parameters.privacy=user",
                "--set",
                "parameters.noise_multiplier=2",
                *wanted,
            )
            == 0
        ), capsys.readouterr().err
        over[noise] = json.loads(capsys.readouterr().out)["signal"]["noise_over_clip"]
    # Five parties with all of the noise each; or four quarters and what the colluding one adds.
    assert over["local"] == pytest.approx(over["shared"] * (5 / 1.25) ** 0.5)


def test_a_plan_needs_samples_or_users_and_what_fits_them(tmp_path, capsys):
    job = write_job(tmp_path, PLAIN)
    assert status("plan", job) == 2
    assert "Expected `--samples` or `--users`, got neither" in capsys.readouterr().err
    assert status("plan", job, "--users", 10) == 2
    assert "Expected `--epsilon` with `--users`" in capsys.readouterr().err
    assert status("plan", job, "--users", 1, "--epsilon", 8) == 2
    assert "at least the number of parties, got 1 users of 2" in capsys.readouterr().err
    assert status("plan", job, "--users", 10, "--epsilon", -1) == 2
    assert "Expected `--epsilon` to be a positive number, got -1." in capsys.readouterr().err
    assert status("plan", job, "--samples", "alice=40", "--epsilon", 8) == 2
    assert "Expected `--users` with `--epsilon`, got none" in capsys.readouterr().err
    assert status("plan", write_job(tmp_path, PLAIN), *PRIVATE, "--users", 10, "--epsilon", 8) == 2
    assert "a job that protects users, got one with privacy='record'" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["alice", "alice=0", "alice=x", "=3"])
def test_samples_are_numbers(given, tmp_path, capsys):
    assert status("plan", write_job(tmp_path), "--samples", given) == 2
    assert (
        f"Expected `--samples` to be name=number, 1 or more, once for each party, got {given!r}"
        in (capsys.readouterr().err)
    )


@pytest.fixture
def parties(tmp_path):
    for name, n in SAMPLES.items():
        np.save(tmp_path / f"{name}.npy", RNG.random((n, 8, 8), dtype=np.float32))
    return str(tmp_path / "{party}.npy")


def test_tune_ranks_the_grid_and_goes_on_where_it_was(tmp_path, parties, capsys):
    grid = ("--grid", "lr=[0.001, 0.01]", "--trial-rounds", 1, "--out", tmp_path / "trials")
    arguments = ("tune", write_job(tmp_path), "--data", parties, *grid)
    assert status(*arguments) == 0
    first = capsys.readouterr()
    assert "trial 2/2" in first.err
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "trials").iterdir()}
    scores = {}
    for path in files:
        trial = json.loads(path.read_text())
        scores[trial["parameters"]["lr"]] = trial["alignment"] + trial["uniformity"]
    best = min(scores, key=scores.get)
    assert f"The best: --set parameters.lr={best}\n" in first.out
    assert status(*arguments) == 0
    assert capsys.readouterr().out == first.out
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "trials").iterdir()} == files


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Expected `--grid` at least once, got none"),
        (("--grid", "lr"), "Expected `--grid` to be name=value, got 'lr'"),
        (("--grid", "lr=[0.1"), "Expected the value of `--grid lr` to be YAML"),
        (("--grid", "lr=0.1"), "Expected `grid` to have a list of values for `lr`, got 0.1"),
        (("--grid", "lr=[-1]"), "Expected `lr` to be greater than 0, got -1"),
        (("--grid", "rl=[1]"), "got `rl`"),
        (("--grid", "lr=[0.1]", "--data", "no/{party}.npy"), "no such file or folder"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(arguments, message, tmp_path, parties, capsys):
    more = () if "--data" in arguments else ("--data", parties)
    assert status("tune", write_job(tmp_path), *arguments, *more) in (1, 2)
    assert message in capsys.readouterr().err


def test_tune_needs_data(tmp_path, capsys):
    assert status("tune", write_job(tmp_path), "--grid", "lr=[0.1]") == 2
    assert "Expected `--data` to be the path of the parties' data" in capsys.readouterr().err


def test_a_report_has_curves_cost_and_manifest(tmp_path, capsys):
    results = trained(tmp_path / "out")
    assert status("report", tmp_path / "out") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out' / 'report.html'}\n"
    page = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert page.open == []
    assert page.of("h2") == ["In short", "Curves", "What left each party", "Cost", "Settings"]
    cells = page.of("td")
    assert all(row["name"] in cells for row in results.manifest)
    assert f"{results.history['train_loss'][-1]:.4g}" in cells
    assert [tag for tag, _ in page.tags].count("img") == len(results.history)
    assert {"parameters.memory_size", "model.backbone"} <= set(cells)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "got: No such file or directory. A training with `out_dir` writes them"),
        (b"{", "got: no JSON"),
        (b"[]", "got none of `history`"),
        (b'{"history": {}}', "got none of `ledger`"),
    ],
)
def test_a_folder_without_results_is_refused(content, message, tmp_path, capsys):
    if content is not None:
        (tmp_path / "results.json").write_bytes(content)
    assert status("report", tmp_path) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()
