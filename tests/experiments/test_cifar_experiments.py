import json
import re

import numpy as np
import pytest
from PIL import Image

from experiments.cifar import Images, make_split, read_cifar
from experiments.cifar_experiments import main, run_experiment
from experiments.cifar_report import spread, summary_rows
from experiments.settings import PRESETS, load_experiment
from orchestra_strategy.data import dirichlet_equal_parts
from orchestra_strategy.errors import DataError, ParameterError
from orchestra_strategy.strategies.registry import lookup_strategy

CLASSES = ("cat", "dog", "ship")
TINY = {
    "parties": 2,
    "samples_per_user": 16,
    "alpha": 0.5,
    "bank_size": 30,
    "test_size": 15,
    "rounds": 2,
    "eval_every": 1,
    "seeds": [0],
    "strategies": ["orchestra", "supervised"],
    "model": {"backbone": "conv4", "hidden_dim": 16, "projection_dim": 16},
    "parameters": {"batch_size": 8, "local_epochs": 1, "lr": 0.01, "views": "colour"},
    "only_for": {
        "orchestra": {"num_global_clusters": 4, "num_local_clusters": 2, "memory_size": 8}
    },
    "probes": ["sgd", "semi_supervised"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three classes of 8x8 images, each with a colour of its own."""
    root = tmp_path_factory.mktemp("cifar")
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 8)):
        for c, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 120, (8, 8, 3), dtype=np.uint8)
                pixels[..., c] += 100
                Image.fromarray(pixels).save(root / split / name / f"{i:03d}.png")
    return root


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.json"
    path.write_text(json.dumps(TINY))
    return path


def images(labels):
    return Images(np.zeros((len(labels), 3, 8, 8), np.uint8), np.asarray(labels))


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid_for_each_of_their_strategies(preset):
    setting = load_experiment(preset)
    for name in set(setting.strategies) - {"supervised"}:
        cls = lookup_strategy(name)
        cls.config_class(**{**setting.parameters, **setting.only_for.get(name, {})})


def test_the_cpu_preset_is_the_one_that_is_measured():
    setting = load_experiment("cpu")
    assert (setting.parties, setting.samples_per_user, setting.alpha) == (10, 500, 0.1)
    assert (setting.rounds, setting.model.backbone, len(setting.seeds)) == (10, "resnet8", 3)
    assert setting.parameters["local_epochs"] == 2
    assert setting.parameters["batch_size"] == 32
    assert setting.parameters["lr"] == 0.01


def test_parties_bank_and_test_share_no_image(config):
    labels = np.repeat(np.arange(3), 40)
    train = Images(
        np.arange(120, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 3, 8, 8), np.uint8),
        labels,
    )
    split = make_split(
        train, images(np.repeat(np.arange(3), 8)), CLASSES, load_experiment(str(config)), 0
    )
    ids = [part.x[:, 0, 0, 0] for part in (*split.parties, split.bank)]
    together = np.concatenate(ids)
    assert len(np.unique(together)) == len(together) == 2 * 16 + 30
    assert np.bincount(split.bank.y).tolist() == [10, 10, 10]
    assert np.bincount(split.test.y).tolist() == [5, 5, 5]


def test_what_is_held_out_is_of_the_training_set_and_nobody_elses(config):
    labels = np.repeat(np.arange(3), 40)
    pixels = np.arange(120, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 3, 8, 8), np.uint8)
    unseen = Images(np.full((24, 3, 8, 8), 200, np.uint8), np.repeat(np.arange(3), 8))
    setting = load_experiment(str(config), {"held_out": True})
    plain = make_split(Images(pixels, labels), unseen, CLASSES, load_experiment(str(config)), 0)
    split = make_split(Images(pixels, labels), unseen, CLASSES, setting, 0)
    ids = [part.x[:, 0, 0, 0] for part in (*split.parties, split.bank, split.test)]
    together = np.concatenate(ids)
    assert len(np.unique(together)) == len(together) == 2 * 16 + 30 + 15
    assert np.bincount(split.test.y).tolist() == [5, 5, 5]
    assert np.array_equal(split.bank.x, plain.bank.x)


def test_virtual_users_lie_one_after_the_other_in_their_party(config):
    setting = load_experiment(
        str(config), {"users_per_party": 2, "samples_per_user": 8, "bank_size": 12}
    )
    labels = np.repeat(np.arange(3), 40)
    split = make_split(images(labels), images(labels), CLASSES, setting, 3)
    users = dirichlet_equal_parts(labels, 4, 8, 0.5, 3)
    expected = np.concatenate([labels[users[2]], labels[users[3]]])
    assert split.parties[1].y.tolist() == expected.tolist()


def test_an_experiment_runs_reports_and_goes_on_where_it_was(folder, config, tmp_path, capfd):
    out = tmp_path / "out"
    assert main(["--data", str(folder), "--config", str(config), "--out", str(out)]) == 0
    assert "train-loss" not in capfd.readouterr().out  # the host's own prints
    results = json.loads((out / "results.json").read_text())
    by_name = {run["strategy"]: run for run in results["runs"]}
    assert [row["round"] for row in by_name["orchestra"]["curve"]] == [1, 2]
    assert [row["round"] for row in by_name["supervised"]["curve"]] == [1, 2]
    final = by_name["orchestra"]["final"]
    assert {"knn", "linear", "sgd", "semi_supervised_0.01", "semi_supervised_0.1"} <= set(final)
    assert by_name["orchestra"]["curve"][-1]["knn"] == final["knn"]
    assert by_name["orchestra"]["manifest"]
    # The classes differ in colour, so labels teach it: the reference is no stub.
    assert by_name["supervised"]["final"]["linear"] > 0.8
    html = (out / "report.html").read_text()
    for text in ("orchestra", "supervised", "untrained (control)", "kNN %", "data:image/png"):
        assert text in html
    # A second call runs nothing anew; another strategy is added; another setting is refused.
    times = {f: f.stat().st_mtime_ns for f in (out / "runs").iterdir()}
    setting = load_experiment(str(config), {"strategies": ["fed_rotpred", "orchestra+secure"]})
    more = run_experiment(setting, folder, out)
    done = [run["strategy"] for run in more["runs"]]
    assert done == ["fed_rotpred", "orchestra+secure", "orchestra", "supervised"]
    sums = {row["name"]: row for row in more["runs"][1]["manifest"]}["moments/S"]
    assert (sums["combine"], sums["to"]) == ("secure sum", "aggregator")
    with pytest.raises(ParameterError, match=r"^Expected `strategies` to hold .*, got 'a\+b'\.$"):
        load_experiment(str(config), {"strategies": ["a+b"]})
    (out / "report.html").unlink()
    assert main(["--report-only", "--config", str(config), "--out", str(out)]) == 0
    assert "fed_rotpred" in (out / "report.html").read_text()
    assert all(f.stat().st_mtime_ns == time for f, time in times.items())
    with pytest.raises(DataError, match="another `rounds`: choose another folder"):
        run_experiment(load_experiment(str(config), {"rounds": 3}), folder, out)


def test_the_table_has_means_and_spreads_best_first():
    def run(strategy, knn):
        final = {"knn": knn, "linear": 0.5, "clusters": {"nmi": 0.1, "ari": 0.1, "accuracy": 0.2}}
        ledger = [{"images_per_second": 100.0}]
        return {"strategy": strategy, "final": final, "ledger": ledger, "seconds": 60.0}

    control = {"untrained": {"knn": 0.2, "linear": 0.3}, "pixels": {"knn": 0.3, "linear": 0.3}}
    runs = [run("a", 0.30), run("a", 0.40), run("b", 0.50), run("b", 0.50)]
    headers, rows = summary_rows({"runs": runs, "controls": [control, control]})
    assert headers[:4] == ["", "seeds", "kNN %", "linear %"]
    assert [row[0] for row in rows] == ["b", "a", "untrained (control)", "pixels (control)"]
    assert rows[1][1:3] == ["2", "35.0 ± 7.1"]
    assert spread([0.123]) == "12.3"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "cpuu"], "preset or a JSON file, got 'cpuu'.*`cpu`"),
        (["--config", "smoke", "--rounds", "0"], "`rounds` to be greater than or equal to 1"),
    ],
)
def test_the_command_line_says_what_is_wrong(folder, tmp_path, capsys, arguments, message):
    assert main(["--data", str(folder), "--out", str(tmp_path), *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_report_of_nothing_is_refused(tmp_path, capsys):
    assert main(["--report-only", "--out", str(tmp_path)]) == 2
    assert "Expected finished runs" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path)])
    assert "--data is needed" in capsys.readouterr().err


def test_other_mistakes_are_refused(folder, tmp_path, config):
    with pytest.raises(ParameterError, match=r"`round`.*`rounds`"):
        load_experiment("smoke", {"round": 3})
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(DataError, match="to be JSON"):
        load_experiment(str(broken))
    with pytest.raises(DataError, match=r"nothing|exist|no "):
        read_cifar(tmp_path / "missing")
    train, test, names = read_cifar(folder)
    assert (len(train.y), len(test.y), names) == (120, 24, CLASSES)
    with pytest.raises(DataError, match=r"at least `num_parties` \* `size`"):
        make_split(train, test, names, load_experiment("cpu"), 0)
    with pytest.raises(DataError, match=r"for the bank.*lower `bank_size`"):
        make_split(train, test, names, load_experiment(str(config), {"bank_size": 120}), 0)
