"""The encoder normalises by itself: samples as they are stored, and training, agree."""

import io

import numpy as np
import pytest
import torch
from torch import nn

from orchestra_strategy import OrchestraModel, orchestra_model
from orchestra_strategy.algorithms.model import network_of
from orchestra_strategy.data import TableViews, build_views
from orchestra_strategy.errors import DataError
from orchestra_strategy.evaluation import extract_features

STILL = {
    "grey": dict.fromkeys(("rotation", "translation", "scale", "shear", "gain", "offset"), 0.0)
    | {"noise": 0.0},
    "colour": {"min_area": 1.0, "max_ratio": 1.0}
    | dict.fromkeys(("flip", "jitter", "grey", "blur", "blur_2", "solarise_2"), 0.0),
}


@pytest.mark.parametrize(("views", "channels"), [("grey", 1), ("colour", 3)])
def test_uint8_floats_and_training_agree(views, channels):
    torch.manual_seed(0)
    model = orchestra_model("conv4", channels).eval()
    x = torch.randint(256, (6, channels, 8, 8), dtype=torch.uint8)
    view = build_views(views, **STILL[views])(x, torch.Generator()).x1
    with torch.no_grad():
        trained_on = model.forward_orchestra(view)[0]
        for stored in (x, x / 255, x.double() / 255):
            torch.testing.assert_close(model(stored), trained_on, atol=1e-6, rtol=0)
    for stored in (x.numpy(), x.numpy() / 255, (x / 255).numpy()):
        np.testing.assert_allclose(extract_features(model, stored), trained_on, atol=1e-6, rtol=0)
    if channels == 1:
        torch.testing.assert_close(model(x[:, 0]), trained_on, atol=1e-6, rtol=0)


def test_tables_pass_as_they_are():
    torch.manual_seed(0)
    model, x = orchestra_model("mlp", 5).eval(), torch.randn(4, 5)
    view = TableViews(corruption=0.0, noise=0.0)(x, torch.Generator()).x1
    with torch.no_grad():
        assert torch.equal(model(x), model.forward_orchestra(view)[0])
        assert torch.equal(model(x.to(torch.uint8)), model.backbone(x.to(torch.uint8).float()))


@pytest.mark.parametrize(
    ("x", "got"),
    [
        (torch.full((1, 2, 2), 16.0), "float32 from 16 to 16"),
        (torch.full((1, 1, 2, 2), 255), "int64 from 255 to 255"),
        (torch.full((1, 3, 2, 2), -1.0), "float32 from -1 to -1"),
    ],
)
def test_what_is_no_sample_is_refused_with_what_takes_it(x, got):
    model = OrchestraModel(nn.Flatten(), 4).eval()
    with pytest.raises(DataError, match=rf"\[0, 1\], got {got}: .*`value_range`.*model.backbone"):
        model(x)
    with pytest.raises(DataError, match=rf"\[0, 1\], got {got}"):
        extract_features(model, x)
    model.train()(x)  # behaviour in training must not depend on values: see privacy


def test_uint16_is_told_of_like_others():
    with pytest.raises(DataError, match="got float32 from 4000 to 4000"):
        extract_features(nn.Flatten(), np.full((1, 2, 2), 4000, np.uint16))


def test_a_trace_does_not_keep_the_check_of_its_example():
    model = orchestra_model("conv4", 1).eval()
    x = torch.rand(2, 1, 8, 8)
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(model, x), buffer)
    again = torch.jit.load(io.BytesIO(buffer.getvalue()))
    torch.testing.assert_close(again(x[:1]), model(x[:1]), atol=1e-5, rtol=0)


def test_network_of():
    model = orchestra_model("conv4", 1)
    assert network_of(model) is model.backbone
    assert network_of(model.backbone) is model.backbone
