"""A start from images of a random process, and from any encoder that has been exported."""

import json
from functools import partial

import numpy as np
import pytest
import torch

from federated_orchestra import FederatedOrchestraTrainer, ModelConfig
from orchestra_strategy import load_encoder, orchestra_model, session
from orchestra_strategy.data.random_processes import dead_leaves
from orchestra_strategy.errors import ModelError, ParameterError
from tests.commands.jobs import status, write_job
from tests.federated import toy

GREY = partial(orchestra_model, "conv4", in_channels=1, heads=())


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """What the command writes for a job."""
    folder = tmp_path_factory.mktemp("start")
    small = ("--images", 64, "--size", 8, "--epochs", 1, "--set", "model.norm=group+batch")
    assert status("pretrain", write_job(folder), "--out", folder / "out", *small) == 0
    return folder / "out"


def test_images_are_made_by_the_seed_alone():
    images = dead_leaves(600, size=8, channels=1, seed=3)
    assert images.shape == (600, 8, 8)
    assert images.dtype == np.float32
    assert 0.0 <= images.min() < 0.1
    assert 0.9 < images.max() <= 1.0
    assert np.array_equal(images, dead_leaves(600, size=8, channels=1, seed=3))
    assert np.array_equal(images[:500], dead_leaves(500, size=8, channels=1, seed=3))
    assert not np.array_equal(images[:500], dead_leaves(500, size=8, channels=1, seed=4))
    assert len(np.unique(images.reshape(600, -1), axis=0)) == 600
    with pytest.raises(ParameterError, match="Expected `count` to be"):
        dead_leaves(0)


def test_pretraining_is_reproducible_and_moves_the_network(start, tmp_path):
    again = tmp_path / "again"
    small = ("--images", 64, "--size", 8, "--epochs", 1, "--set", "model.norm=group+batch")
    assert status("pretrain", write_job(tmp_path), "--out", again, *small) == 0
    first, second = (load_encoder(f).model.state_dict() for f in (start, again))
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    fresh = load_encoder(start).untrained().state_dict()
    assert not torch.equal(first["backbone.body.0.weight"], fresh["backbone.body.0.weight"])


def test_a_model_starts_from_an_exported_encoder(start):
    given = load_encoder(start).model.state_dict()
    model = GREY(norm="group+batch", projection_dim=16, weights=str(start))
    own = model.state_dict()
    same = {name for name, value in own.items() if torch.equal(value, given.get(name, value[:0]))}
    assert {name for name in own if name.startswith("backbone.")} <= same
    assert "projector.0.weight" in same  # its width is that of the file
    assert "projector.3.weight" not in same
    path = start / "encoder.safetensors"
    assert torch.equal(
        GREY(norm="group+batch", weights=str(path)).backbone.body[0].weight,
        given["backbone.body.0.weight"],
    )


def test_refusals(start, tmp_path):
    with pytest.raises(ModelError, match=r"`weights` .* norm='group', got 'group\+batch' in"):
        GREY(norm="group", weights=str(start))
    with pytest.raises(ModelError, match="Expected a trained encoder in"):
        GREY(weights=str(tmp_path))
    assert status("pretrain", write_job(tmp_path), "--out", tmp_path, "--set", "model.backbone=mlp")
    with pytest.raises(ParameterError, match=r"`preset` to be one of 'private', got 'privat'"):
        ModelConfig(preset="privat")


def test_a_training_starts_there_and_its_export_stands_alone(start, tmp_path):
    config = {
        **{"strategy": "fed_rotpred", "rounds": 1, "seed": 7, "progress": False},
        "model": {"backbone": "conv4", "in_channels": 1, "weights": str(start)}
        | {"preset": "private", "hidden_dim": 32},
        "parameters": {k: toy.PARAMETERS[k] for k in ("batch_size", "local_epochs", "lr")},
        "checkpoint_dir": str(tmp_path / "checkpoints"),
    }
    with session(toy.PARTIES, mode="debug") as devices:
        trainer = FederatedOrchestraTrainer(config, devices)
        options = trainer.config.model
        assert (options.norm, options.hidden_dim, options.projection_dim) == ("group+batch", 32, 64)
        given = load_encoder(start).model.backbone.state_dict()
        for name, value in trainer.untrained_encoder().backbone.state_dict().items():
            assert torch.equal(value, given[name]), name
        trainer.train(toy.data(devices))
        trainer.export(tmp_path / "out")
        again = FederatedOrchestraTrainer({**config, "rounds": 2}, devices)
        assert again.resume(toy.data(devices)).rounds == 2
    about = json.loads((tmp_path / "out" / "encoder.json").read_text(encoding="utf-8"))
    assert "weights" not in about["model"]
    assert str(start) not in json.dumps(about)
    assert load_encoder(tmp_path / "out").transform(toy.images("alice")).shape == (41, 512)
