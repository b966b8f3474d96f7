import json

import numpy as np
import pytest
import torch

from federated_orchestra import FederatedOrchestraTrainer, TrainerConfig
from orchestra_strategy import host, load_encoder
from orchestra_strategy.config import parse_config
from orchestra_strategy.errors import (
    DataError,
    HostError,
    OrchestraError,
    ParameterError,
    PrivacyError,
)
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
    assert {len(v) for v in results.history.values()} == {2}
    assert {"train_cluster", "health_effective_rank"} <= set(results.history)
    assert results.stop_reason is None
    assert results.metrics["train_loss"] == results.history["train_loss"][-1]
    for row in results.ledger:
        assert row["samples"] == 61
        assert row["images_per_second"] == pytest.approx(61 / row["seconds"])
        sent = [e["bytes"] for e in results.manifest if e["when"] in ("round", "both")]
        assert row["bytes_up_per_party"] == sum(sent)
        assert row["rounds"] == 1
    saved = json.loads((tmp_path / "results.json").read_text())
    assert saved["history"] == results.history
    # The encoder is the parties' global model, and the control is what they started from.
    alice = next(iter(trainer.fl_model.workers.values()))
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


def test_evaluate_takes_any_labels_and_is_named_by_the_strategy(devices):  # noqa: F811
    parameters = {k: toy.PARAMETERS[k] for k in ("batch_size", "local_epochs", "lr")}
    config = {**CONFIG, "strategy": "fed_simclr", "parameters": parameters, "rounds": 1}
    trainer = FederatedOrchestraTrainer(config, devices)
    trainer.train(toy.data(devices))
    x = np.concatenate([toy.images(p) for p in toy.PARTIES])
    bright = x.mean((1, 2)) > np.median(x.mean((1, 2)))
    names = np.where(bright, "bright", "dark")
    probes = trainer.evaluate(x[:40], names[:40], x[40:], names[40:], labels_per_class=(2, None))
    assert set(probes) == {"fed_simclr", "untrained", "pixels"}
    assert set(probes["pixels"]) == {
        f"{p}{m}" for p in ("2", "all", "knn") for m in ("", " auc", " ap")
    }
    assert probes["pixels"]["all auc"].mean > 0.8
    # "dark" is the second in order; as booleans it is the bright ones.
    other = trainer.evaluate(x[:40], bright[:40], x[40:], bright[40:], labels_per_class=(None,))
    assert other["pixels"]["all"] == probes["pixels"]["all"]
    assert other["pixels"]["all ap"] != probes["pixels"]["all ap"]
    twice = (x[:40], names[:40], x[39:], names[39:])
    with pytest.raises(DataError, match="pass `allow_duplicates=True`"):
        trainer.evaluate(*twice)
    trainer.evaluate(*twice, labels_per_class=(None,), allow_duplicates=True)


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
        ({"model": {"backbon": "conv4"}}, "of `model`, got `backbon`; did you mean `backbone`"),
        ({"seed": -1}, "`seed` to be greater than or equal to 0"),
        ({"checkpoint_dir": ""}, r"`checkpoint_dir` to name a folder, got ''; use '\.' for"),
        (
            {"out_dir": ""},
            r"`out_dir` to name a folder, got ''; use '\.' for the present one, or N",
        ),
        ({"checkpoint_dir": 3}, "`checkpoint_dir` to be a valid string, got 3"),
    ],
)
def test_bad_configurations_are_refused(config, message):
    with pytest.raises(ParameterError, match=message):
        FederatedOrchestraTrainer(config, [])


def test_folders_are_texts_or_paths(tmp_path):
    config = parse_config(TrainerConfig, {"out_dir": tmp_path, "checkpoint_dir": tmp_path / "run"})
    assert (config.out_dir, config.checkpoint_dir) == (str(tmp_path), str(tmp_path / "run"))
    assert TrainerConfig(checkpoint_dir=tmp_path).checkpoint_dir == str(tmp_path)
    assert TrainerConfig(checkpoint_dir=".").checkpoint_dir == "."


def test_bad_devices_and_parameters_are_refused_at_setup(devices):  # noqa: F811
    with pytest.raises(HostError, match="at least two parties, got 0"):
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


def test_a_training_that_collapses_says_so_and_keeps_its_history(devices):  # noqa: F811
    zeros = {**CONFIG, "rounds": 5}
    trainer = FederatedOrchestraTrainer(zeros, devices)
    for worker in trainer.setup_model().workers.values():
        host.reveal(worker.apply(_report_collapse))
    results = trainer.train(toy.data(devices))
    assert "collapsed at 2 of 2 parties" in results.stop_reason
    assert results.rounds == 1
    assert len(results.history["train_loss"]) == 1


def _report_collapse(worker):
    worker.collapse_found = lambda: "as the test wants it."


def test_tune_ranks_the_grid_and_goes_on_where_it_was(devices, tmp_path):  # noqa: F811
    trainer = FederatedOrchestraTrainer(CONFIG, devices)
    grid = {"lr": [0.001, 0.05], "temperature": [0.1]}
    tuning = trainer.tune(toy.data(devices), grid, rounds=1, out_dir=tmp_path)
    scores = [trial.score for trial in tuning.trials]
    assert scores == sorted(scores)
    assert tuning.best == tuning.trials[0].parameters
    assert {trial.parameters["lr"] for trial in tuning.trials} == {0.001, 0.05}
    files = {f: f.stat().st_mtime_ns for f in tmp_path.iterdir()}
    assert len(files) == 2
    # One trial is gone: it alone is run again, to the same numbers.
    gone = sorted(files)[0]
    gone.unlink()
    again = FederatedOrchestraTrainer(CONFIG, devices)
    assert again.tune(toy.data(devices), grid, rounds=1, out_dir=tmp_path) == tuning
    assert {f for f in files if f.stat().st_mtime_ns == files[f]} == set(files) - {gone}
    # Another seed is another search.
    other = FederatedOrchestraTrainer({**CONFIG, "seed": 8}, devices)
    other.tune(toy.data(devices), {"lr": [0.001]}, rounds=1, out_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({}, "`grid` to name a parameter"),
        ({"lr": 0.1}, "list of values for `lr`"),
        ({"lr": []}, "list of values for `lr`"),
        ({"lr": [0.1, -1.0]}, "`lr` to be greater than 0"),
        ({"learning_rate": [0.1]}, "`learning_rate`"),
    ],
)
def test_tune_refuses_a_bad_grid_before_anything_is_trained(devices, grid, message):  # noqa: F811
    trainer = FederatedOrchestraTrainer(CONFIG, devices)
    with pytest.raises(ParameterError, match=message):
        trainer.tune(toy.data(devices), grid)
    assert trainer.fl_model is None


@pytest.mark.parametrize("where", ["parameters", "grid"])
def test_tune_refuses_privacy_before_anything_is_trained(devices, tmp_path, where):  # noqa: F811
    private, grid = {"privacy": "user", "noise_multiplier": 1.0}, {"lr": [0.1]}
    if where == "grid":
        private, grid = {}, {name: [value] for name, value in private.items()}
    parameters = {**toy.PARAMETERS, **private}
    config = {**CONFIG, "strategy": "orchestra_private", "parameters": parameters}
    trainer = FederatedOrchestraTrainer(config, devices)
    with pytest.raises(PrivacyError, match="`privacy` to be 'none' for a search, got 'user'"):
        trainer.tune(toy.data(devices), grid, out_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("devices_of", "message"),
    [
        (lambda d: {p.party: p for p in d}, r"a list of PYUs, got a mapping; give `list\(devices"),
        (lambda d: ["alice", "bob"], r"`devices` to hold PYUs, got 'alice'; `session\(...\)`"),
        (lambda d: "alice", "`devices` to be a list of PYUs, got 'alice'"),
        (lambda d: d[0], "`devices` to be a list of PYUs, got "),
    ],
)
def test_what_are_no_devices_is_refused(devices, devices_of, message):  # noqa: F811
    with pytest.raises(HostError, match=message):
        FederatedOrchestraTrainer({"rounds": 1}, devices_of(devices))


def test_a_typing_error_in_the_trainers_own_settings_names_the_trainer():
    with pytest.raises(ParameterError, match="Expected a parameter of the trainer, got `modle`; d"):
        FederatedOrchestraTrainer({"modle": {}}, [])


def test_an_export_holds_what_embed_gives(devices, tmp_path):  # noqa: F811
    config = {**CONFIG, "rounds": 1, "data_options": {"value_range": (0, 16)}}
    trainer = FederatedOrchestraTrainer(config, devices)
    with pytest.raises(OrchestraError, match="Expected a trained model, got none"):
        trainer.export(tmp_path)
    trainer.train({d: toy.images(d.party) * 16 for d in devices})
    trainer.export(tmp_path / "new" / "folder")
    encoder = load_encoder(tmp_path / "new" / "folder")
    x = np.random.default_rng(0).integers(0, 17, (5, 8, 8))
    np.testing.assert_array_equal(encoder.transform(x), trainer.embed(x))
    assert (encoder.rounds, encoder.strategy, encoder.value_range) == (1, "orchestra", (0, 16))
    control, wanted = encoder.untrained(), trainer.untrained_encoder()
    assert all(torch.equal(a, b) for a, b in zip(control.parameters(), wanted.parameters()))
