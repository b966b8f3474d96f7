"""Samples and networks that do not fit: refused by their shapes alone, with the number to use."""

import pytest
import torch
from torch import nn
from torchvision.models import googlenet

from orchestra_strategy.algorithms.model import OrchestraModel, orchestra_model
from orchestra_strategy.algorithms.trial_pass import refuse_unfit
from orchestra_strategy.errors import DataError, ModelError

SMALL = {"hidden_dim": 8, "projection_dim": 4}


def conv(channels):
    return orchestra_model("conv4", channels, **SMALL)


def own(*layers, width=16):
    return OrchestraModel(nn.Sequential(*layers), feature_dim=width, **SMALL)


class Both(nn.Linear):
    def forward(self, x):
        return super().forward(x.flatten(1)), x


class OneOfTwo(Both):
    def forward(self, x):
        return super().forward(x)[0] if self.training else super().forward(x)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (conv(1), (8, 8)),
        (conv(1), (1, 9, 8)),
        (conv(3), (3, 8, 8)),
        (orchestra_model("mlp", 7, **SMALL), (7,)),
        (own(nn.Flatten(), nn.Linear(64, 16)), (8, 8)),
        (nn.Linear(3, 3), (8, 8)),  # without the parts it is its objective's
    ],
)
def test_what_fits_passes_and_is_left_as_it_was(model, shape):
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    refuse_unfit(model, shape)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (conv(3), (8, 8, 3), r"3 channel\(s\).*\(8, 8, 3\): channels come.*transpose\(0, 3, 1, 2"),
        (conv(1), (3, 8, 8), r"got 3 in samples of shape \(3, 8, 8\): use `in_channels=3`, or"),
        (conv(3), (8, 8), r"got 1 in samples of shape \(8, 8\): use `in_channels=1`, or im"),
        (conv(1), (5,), "got a table of 5 columns: use `backbone='mlp'` with `in_channels=5`"),
        (orchestra_model("mlp", 7), (5,), "a table of 7 columns.*got 5: use `in_channels=5`"),
        (orchestra_model("mlp", 7), (3, 8, 8), "got images of shape .*with `in_channels=3`"),
        (
            own(nn.Flatten(), nn.Linear(64, 16)),
            (10, 10),
            "of 64 numbers.* `1` says, got 100 .*use `in_features=100`",
        ),
    ],
)
def test_channels_and_columns_that_do_not_fit(model, shape, message):
    with pytest.raises(DataError, match=message):
        refuse_unfit(model, shape)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (own(nn.Flatten(), nn.Linear(64, 32)), "to be 32, .* got 16: use `feature_dim=32`"),
        (
            own(nn.Conv2d(1, 24, 3)),
            r"got \(B, 24, 6, 6\) in training mode: end it with `nn.Ad.*`feature_dim=24`",
        ),
        (own(nn.Flatten(2)), r"got \(B, 1, 64\) .* mean over its tokens .*`feature_dim=64`"),
        (own(nn.Flatten(0)), r"got \(B,\) .* which is \(128,\): return one row"),
        (own(Both(64, 16)), "got tuple in training mode: return the one tensor in it"),
        (own(OneOfTwo(64, 16)), "got tuple in evaluation mode"),
        (own(nn.MaxPool2d(16)), r"shape \(8, 8\), as .* got RuntimeError from Sequential: "),
    ],
)
def test_backbones_that_do_not_fit(model, message):
    with pytest.raises(ModelError, match=message):
        refuse_unfit(model, (8, 8))


def test_a_width_of_the_backbones_own_is_named():
    backbone = nn.Flatten()
    backbone.out_dim = 60
    with pytest.raises(ModelError, match=r"64, .* got 60 \(`out_dim` of the backbone\): use"):
        refuse_unfit(OrchestraModel(backbone, **SMALL), (8, 8))


def test_a_projector_of_the_users_own_is_looked_at():
    model = nn.Module()
    model.backbone, model.projector = nn.Flatten(), nn.Sequential(nn.Linear(60, 4))
    with pytest.raises(ModelError, match="got 60: use `feature_dim=64`"):
        refuse_unfit(model, (8, 8))


def test_auxiliary_outputs_of_torchvision_are_told_of():
    model = OrchestraModel(googlenet(init_weights=False), feature_dim=1000, **SMALL)
    with pytest.raises(ModelError, match=r"got GoogLeNetOutputs in training.*`aux_logits=False`"):
        refuse_unfit(model, (3, 32, 32))


@pytest.mark.parametrize(
    ("backbone", "width", "message"),
    [
        (nn.Linear(3, 5), None, r"got neither for Linear. Its last layer, `\.`, gives 5\."),
        (nn.ReLU(), None, "got neither for ReLU.$"),
        (nn.ReLU(), 0, "`feature_dim` to be a whole number of at least 1, got 0"),
        (nn.ReLU(), "8", "of at least 1, got '8'"),
    ],
)
def test_a_width_is_needed(backbone, width, message):
    with pytest.raises(ModelError, match=message):
        OrchestraModel(backbone, width)
