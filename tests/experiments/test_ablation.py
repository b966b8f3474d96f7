"""A list of points is run, kept and shown; what is missing is run, and nothing else."""

import json

import pytest

from experiments.ablation import ablation_rows, main, point_setting
from experiments.settings import load_experiment
from orchestra_strategy.errors import DataError
from tests.experiments.test_cifar_experiments import TINY, config, folder  # noqa: F401 - fixtures


def test_points_are_run_once_on_held_out_images(folder, config, tmp_path, capfd):  # noqa: F811
    points = tmp_path / "points.json"
    calm = {
        "strategy": "orchestra_plus",
        "parameters": {"deg_length": 2.0, **TINY["only_for"]["orchestra"]},
    }
    points.write_text(json.dumps({"calm": calm, "plain": {"strategy": "fed_rotpred"}}))
    command = ["--data", str(folder), "--config", str(config), "--points", str(points)]
    command += ["--out", str(tmp_path / "out"), "--rounds", "1", "--held-out"]
    assert main([*command, "--only", "calm"]) == 0
    file = tmp_path / "out" / "runs" / "calm-0.json"
    run, time = json.loads(file.read_text()), file.stat().st_mtime_ns
    assert (run["point"], run["strategy"], run["parameters"]) == ("calm", *calm.values())
    assert [row["round"] for row in run["curve"]] == [1]
    assert run["cpu_seconds"] > 0
    assert main(command) == 0
    assert file.stat().st_mtime_ns == time
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in lines[-2:]] == ["| calm", "| plain"]
    assert run["alpha"] == load_experiment(str(config)).alpha
    assert main([*command, "--alpha", "1000"]) == 2
    assert "'alpha': 1000.0" in capfd.readouterr().err


def test_a_points_parameters_lie_over_the_presets():
    setting = load_experiment("cpu")
    name, own = point_setting(
        setting, {"strategy": "orchestra", "parameters": {"memory_size": 500}}
    )
    assert (name, own.only_for["orchestra"]["memory_size"]) == ("orchestra", 500)
    assert own.only_for["orchestra"]["num_local_clusters"] == 16
    _, plus = point_setting(setting, {"strategy": "orchestra_plus+secure"})
    assert plus.only_for["orchestra_plus"] == setting.only_for["orchestra"]
    with pytest.raises(DataError, match="to have `strategy` and perhaps `parameters`, got `lr`"):
        point_setting(setting, {"lr": 0.1})


def test_the_table_has_a_point_per_row_and_accuracies_by_round():
    def run(point, knn):
        curve = [{"round": r, "knn": knn, "linear": 0.5} for r in (5, 10)]
        return {"point": point, "curve": curve, "cpu_seconds": 60.0}

    headers, rows = ablation_rows([run("a", 0.3), run("b", 0.5), run("a", 0.4)])
    assert headers == [
        "point",
        "seeds",
        "kNN % at 5",
        "linear % at 5",
        "kNN % at 10",
        "linear % at 10",
        "CPU s",
    ]
    assert rows[0] == ["a", "2", "35.0 ± 7.1", "50.0 ± 0.0", "35.0 ± 7.1", "50.0 ± 0.0", "60"]
    assert rows[1][:3] == ["b", "1", "50.0"]
