"""The encoder's files: what comes back, and files that are refused."""

import hashlib
import json
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load, load_file, save

from orchestra_strategy import load_encoder, orchestra_model
from orchestra_strategy.encoder_export import export_encoder
from orchestra_strategy.encoder_file import pack_encoder
from orchestra_strategy.errors import ModelError
from orchestra_strategy.exchange.weights import read_weights
from orchestra_strategy.trained_encoder import TrainedEncoder

OPTIONS = {
    **{"backbone": "conv4", "in_channels": 1, "norm": "batch", "hidden_dim": 8},
    **{"projection_dim": 4, "heads": ("predictor",)},
}


@pytest.fixture
def model():
    torch.manual_seed(3)
    model = orchestra_model(**OPTIONS)
    model.train()(torch.rand(8, 1, 8, 8))  # running statistics that are not the initial ones
    return model.eval()


@pytest.fixture
def folder(model, tmp_path):
    """Both files, without ONNX, which takes a second."""
    files = pack_encoder(read_weights(model), OPTIONS, 3, "fed_byol", 5)
    (tmp_path / "out").mkdir()
    for name, content in files.items():
        (tmp_path / "out" / name).write_bytes(content)
    return tmp_path / "out"


def test_the_same_encoder_comes_back_from_folder_or_file(model, tmp_path):
    options, folder = {"columns": ("a",), "image_size": np.int64(8)}, tmp_path / "out"
    export_encoder(folder, TrainedEncoder(model, OPTIONS, 3, "fed_byol", 5, options))
    x = torch.rand(4, 1, 8, 8)
    for where in (folder, str(folder), folder / "encoder.safetensors", folder / "encoder.json"):
        trained = load_encoder(where)
        assert torch.equal(trained.model(x), model(x))
        assert torch.equal(trained.model.projector(model(x)), model.projector(model(x)))
    assert (trained.seed, trained.strategy, trained.rounds) == (3, "fed_byol", 5)
    assert trained.options == OPTIONS
    assert trained.data_options == {"columns": ["a"], "image_size": 8}
    names = {"encoder.safetensors", "encoder.json", "encoder.onnx"}
    assert {path.name for path in folder.iterdir()} == names
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_any_program_reads_the_weights_by_the_names_of_the_state_dict(model, folder):
    state = {name: torch.from_numpy(w) for name, w in load_file(folder / WEIGHTS).items()}
    other = orchestra_model(**OPTIONS).eval()
    other.load_state_dict(state)
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(other(x), model(x))


def test_it_is_used_without_secretflow(model, folder, tmp_path):
    x = np.random.default_rng(0).random((4, 1, 8, 8), dtype=np.float32)
    np.save(tmp_path / "x.npy", x)
    program = (
        "import sys\n"
        "import numpy as np\n"
        "absent = ('secretflow', 'secretflow_fl', 'sfl', 'ray', 'spu', 'onnx')\n"
        "sys.modules.update({name: None for name in absent})\n"
        "import orchestra_strategy\n"
        "encoder = orchestra_strategy.load_encoder(sys.argv[1])\n"
        "assert not hasattr(orchestra_strategy, 'OrchestraFLModel')\n"
        "np.save(sys.argv[3], encoder.transform(np.load(sys.argv[2])))\n"
    )
    files = [folder, tmp_path / "x.npy", tmp_path / "features.npy"]
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, files)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        wanted = model(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(np.load(files[2]), wanted, atol=1e-6)


def test_the_control_is_the_model_before_training(folder):
    torch.manual_seed(3)
    want = orchestra_model(**OPTIONS).eval()
    torch.manual_seed(99)
    state = torch.get_rng_state()
    got = load_encoder(folder).untrained()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(got.parameters(), want.parameters()))


WEIGHTS, CONFIG = "encoder.safetensors", "encoder.json"
WEIGHT = "backbone.body.0.weight"


def with_arrays(change):
    """Return a function that changes the arrays of a folder, with a digest that fits."""

    def rewrite(folder):
        arrays = load((folder / WEIGHTS).read_bytes())
        change(arrays)
        (folder / WEIGHTS).write_bytes(save(arrays))
        digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
        with_config(weights_sha256=digest)(folder)

    return rewrite


def with_config(**changes):
    def rewrite(folder):
        told = {**json.loads((folder / CONFIG).read_text()), **changes}
        (folder / CONFIG).write_text(json.dumps(told))

    return rewrite


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_arrays(lambda a: a.pop(WEIGHT)), f"Expected an array `{WEIGHT}`"),
        (with_arrays(lambda a: a.update(more=np.zeros(2))), "Expected no array `more`"),
        (
            with_arrays(lambda a: a.update({WEIGHT: a[WEIGHT][:1].copy()})),
            r"float32 \(32, 1, 3, 3\), got float32 \(1, ",
        ),
        (with_arrays(lambda a: a.update({WEIGHT: a[WEIGHT] * np.nan})), "to be finite, got NaN"),
        (
            with_arrays(lambda a: a.update({WEIGHT: np.zeros(10**6, "f4")})),
            "bytes at most, got more",
        ),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"PK"), "the digest of `encoder.safeten"),
        (with_config(schema=2), "Expected schema 1, got 2"),
        (with_config(model={"backbone": "mlp"}), "KeyError: 'heads'"),
        (with_config(model={"heads": [], "backbone": "mpl"}), "did you mean `mlp`"),
        (with_config(model=3), "TypeError"),
        (with_config(weights_sha256="0"), "they are of two trainings"),
        (lambda folder: (folder / CONFIG).write_text("{"), "no JSON"),
        (lambda folder: (folder / CONFIG).write_text("[]"), "TypeError"),
        (lambda folder: (folder / WEIGHTS).unlink(), r"No such file .* with `out_dir` writes"),
        (lambda folder: (folder / CONFIG).unlink(), r"No such file .* with `out_dir` writes"),
    ],
)
def test_broken_files_are_refused_by_name(change, message, folder):
    change(folder)
    with pytest.raises(ModelError, match=message) as refused:
        load_encoder(folder)
    assert str(folder) in str(refused.value)


def test_weights_that_are_none_are_refused(folder):
    (folder / WEIGHTS).write_bytes(b"no tensors")
    with_config(weights_sha256=hashlib.sha256(b"no tensors").hexdigest())(folder)
    with pytest.raises(ModelError, match="SafetensorError"):
        load_encoder(folder)


def test_what_json_cannot_express_is_refused_before_anything_is_written(model, tmp_path):
    trained = TrainedEncoder(model, OPTIONS, 3, "orchestra", 5, {"columns": {1, 2}})
    with pytest.raises(ModelError, match="what JSON can express, got: a set"):
        export_encoder(tmp_path / "out", trained)
    assert not (tmp_path / "out").exists()
