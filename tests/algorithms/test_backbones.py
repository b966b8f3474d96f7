import pytest
import torch
from torch import nn

from orchestra_strategy.algorithms.backbones import build_backbone
from orchestra_strategy.algorithms.heads import projector
from orchestra_strategy.errors import ParameterError

IMAGES = {"conv4": (1, 8), "resnet8": (3, 32), "resnet18": (3, 32), "resnet34": (3, 32)}


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_images_become_features(name, norm):
    channels, side = IMAGES[name]
    backbone = build_backbone(name, in_channels=channels, norm=norm)
    assert backbone(torch.randn(2, channels, side, side)).shape == (2, backbone.out_dim)
    kinds = {type(m) for m in backbone.modules()}
    assert (nn.BatchNorm2d in kinds) == (norm == "batch")
    assert (nn.GroupNorm in kinds) == (norm == "group")


@pytest.mark.parametrize("side", [8, 16, 28])
def test_conv4_takes_small_images_of_any_side(side):
    backbone = build_backbone("conv4", in_channels=1)
    assert backbone(torch.randn(2, 1, side, side)).shape == (2, 512)


def test_resnet8_has_three_stages_of_one_block():
    backbone = build_backbone("resnet8", in_channels=3)
    widths = [m.out_channels for m in backbone.modules() if isinstance(m, nn.Conv2d)]
    assert widths == [16, 16, 16, 32, 32, 32, 64, 64, 64]
    assert backbone.out_dim == 64


def test_the_cifar_stem_keeps_the_resolution():
    body = build_backbone("resnet18", in_channels=3).body
    assert (body.conv1.kernel_size, body.conv1.stride) == ((3, 3), (1, 1))
    assert isinstance(body.maxpool, nn.Identity)


def test_mlp_takes_tables():
    assert build_backbone("mlp", in_channels=5)(torch.randn(3, 5)).shape == (3, 256)


def test_group_norm_projector_takes_a_single_sample_and_keeps_its_information():
    z = projector(8, 32, 16, norm="group")(torch.randn(1, 8))
    assert z.abs().sum() > 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "conv5", "in_channels": 1}, "did you mean `conv4`"),
        ({"name": "conv4", "in_channels": 0}, "`in_channels` to be at least 1, got 0"),
        (
            {"name": "conv4", "in_channels": 1, "norm": "layer"},
            "'batch', 'group' or 'group\\+batch', got",
        ),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ParameterError, match=message):
        build_backbone(**options)
