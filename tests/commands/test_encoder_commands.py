"""``embed``, ``evaluate`` and ``export``, from the folder that a training has written."""

import json
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from federated_orchestra import FederatedOrchestraTrainer
from orchestra_strategy import fed_ndarray, load_encoder, orchestra_model, session
from orchestra_strategy.commands.yaml_file import parse_yaml
from orchestra_strategy.encoder_export import export_encoder
from orchestra_strategy.evaluation import extract_features
from orchestra_strategy.trained_encoder import TrainedEncoder
from tests.commands.jobs import JOB, status

RNG = np.random.default_rng(0)


def labelled(rows):
    """Grey images of two classes that differ in brightness."""
    y = np.arange(rows) % 2
    x = RNG.random((rows, 8, 8), dtype=np.float32) * 0.5 + 0.5 * y[:, None, None]
    return x.astype(np.float32), y


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a training, with labelled data beside it, and the trainer's own features."""
    folder = tmp_path_factory.mktemp("run")
    x, y = labelled(40)
    np.savez(folder / "train.npz", x=x, y=y)
    test_x, test_y = labelled(20)
    np.savez(folder / "test.npz", x=test_x, y=test_y)
    np.save(folder / "plain.npy", test_x)
    config = {**parse_yaml(JOB), "out_dir": str(folder / "out"), "progress": False}
    with session(["alice", "bob"], mode="debug") as devices:
        trainer = FederatedOrchestraTrainer(config, devices)
        trainer.train(fed_ndarray({d: labelled(40)[0] for d in devices}))
        features = trainer.embed(test_x)
        scores = trainer.evaluate(x, y, test_x, test_y, labels_per_class=(2, None), seeds=2)
    return folder, features, scores


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv"])
def test_embed_writes_the_trainers_features(trained, suffix, tmp_path, capsys):
    folder, features, _ = trained
    out = tmp_path / f"features{suffix}"
    assert status("embed", folder / "out", folder / "test.npz", "--out", out) == 0
    assert capsys.readouterr().out.endswith("features of 20 samples, 512 each\n")
    if suffix == ".csv":
        written = np.loadtxt(out, delimiter=",", skiprows=1, dtype=np.float32)
    else:
        written = np.load(out)
    if suffix == ".npz":
        assert written["y"].tolist() == (np.arange(20) % 2).tolist()
        written = written["x"]
    np.testing.assert_array_equal(written, features)


def test_evaluate_gives_the_trainers_numbers(trained, tmp_path, capsys):
    folder, _, scores = trained
    data = ("--train", folder / "train.npz", "--test", folder / "test.npz")
    few = ("--labels-per-class", "2", "all", "--draws", "2", "--seed", "42")
    arguments = ("evaluate", folder / "out" / "encoder.safetensors", *data, *few)
    assert status(*arguments, "--json", tmp_path / "scores.json") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("orchestra", "untrained", "pixels", "kNN"))
    written = json.loads((tmp_path / "scores.json").read_text())
    assert list(written) == ["orchestra", "untrained", "pixels"]
    for name, probes in scores.items():
        assert written[name]["all"]["values"] == list(probes["all"].values)
        assert written[name]["knn"]["values"] == list(probes["knn"].values)


def test_torchscript_takes_pixels_and_needs_nothing_of_ours(trained, tmp_path, capsys):
    folder, features, _ = trained
    out = tmp_path / "encoder.pt"
    assert status("export", folder / "out", "--out", out) == 0
    assert "float32 images (n, 1, height, width) in [0, 1] -> features (n, 512)" in (
        capsys.readouterr().out
    )
    x = torch.from_numpy(np.load(folder / "plain.npy"))[:, None]
    with torch.no_grad():
        np.testing.assert_allclose(torch.jit.load(out)(x).numpy(), features, atol=1e-5)


def test_weights_are_the_backbones(trained, tmp_path):
    folder, features, _ = trained
    out = tmp_path / "weights.pt"
    assert status("export", folder / "out", "--out", out, "--format", "weights") == 0
    model = orchestra_model("conv4", in_channels=1)
    model.backbone.load_state_dict(torch.load(out, weights_only=True))
    found = extract_features(model, np.load(folder / "plain.npy"))
    np.testing.assert_allclose(found, features, atol=1e-6)


def test_onnx_computes_the_trainers_features(trained, tmp_path, capsys):
    folder, features, _ = trained
    x = np.load(folder / "plain.npy")[:, None]
    out = tmp_path / "encoder.onnx"
    assert status("export", folder / "out", "--format", "onnx", "--out", out) == 0
    for file in (out, folder / "out" / "encoder.onnx"):
        (found,) = ReferenceEvaluator(onnx.load(file)).run(None, {"samples": x})
        np.testing.assert_allclose(found, features, atol=1e-5)


def test_onnx_that_cannot_be_is_refused_in_a_sentence(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnx", None)
    out = tmp_path / "encoder.onnx"
    assert status("export", trained[0] / "out", "--format", "onnx", "--out", out) == 1
    assert "Expected `onnx` to be installed" in capsys.readouterr().err
    assert not out.exists()


def test_the_folder_of_an_export_is_that_of_a_training(trained, tmp_path):
    folder, features, _ = trained
    encoder = load_encoder(folder / "out")
    np.testing.assert_array_equal(encoder.transform(np.load(folder / "plain.npy")), features)
    names = {"encoder.safetensors", "encoder.json", "encoder.onnx"}
    assert names < {path.name for path in (folder / "out").iterdir()}


def test_data_are_read_as_the_training_did(tmp_path):
    """Options of another kind of data are left out, and given ones go first."""
    options = {"backbone": "mlp", "in_channels": 2, "heads": ()}
    read = {"columns": ["a", "b"], "standardise": {"a": [1, 2], "b": [0, 1]}, "delimiter": ";"}
    trained = TrainedEncoder(orchestra_model(**options), options, 0, "orchestra", 1, read)
    export_encoder(tmp_path, trained)
    (tmp_path / "x.csv").write_text("id;b;a\n7;2;3\n8;4;5\n")
    (tmp_path / "comma.csv").write_text("b,a\n2,3\n4,5\n")
    np.save(tmp_path / "x.npy", np.float32([[1, 2], [2, 4]]))  # standardised already
    want = trained.transform(np.float32([[1, 2], [2, 4]]))
    for name, more in (
        ("x.csv", ()),
        ("comma.csv", ("--data-option", "delimiter=,")),
        ("x.npy", ()),
    ):
        out = tmp_path / "f.npy"
        assert status("embed", tmp_path, tmp_path / name, *more, "--out", out) == 0
        np.testing.assert_allclose(np.load(out), want, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("embed", "{run}", "nowhere"), "Expected data in `nowhere`, got no such file"),
        (("embed", "{data}", "{data}/plain.npy"), "Expected a trained encoder in"),
        (("embed", "{run}", "{data}/colour.npy"), "images of 1 channel(s), as the encoder was"),
        (("embed", "{run}", "{data}/plain.npy", "--out", "x.txt"), "`--out` to end in .npy, .npz"),
        (("embed", "{run}", "{data}/plain.npy", "--out", "no/x.npy"), "got no folder `no`"),
        (
            ("evaluate", "{run}", "--train", "{data}/train.npz", "--test", "{data}/plain.npy"),
            "plain.npy` to have labels, got none",
        ),
        (
            ("evaluate", "{run}", "--train", "{data}/train.npz", "--test", "{data}/train.npz"),
            "Expected `train_x` and `test_x` to be disjoint, got 40 of 40",
        ),
        (
            (
                *("evaluate", "{run}", "--train", "{data}/train.npz", "--test", "{data}/test.npz"),
                *("--labels-per-class", "some"),
            ),
            "`--labels-per-class` to be whole numbers from 1 on, or all, got 'some'",
        ),
        (("export", "{run}", "--out", "x.onnx"), "Expected `--out` to end in .pt, got `x.onnx`"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message, trained, tmp_path, monkeypatch, capsys):
    folder = trained[0]
    monkeypatch.chdir(tmp_path)
    np.save(folder / "colour.npy", np.zeros((4, 3, 8, 8), np.float32))
    filled = [a.format(run=folder / "out", data=folder) for a in arguments]
    assert status(*filled) in (1, 2)
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_of_tables(tmp_path, capsys):
    options = {"backbone": "mlp", "in_channels": 3, "heads": ()}
    model = orchestra_model(**options)
    export_encoder(tmp_path, TrainedEncoder(model, options, 0, "orchestra", 1))
    np.save(tmp_path / "table.npy", np.zeros((4, 3), np.float32))
    np.save(tmp_path / "wide.npy", np.zeros((4, 5), np.float32))
    out = ("--out", tmp_path / "f.npy")
    assert status("embed", tmp_path, tmp_path / "table.npy", *out) == 0
    assert status("embed", tmp_path, tmp_path / "wide.npy", *out) == 1
    assert "a table of 3 columns" in capsys.readouterr().err
    assert status("export", tmp_path, "--out", tmp_path / "e.pt") == 0
    assert "a float32 table (n, 3) -> features (n, 256)" in capsys.readouterr().out


def test_new_rows_of_a_table_need_no_labels_to_be_embedded(tmp_path, capsys):
    options = {"backbone": "mlp", "in_channels": 2, "heads": ()}
    reading = {
        "columns": ["age", "pay"],
        "label_column": "answer",
        "class_names": ["no", "yes"],
        "standardise": {"age": [40.0, 10.0], "pay": [2.0, 1.0]},
    }
    trained = TrainedEncoder(orchestra_model(**options), options, 0, "orchestra", 1, reading)
    export_encoder(tmp_path, trained)
    (tmp_path / "old.csv").write_text("age,pay,answer\n30,1,no\n50,3,yes\n40,2,no\n")
    (tmp_path / "new.csv").write_text("pay,age\n1,30\n3,50\n2,40\n")
    for name in ("old", "new"):
        out = ("--out", tmp_path / f"{name}.npz")
        assert status("embed", tmp_path, tmp_path / f"{name}.csv", *out) == 0
    old, new = np.load(tmp_path / "old.npz"), np.load(tmp_path / "new.npz")
    np.testing.assert_array_equal(new["x"], old["x"])
    assert (old.files, new.files) == (["x", "y"], ["x"])
    asked_for = ("--data-option", "label_column=replied")
    assert status("embed", tmp_path, tmp_path / "new.csv", *asked_for) == 1
    assert "to have the column `replied`" in capsys.readouterr().err
