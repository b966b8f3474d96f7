"""Networks of other libraries by name, and first weights from a file."""

import sys

import pytest
import torch
from torch import nn
from torchvision.models import resnet18, squeezenet1_1

from orchestra_strategy import orchestra_model
from orchestra_strategy.algorithms.backbones import build_backbone
from orchestra_strategy.algorithms.trial_pass import refuse_unfit
from orchestra_strategy.errors import ModelError, ParameterError

SMALL = {"hidden_dim": 8, "projection_dim": 4}


@pytest.fixture
def timm():
    return pytest.importorskip("timm", reason="the extra `timm` is not installed")


@pytest.mark.parametrize(
    ("name", "width"), [("resnet18", 512), ("mobilenet_v3_small", 1024), ("squeezenet1_1", 512)]
)
def test_torchvisions_networks_without_their_classifier(name, width):
    model = orchestra_model(f"torchvision:{name}", 1, **SMALL)
    assert model.feature_dim == width
    refuse_unfit(model, (1, 64, 64))
    assert not any(
        m.out_features == 1000 for m in model.backbone.modules() if isinstance(m, nn.Linear)
    )


def test_auxiliary_classifiers_are_left_out():
    model = orchestra_model("torchvision:googlenet", **SMALL)
    assert model.feature_dim == 1024
    refuse_unfit(model, (3, 48, 48))


def test_features_are_what_came_to_the_classifier():
    torch.manual_seed(0)
    whole = squeezenet1_1().eval()
    torch.manual_seed(0)
    body = build_backbone("torchvision:squeezenet1_1", in_channels=3).eval()
    x = torch.randn(2, 3, 64, 64)
    maps = whole.features(x)
    wanted = torch.relu(maps).mean((2, 3))
    assert torch.allclose(body(x), wanted, atol=1e-6)


@pytest.mark.parametrize("norm", ["group", "group+batch"])
def test_group_norm_takes_the_place_of_batch_norm(norm):
    backbone = build_backbone("torchvision:mobilenet_v3_small", in_channels=3, norm=norm)
    kinds = {type(m) for m in backbone.modules()}
    assert nn.GroupNorm in kinds
    assert nn.BatchNorm2d not in kinds
    assert not list(backbone.buffers())


def test_timms_networks(timm):
    model = orchestra_model("timm:resnet18", 1, **SMALL)
    assert model.feature_dim == 512
    refuse_unfit(model, (1, 32, 32))
    small = orchestra_model("timm:mobilenetv3_small_050", 3, norm="group", **SMALL)
    refuse_unfit(small, (3, 32, 32))
    assert not list(small.backbone.buffers())
    # What timm has in one with BatchNorm stays: an activation is no identity.
    plain = orchestra_model("timm:mobilenetv3_small_050", 3, **SMALL)
    acts = [sum(type(m).__name__ == "Hardswish" for m in n.modules()) for n in (plain, small)]
    assert acts[0] == acts[1] > 0
    with pytest.raises(ParameterError, match="network of timm, got 'timm:resnet19'; did you mean"):
        orchestra_model("timm:resnet19")


def test_timm_takes_its_own_weights_from_a_file(timm, tmp_path):
    whole = timm.create_model("resnet18", pretrained=False)
    torch.save(whole.state_dict(), tmp_path / "timm.pth")
    model = orchestra_model("timm:resnet18", weights=tmp_path / "timm.pth", **SMALL)
    assert torch.equal(model.backbone.body.conv1.weight, whole.conv1.weight)


def test_timm_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match=r"`timm` to be inst.*pip install 'orchestra-strategy\[t"):
        orchestra_model("timm:resnet18")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torchvision:resnet19", "of torchvision, got 'torchvision:resnet19'; did you mean resn"),
        ("torchvision:zzzzz", r"got 'torchvision:zzzzz'; it has \d+ names"),
        ("torchvison:resnet18", "to name its library, got .*; did you mean `torchvision`"),
        ("resnet19", "'torchvision:NAME' or 'timm:NAME', got 'resnet19'; did you mean `resnet18`"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(ParameterError, match=message):
        orchestra_model(name)


def test_channels_have_to_be_known():
    with pytest.raises(
        ParameterError, match=r"`in_channels` to be a number .* got None, which the"
    ):
        orchestra_model("conv4", None)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_come_from_a_file(tmp_path, suffix):
    from safetensors.torch import save_file

    whole, path = resnet18(), tmp_path / f"weights{suffix}"
    state = {k: v for k, v in whole.state_dict().items() if "num_batches" not in k}
    if suffix == ".pth":
        torch.save({"state_dict": state}, path)
    else:
        save_file(state, path)
    model = orchestra_model("torchvision:resnet18", weights=path, **SMALL)
    for name, tensor in model.backbone.body.state_dict().items():
        if "num_batches" not in name:
            assert torch.equal(tensor, state[name]), name


def test_weights_of_an_encoder_of_ours(tmp_path):
    ours = build_backbone("conv4", in_channels=1)
    torch.save(ours.state_dict(), tmp_path / "ours.pt")
    again = build_backbone("conv4", in_channels=1, weights=tmp_path / "ours.pt")
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), again.parameters()))


@pytest.mark.parametrize(
    ("state", "options", "message"),
    [
        ({"a": torch.zeros(1)}, {}, r"got those of another \(without .* and \d+ more; with `a` b"),
        (None, {"in_channels": 3}, r"with \(32, 1, 3, 3\) for \(32, 3, 3, 3\) at `0.weight`"),
        (None, {"norm": "group"}, "with `1.running_mean`, `1.running_var`, "),
        ([1, 2], {}, "`state_dict` in .*, which names tensors, got list"),
        (b"no file of weights", {}, "to be a file of weights on this machine"),
    ],
)
def test_other_weights_are_refused(tmp_path, state, options, message):
    path = tmp_path / "weights.pt"
    if isinstance(state, bytes):
        path.write_bytes(state)
    else:
        torch.save(state or build_backbone("conv4", in_channels=1).state_dict(), path)
    with pytest.raises(ModelError, match=message):
        build_backbone("conv4", **{"in_channels": 1, "weights": path, **options})


def test_a_file_that_is_not_there_is_told_and_never_fetched(tmp_path):
    with pytest.raises(
        ModelError, match=r"No such file or directory\. Nothing is downloaded; copy"
    ):
        build_backbone("conv4", in_channels=1, weights=tmp_path / "none.pth")
    (tmp_path / "bad.safetensors").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"bad\.safetensors"):
        build_backbone("conv4", in_channels=1, weights=tmp_path / "bad.safetensors")
