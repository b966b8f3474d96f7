"""The encoder's file: what comes back, and files that are refused."""

import io
import json
import stat
import zipfile

import numpy as np
import pytest
import torch

from orchestra_strategy import orchestra_model
from orchestra_strategy.encoder_file import read_encoder, write_encoder
from orchestra_strategy.errors import ModelError

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
def path(model, tmp_path):
    write_encoder(tmp_path / "encoder.npz", model, OPTIONS, seed=3, strategy="fed_byol", rounds=5)
    return tmp_path / "encoder.npz"


def test_the_same_encoder_comes_back_from_file_or_folder(model, path):
    x = torch.rand(4, 1, 8, 8)
    for where in (path, path.parent, str(path)):
        trained = read_encoder(where)
        assert torch.equal(trained.model(x), model(x))
        assert torch.equal(trained.model.projector(model(x)), model.projector(model(x)))
    assert (trained.seed, trained.strategy, trained.rounds) == (3, "fed_byol", 5)
    assert trained.options == OPTIONS
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_control_is_the_model_before_training(path):
    torch.manual_seed(3)
    want = orchestra_model(**OPTIONS).eval()
    torch.manual_seed(99)
    state = torch.get_rng_state()
    got = read_encoder(path).untrained()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(got.parameters(), want.parameters()))


def rewritten(path, change):
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    change(arrays)
    np.savez(path, **arrays)
    return path


def about(arrays, **changes):
    told = {**json.loads(arrays["about.json"].tobytes()), **changes}
    arrays["about.json"] = np.frombuffer(json.dumps(told).encode(), np.uint8)


WEIGHT = "weights/backbone.body.0.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop(WEIGHT), "KeyError"),
        (
            lambda a: a.update({WEIGHT: a[WEIGHT][:1]}),
            r"float32 \(32, 1, 3, 3\), got float32 \(1, ",
        ),
        (lambda a: a.update({WEIGHT: a[WEIGHT] * np.nan}), "to be finite, got NaN"),
        (lambda a: a.update({WEIGHT: np.zeros(10**6, "f4")}), "1152 bytes at most, got more"),
        (lambda a: about(a, schema=2), "Expected schema 1, got 2"),
        (lambda a: about(a, model={"backbone": "mlp"}), "KeyError: 'heads'"),
        (lambda a: about(a, model={"heads": [], "backbone": "mpl"}), "did you mean `mlp`"),
        (lambda a: a.pop("about.json"), "KeyError"),
        (lambda a: a.update({"about.json": np.zeros(3, np.uint8)}), "no JSON"),
    ],
)
def test_a_broken_file_is_refused_by_name(change, message, path):
    with pytest.raises(ModelError, match=message) as refused:
        read_encoder(rewritten(path, change))
    assert str(path) in str(refused.value)


def test_what_is_no_archive_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"got: No such file or directory\. A training with `out_"):
        read_encoder(tmp_path)
    (tmp_path / "encoder.npz").write_bytes(b"PK")
    with pytest.raises(ModelError, match="BadZipFile"):
        read_encoder(tmp_path)


def test_pickles_are_never_read(path):
    class Trap:
        def __reduce__(self):
            return (print, ("run",))

    buffer = io.BytesIO()
    np.save(buffer, np.array([Trap()], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(path) as old:
        kept = {name: old.read(name) for name in old.namelist()}
    kept[f"{WEIGHT}.npy"] = buffer.getvalue()
    with zipfile.ZipFile(path, "w") as new:
        for name, content in kept.items():
            new.writestr(name, content)
    with pytest.raises(ModelError, match="allow_pickle=False"):
        read_encoder(path)
