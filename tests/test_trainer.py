import json

import numpy as np
import pytest
import torch

from federated_orchestra import FederatedOrchestraTrainer, TrainerConfig
from orchestra_strategy import host
from orchestra_strategy.errors import DataError, HostError, OrchestraError, ParameterError
from tests.federated import toy
from tests.federated.conftest import devices  # noqa: F401

CONFIG = {
    "rounds": 2,
    "seed": 7,
    "model": {"backbone": "conv4", "in_channels": 1, "hidden_dim": 16, "projection_dim": 16},
    "parameters": toy.PARAMETERS,
    "progress": False,
}


def test_train_embed_evaluate(devices, tmp_path):  # noqa: F811
    trainer = FederatedOrchestraTrainer({**CONFIG, "out_dir": str(tmp_path)}, devices)
    untrained = trainer.untrained_encoder().state_dict()
    results = trainer.train(toy.data(devices))
    assert results.rounds == 2
    assert [len(v) for v in results.history.values()] == [2, 2, 2]
    assert results.metrics["train_loss"] == results.history["train_loss"][-1]
    for row in results.ledger:
        assert row["samples"] == 61
        assert row["images_per_second"] == pytest.approx(61 / row["seconds"])
        assert row["bytes_up_per_party"] == sum(entry["bytes"] for entry in results.manifest)
        assert row["rounds"] == 1
    saved = json.loads((tmp_path / "results.json").read_text())
    assert saved["history"] == results.history
    # The encoder is the parties' global model, and the control is what they started from.
    alice = next(iter(trainer.fl_model._workers.values()))
    state = host.reveal(alice.apply(lambda worker: worker.model.state_dict()))
    weights = trainer.encoder().state_dict()
    name = "backbone.body.0.weight"
    assert torch.equal(weights[name], state[name])
    assert not torch.equal(weights[name], untrained[name])
    x, y = np.concatenate([toy.images(p) for p in toy.PARTIES]), np.arange(61) % 3
    assert trainer.embed(x).shape == (61, 512)
    probes = trainer.evaluate(x[:40], y[:40], x[40:], y[40:], labels_per_class=(1, None), seeds=2)
    assert set(probes) == {"orchestra", "untrained", "pixels"}
    assert set(probes["orchestra"]) == {"1", "all", "knn"}
    with pytest.raises(DataError, match="row"):
        trainer.evaluate(x[:40], y[:40], x[39:], y[39:])


def test_the_progress_bar_shows_losses_and_speed(devices, capsys):  # noqa: F811
    trainer = FederatedOrchestraTrainer({**CONFIG, "progress": True}, devices)
    trainer.train(toy.data(devices))
    output = capsys.readouterr().out
    assert "2/2" in output
    assert "cluster" in output
    assert "samples/s" in output


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"round": 3}, "got `round`; did you mean `rounds`"),
        ({"rounds": 0}, "`rounds` to be greater than or equal to 1, got 0"),
        ({"model": {"backbon": "conv4"}}, "`model.backbon`"),
        ({"seed": -1}, "`seed` to be greater than or equal to 0"),
    ],
)
def test_bad_configurations_are_refused(config, message):
    with pytest.raises(ParameterError, match=message):
        FederatedOrchestraTrainer(config, [])


def test_bad_devices_and_parameters_are_refused_at_setup(devices):  # noqa: F811
    with pytest.raises(HostError, match="`server` to be a PYU"):
        FederatedOrchestraTrainer(CONFIG, []).setup_model()
    with pytest.raises(ParameterError, match="did you mean `temperature`"):
        FederatedOrchestraTrainer(
            {**CONFIG, "parameters": {"temprature": 1.0}}, devices
        ).setup_model()


def test_nothing_trained_is_refused(devices):  # noqa: F811
    with pytest.raises(OrchestraError, match="call `train` first"):
        FederatedOrchestraTrainer(TrainerConfig(), devices).embed(np.zeros((2, 8, 8)))
    trainer = FederatedOrchestraTrainer(CONFIG, devices)
    trainer.setup_model()
    with pytest.raises(OrchestraError, match="call `train` first"):
        trainer.encoder()
