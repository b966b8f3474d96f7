"""The encoder in use: the same features by every way, and as a scikit-learn transformer."""

import io
import pickle
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from torch import nn

from orchestra_strategy import load_encoder, orchestra_model
from orchestra_strategy.encoder_export import export_encoder, to_onnx, to_torchscript
from orchestra_strategy.errors import DataError, ModelError
from orchestra_strategy.evaluation import extract_features
from orchestra_strategy.trained_encoder import TrainedEncoder

RNG = np.random.default_rng(0)


def encoder(backbone="conv4", in_channels=1, norm="batch", data_options=None):
    options = {"backbone": backbone, "in_channels": in_channels, "norm": norm}
    options |= {"hidden_dim": 8, "projection_dim": 4, "heads": ()}
    torch.manual_seed(1)
    model = orchestra_model(**options)
    with torch.no_grad():  # statistics and weights that are not the initial ones
        for name, tensor in model.backbone.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif name.endswith("running_mean"):
                tensor.uniform_(-0.2, 0.2)
    return TrainedEncoder(model, options, 0, "orchestra", 1, data_options)


def by_onnx(trained, x):
    return ReferenceEvaluator(onnx.load_from_string(to_onnx(trained)[0])).run(None, {"samples": x})


BACKBONES = [(b, n) for b in ("conv4", "resnet8", "resnet18") for n in ("batch", "group")]


@pytest.mark.parametrize(("backbone", "norm"), BACKBONES)
def test_onnx_and_torchscript_compute_the_same_for_images_of_any_size(backbone, norm):
    trained = encoder(backbone, 3, norm)
    run = ReferenceEvaluator(onnx.load_from_string(to_onnx(trained)[0])).run
    script = torch.jit.load(io.BytesIO(to_torchscript(trained)))
    for shape in ((1, 3, 8, 8), (3, 3, 28, 28), (2, 3, 13, 30)):
        x = RNG.random(shape, dtype=np.float32)
        wanted = trained.transform(x)
        atol = 1e-5 * max(1, np.abs(wanted).max())
        np.testing.assert_allclose(run(None, {"samples": x})[0], wanted, atol=atol)
        with torch.no_grad():
            np.testing.assert_allclose(script(torch.from_numpy(x)).numpy(), wanted, atol=atol)


def test_tables_pass_as_they_are():
    trained = encoder("mlp", 5)
    x = RNG.normal(size=(7, 5)).astype(np.float32) * 100
    np.testing.assert_allclose(by_onnx(trained, x)[0], trained.transform(x), rtol=1e-4, atol=1e-4)


def test_the_value_range_is_inside():
    trained = encoder(data_options={"value_range": [-1000, 3000]})
    hounsfield = RNG.integers(-2000, 4000, (4, 1, 16, 16))
    unit = (np.clip(hounsfield, -1000, 3000) + 1000) / 4000
    wanted = extract_features(trained.model, unit.astype(np.float32))
    np.testing.assert_allclose(trained.transform(hounsfield), wanted, atol=1e-6)
    np.testing.assert_allclose(by_onnx(trained, hounsfield.astype("f4"))[0], wanted, atol=1e-5)


def test_bytes_and_unit_floats_agree():
    x = RNG.integers(0, 256, (4, 8, 8), dtype=np.uint8)
    trained = encoder()
    np.testing.assert_allclose(trained.transform(x), trained.transform(x / 255), atol=1e-6)


def test_an_export_that_computes_something_else_is_refused(monkeypatch, tmp_path, caplog):
    """As one would that is not traced as it computes: here the scaling is left out of it."""
    trained = encoder()
    export_encoder(tmp_path, trained)
    assert (tmp_path / "encoder.onnx").exists()

    class Tricked(nn.Module):
        out_dim = 3

        def forward(self, x):
            return x.mean((1, 2, 3))[:, None] * (1.0 if torch.jit.is_tracing() else 2.0)

    trained.model.backbone = Tricked()
    with pytest.raises(ModelError, match="Expected ONNX to compute the encoder's features, got"):
        to_onnx(trained)
    with pytest.raises(ModelError, match="Expected TorchScript to compute"):
        to_torchscript(trained)
    export_encoder(tmp_path, trained)
    assert not (tmp_path / "encoder.onnx").exists()  # nor the old one
    assert "features, got others" in caplog.text
    assert "features, got others" in (tmp_path / "encoder.json").read_text()


def test_what_onnx_has_no_operation_for_is_told(tmp_path):
    class Strange(nn.Module):
        def forward(self, x):
            return torch.linalg.eigvals(x[:, 0, :4, :4]).real

    trained = encoder()
    trained.model.backbone = Strange()
    with pytest.raises(ModelError, match="Expected an encoder that ONNX can express, got"):
        to_onnx(trained)


def test_without_onnx_all_else_is_written_and_it_is_said(monkeypatch, tmp_path, caplog):
    monkeypatch.setitem(sys.modules, "onnx", None)
    trained = encoder()
    export_encoder(tmp_path, trained)
    assert "Expected `onnx` to be installed" in caplog.text
    assert "not written: Expected `onnx` to be installed" in (tmp_path / "encoder.json").read_text()
    x = RNG.random((2, 8, 8))
    np.testing.assert_array_equal(load_encoder(tmp_path).transform(x), trained.transform(x))
    assert {path.name for path in tmp_path.iterdir()} == {"encoder.json", "encoder.safetensors"}


def test_the_callers_generator_is_left_alone(tmp_path):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    trained = encoder()
    torch.set_rng_state(state)
    export_encoder(tmp_path, trained)
    load_encoder(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)


def test_it_is_a_step_of_a_pipeline():
    y = np.arange(40) % 2
    x = (RNG.random((40, 8, 8)) * 0.5 + 0.5 * y[:, None, None]).astype(np.float32)
    trained = encoder()
    weights = trained.model.backbone.body[0].weight.clone()
    pipeline = make_pipeline(trained, LogisticRegression())
    assert cross_val_score(pipeline, x, y, cv=4).min() == 1
    assert torch.equal(trained.model.backbone.body[0].weight, weights)
    for copy in (clone(trained), pickle.loads(pickle.dumps(trained))):
        np.testing.assert_array_equal(copy.transform(x), trained.transform(x))
    assert list(trained.get_feature_names_out()[:2]) == ["trainedencoder0", "trainedencoder1"]
    frame = clone(trained).set_output(transform="pandas").fit_transform(x)
    assert frame.shape == (40, 512)


def test_other_samples_are_refused():
    with pytest.raises(DataError, match=r"images of 1 channel.*got samples of shape \(3, 8, 8\)"):
        encoder().transform(np.zeros((2, 3, 8, 8), np.float32))
    with pytest.raises(DataError, match="a table of 5 columns"):
        encoder("mlp", 5).fit(np.zeros((2, 4)))
    with pytest.raises(DataError, match="the pixels in `x` to be uint8 or in"):
        encoder().transform(np.full((2, 8, 8), 16.0))
