"""The trainer with a network of one's own, and with options that the data or a file fill in."""

import json
from functools import partial

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from federated_orchestra import FederatedOrchestraTrainer, ModelConfig, TrainerConfig
from orchestra_strategy import OrchestraModel, host, load_encoder
from orchestra_strategy.algorithms.backbones import build_backbone
from orchestra_strategy.data.sources import fed_ndarray
from orchestra_strategy.errors import CheckpointError, DataError, ModelError, ParameterError
from orchestra_strategy.runtime.common_settings import as_texts
from orchestra_strategy.runtime.trained_network import settings_of
from tests.federated import toy
from tests.federated.conftest import devices  # noqa: F401

SMALL = {"hidden_dim": 8, "projection_dim": 8}
CONFIG = {"rounds": 2, "seed": 7, "parameters": toy.PARAMETERS, "progress": False}


class Dropping(nn.Sequential):
    def __init__(self, width=16, p=0.3):
        super().__init__(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Dropout(p))


def own(width=16, p=0.3):
    return OrchestraModel(Dropping(width, p), feature_dim=width, **SMALL)


def trainer_of(devices, model, **changed):  # noqa: F811
    return FederatedOrchestraTrainer({**CONFIG, "model": model, **changed}, devices)


def loss(results):
    return results.history["train_loss"]


def test_a_network_with_dropout_resumes_bit_for_bit(devices, tmp_path):  # noqa: F811
    x = toy.data(devices)
    whole = trainer_of(devices, own)
    wanted = loss(whole.train(x))
    folder = str(tmp_path / "run")
    trainer_of(devices, own, rounds=1, checkpoint_dir=folder).train(x)
    torch.manual_seed(99)
    again = trainer_of(devices, own, checkpoint_dir=folder)
    assert loss(again.resume(x)) == wanted
    for a, b in zip(whole.encoder().parameters(), again.encoder().parameters()):
        assert torch.equal(a, b)
    # Of a training that is at its end the encoder is known, too.
    done = trainer_of(devices, own, checkpoint_dir=folder)
    done.resume(x)
    assert done.embed(toy.images("bob")).shape == (20, 16)
    with pytest.raises(CheckpointError, match=r"`model.layers` to be that of the checkpoint"):
        trainer_of(devices, partial(own, p=0.5), checkpoint_dir=folder).resume(x)


def test_a_module_is_trained_exported_and_loaded_again(devices, tmp_path):  # noqa: F811
    torch.manual_seed(0)
    network = own()
    before = network.backbone[1].weight.clone()
    trainer = trainer_of(devices, network, rounds=1, out_dir=str(tmp_path))
    trainer.train(toy.data(devices))
    assert torch.equal(network.backbone[1].weight, before)
    assert torch.equal(trainer.untrained_encoder().backbone[1].weight, before)
    x = toy.images("bob")
    wanted = trainer.embed(x)
    config = json.loads((tmp_path / "encoder.json").read_text())
    assert config["model"]["own"] == "OrchestraModel"
    assert config["sample_shape"] == [8, 8]
    assert config["onnx"].startswith("compared with torch")
    with pytest.raises(ModelError, match=r"`model` beside the path, .*\(OrchestraModel\).*model="):
        load_encoder(tmp_path)
    for given in (network, own):
        again = load_encoder(tmp_path, model=given)
        assert np.array_equal(again.transform(x), wanted)
        assert again.feature_dim == 16
    assert torch.equal(load_encoder(tmp_path, network).untrained().backbone[1].weight, before)
    with pytest.raises(DataError, match=r"images of 1 channel"):
        again.transform(np.zeros((2, 3, 8, 8)))
    with pytest.raises(ModelError, match=r"`backbone.1.weight` to be float32 \(12, 64\), got"):
        load_encoder(tmp_path, model=partial(own, 12))
    with pytest.raises(ModelError, match="to be or to build an OrchestraModel, got Linear"):
        load_encoder(tmp_path, model=nn.Linear(2, 2))
    x_all = np.concatenate([toy.images(p) for p in toy.PARTIES])
    y = np.arange(61) % 3
    probes = trainer.evaluate(x_all[:40], y[:40], x_all[40:], y[40:], labels_per_class=(None,))
    assert "untrained" in probes


def test_a_torch_model_brings_its_optimizer(devices):  # noqa: F811
    model = host.TorchModel(model_fn=own, optim_fn=partial(torch.optim.Adam, lr=0.01))
    trainer = trainer_of(devices, model, rounds=1)
    trainer.train(toy.data(devices))
    kinds = [w.apply(optimizer_of) for w in trainer.fl_model.workers.values()]
    assert host.reveal(kinds) == ["Adam", "Adam"]


def optimizer_of(worker):
    return type(worker.user_type.user.optimizer).__name__


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            lambda: nn.Linear(64, 16),
            r"an OrchestraModel, which says .*, got Linear; wrap it: `Orch",
        ),
        (partial(own, heads=()), "unexpected keyword"),
        (lambda: OrchestraModel(Dropping(), 16, heads=()), "without `degeneracy_head`"),
        (lambda: OrchestraModel(Dropping(), 12), "`feature_dim` to be 16, .* got 12: use"),
    ],
)
def test_networks_that_cannot_be_trained(devices, model, message):  # noqa: F811
    with pytest.raises((ModelError, TypeError), match=message):
        trainer_of(devices, model).train(toy.data(devices))


@pytest.mark.parametrize(
    ("backbone", "shape", "channels"),
    [("conv4", (8, 8), 1), ("conv4", (3, 8, 8), 3), ("mlp", (5,), 5)],
)
def test_channels_follow_from_the_data(devices, tmp_path, backbone, shape, channels):  # noqa: F811
    rng = np.random.default_rng(0)
    x = fed_ndarray({d: rng.random((24, *shape), dtype=np.float32) for d in devices})
    model = {"backbone": backbone, "in_channels": None, **SMALL}
    views = {1: "grey", 3: "grey", 5: "table"}[channels]
    parameters = {**toy.PARAMETERS, "views": views}
    trainer = trainer_of(
        devices, model, rounds=1, parameters=parameters, out_dir=str(tmp_path / "out")
    )
    with pytest.raises(ParameterError, match="got None, which the trainer alone can take"):
        trainer.setup_model()
    trainer.train(x)
    assert trainer.network.channels == channels
    assert load_encoder(tmp_path / "out").options["in_channels"] == channels


def test_channels_that_follow_are_those_of_a_resumed_training(devices, tmp_path):  # noqa: F811
    model = {"backbone": "conv4", "in_channels": None, **SMALL}
    folder = str(tmp_path)
    trainer_of(devices, model, rounds=1, checkpoint_dir=folder).train(toy.data(devices))
    for in_channels in (1, None):
        again = {**model, "in_channels": in_channels}
        resumed = trainer_of(devices, again, rounds=1, checkpoint_dir=folder)
        assert resumed.resume(toy.data(devices)).rounds == 1


def test_first_weights_of_a_file(devices, tmp_path):  # noqa: F811
    torch.manual_seed(5)
    first = build_backbone("conv4", in_channels=1)
    path = tmp_path / "first.pt"
    torch.save(first.state_dict(), path)
    model = {"backbone": "conv4", "in_channels": 1, "weights": path, **SMALL}
    trainer = trainer_of(devices, model, rounds=1, out_dir=str(tmp_path / "out"))
    assert torch.equal(trainer.untrained_encoder().backbone.body[0].weight, first.body[0].weight)
    trainer.train(toy.data(devices))
    digest = settings_of(trainer.config.model)["weights"]
    path.unlink()
    again = load_encoder(tmp_path / "out")
    assert again.options["first_weights"] == digest
    assert np.array_equal(again.transform(toy.images("bob")), trainer.embed(toy.images("bob")))
    with pytest.raises(ModelError, match=f"began with the weights of SHA-256 {digest}"):
        again.untrained()


def test_parties_compare_what_a_network_is_and_not_where_its_file_lies(tmp_path):
    def told(model):
        return as_texts({}, settings_of(model), {})

    for name, content in (("one", b"some"), ("two", b"some"), ("three", b"other")):
        (tmp_path / f"{name}.pt").write_bytes(content)
    one, two, three = (
        told(ModelConfig(weights=str(tmp_path / f"{name}.pt"))) for name in ("one", "two", "three")
    )
    assert one == two != three
    assert "model.weights" not in told(ModelConfig())
    assert told(own) == told(own()) != told(partial(own, p=0.5))


def test_a_job_of_yaml_names_networks_of_other_libraries(devices):  # noqa: F811
    job = yaml.safe_load(
        "rounds: 1\nmodel: {backbone: 'torchvision:squeezenet1_1', in_channels: null,"
        " hidden_dim: 8, projection_dim: 8}\n"
    )
    parameters = {**toy.PARAMETERS, "batch_size": 4}
    trainer = FederatedOrchestraTrainer(
        {**job, "parameters": parameters, "progress": False}, devices
    )
    rng = np.random.default_rng(0)
    x = fed_ndarray({d: rng.random((8, 32, 32), dtype=np.float32) for d in devices})
    trainer.train(x)
    assert trainer.embed(np.zeros((2, 32, 32), np.uint8)).shape == (2, 512)


def test_typos_are_still_named():
    for model, message in (
        ({"backbon": "conv4"}, "of `model`, got `backbon`; did you mean `backbone`"),
        ({"in_channels": 0}, "`model.in_channels` to be greater than or equal to 1, got 0"),
    ):
        with pytest.raises(ParameterError, match=message):
            TrainerConfig(model=model)
