"""The demo's setting for any strategy and way, one line each in the table."""

import json

import pytest

from experiments import digits
from experiments.digits import main, setting, table


def test_a_strategy_has_those_of_the_demos_parameters_that_it_knows():
    config, way = setting("fed_simclr+float16", 7, 2)
    assert (config["strategy"], config["seed"], way) == ("fed_simclr", 7, "float16")
    assert config["parameters"] == {
        "batch_size": 32,
        "local_epochs": 3,
        "lr": 0.01,
        "payload_dtype": "float16",
    }
    config, way = setting("orchestra_plus", 7, 2)
    assert (config["parameters"]["num_global_clusters"], way) == (32, "server")
    with pytest.raises(ValueError, match=r"server, secure, float16 in 'orchestra\+spu', got 'spu'"):
        setting("orchestra+spu", 7, 2)


def test_the_table_has_a_line_for_each_and_of_two_the_difference():
    def run(name, one):
        return {"name": name, "accuracy": {"1": one, "knn": 50.0}}

    lines = table([run("a", 60.0), run("b", 63.0), run("a", 62.0), run("b", 65.0)]).split("\n")
    assert [line.split() for line in lines] == [
        ["1", "knn"],
        ["a", "61.0", "+-", "1.0", "50.0", "+-", "0.0"],
        ["b", "64.0", "+-", "1.0", "50.0", "+-", "0.0"],
        ["gain", "+3.0", "+0.0"],
    ]


def test_a_round_of_each_way_is_trained_and_kept(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(digits, "LABELS", (1,))
    few = tuple(a[:200] for a in digits.load_data())
    monkeypatch.setattr(digits, "load_data", lambda: few)
    out = tmp_path / "digits.json"
    names = ["fed_rotpred", "fed_rotpred+secure"]
    main(["--strategies", *names, "--seeds", "1", "--rounds", "1", "--out", str(out)])
    kept = json.loads(out.read_text())
    assert [run["name"] for run in kept["runs"]] == names
    first, second = (run["accuracy"] for run in kept["runs"])
    assert first == pytest.approx(second, abs=3)  # fixed point on the way, and nothing else
    assert "gain" in capsys.readouterr().out
