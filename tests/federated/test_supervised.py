"""`fed_supervised`, through the trainer, OrchestraFLModel and SecretFlow's own FLModel."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from torch import nn

from federated_orchestra import FederatedOrchestraTrainer
from orchestra_strategy import (
    FederatedStrategy,
    FedSupervisedStrategy,
    OrchestraFLModel,
    fed_ndarray,
    host,
    load_encoder,
    orchestra_model,
    server_aggregation,
)
from orchestra_strategy.errors import DataError, ParameterError
from tests.federated import toy

MODEL = partial(toy.MODEL, heads=("classifier",))
QUICK = {"batch_size": 8, "local_epochs": 4, "lr": 0.05, "health_samples": 0}


def labels(devices, change=lambda y: y):
    return fed_ndarray({d: change(toy.labels(d.party)) for d in devices})


def build(devices, strategy="fed_supervised", **kwargs):
    options = {"device_list": devices, "model": MODEL, "strategy": strategy, "random_seed": 7}
    return OrchestraFLModel(**{**options, **QUICK, **kwargs})


def test_it_learns_and_tells_classes_and_accuracy(devices):
    model, x, y = build(devices), toy.data(devices), labels(devices)
    history = model.fit(x, y, epochs=4, validation_data=(x, y))["global_history"]
    assert history["train_accuracy"][-1] > max(0.7, history["train_accuracy"][0])
    overall, _ = model.evaluate(x, y, return_dict=True)
    assert float(overall["accuracy"].result()) == pytest.approx(history["val_accuracy"][-1])
    found = host.reveal(model.predict(x, output="classes"))
    right = [(found[d] == toy.labels(d.party)).mean() for d in devices]
    sizes = [toy.SIZES[d.party] for d in devices]
    assert float(overall["accuracy"].result()) == pytest.approx(np.average(right, weights=sizes))
    assert "accuracy" not in model.evaluate(x, return_dict=True)[0]


def test_secretflows_own_fl_model_trains_it(devices):
    model = host.FLModel(
        server=devices[0],
        device_list=devices,
        model=MODEL,
        strategy="fed_supervised",
        backend="torch",
        random_seed=7,
        server_agg_method=server_aggregation(),
        **QUICK,
    )
    x = toy.data(devices)
    history = model.fit(x, labels(devices), epochs=2, aggregate_freq=10**6, verbose=0)
    assert len(history["global_history"]["train_accuracy"]) == 2
    with pytest.raises(DataError, match="learns from them, got none"):
        model.fit(x, x, epochs=1, aggregate_freq=10**6, verbose=0)


class Recorded:
    """What a party sends in three exchanges, and its manifest."""

    def __init__(self, party):
        self.wires = [party.get_weights()]
        for step in range(2):
            self.wires.append(party.train_step(None, step, 1)[0])
        self.rows = party.manifest_rows()


def test_labels_stay_and_the_manifest_has_none_of_them():
    """Other labels change the values of what is sent, and nothing else."""
    sent = []
    for change in (0, 1):
        party = FedSupervisedStrategy(MODEL, random_seed=7, party="alice", **QUICK)
        y = (toy.labels("alice") + change) % toy.CLASSES
        party.build_dataset(toy.images("alice"), y)
        sent.append((Recorded(party), y))
    for recorded, y in sent:
        for wire in recorded.wires:
            assert wire["meta"].keys() == {"version", "round", "phase", "num_samples"}
            assert all(name.startswith("weights/") for name in wire["arrays"])
            assert not any(a.size == len(y) for a in wire["arrays"].values())
        assert not any("label" in row["name"] or row["per_sample"] for row in recorded.rows)
    (one, _), (other, _) = sent
    assert one.rows == other.rows
    assert [w["meta"] for w in one.wires] == [w["meta"] for w in other.wires]
    assert not np.array_equal(
        *(s.wires[-1]["arrays"]["weights/classifier.bias"] for s in (one, other))
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            lambda ds: None,
            r"labels `y` for a strategy that learns from them, got none; .*fit\(x, y",
        ),
        (lambda ds: toy.data(ds), "party `alice`: Expected labels .*party `bob`: Expected labels"),
        (lambda ds: labels(ds, lambda y: y + 1), r"party `alice`: .*from 0 to 2, got \d+ of 41"),
        (lambda ds: labels(ds, lambda y: np.eye(3)[y]), r"shape \(20, 3\).*y.argmax\(axis=1\)"),
        (lambda ds: labels(ds, lambda y: y[:5]), "`alice` has 5 labels for 41 samples"),
    ],
)
def test_labels_that_cannot_be_used_are_refused_on_the_driver(devices, given, message):
    with pytest.raises(DataError, match=message):
        build(devices).fit(toy.data(devices), given(devices))


def test_a_party_that_lacks_a_class_trains(devices):
    y = fed_ndarray({d: np.minimum(toy.labels(d.party), i + 1) for i, d in enumerate(devices)})
    history = build(devices).fit(toy.data(devices), y)["global_history"]
    assert np.isfinite(history["train_loss"]).all()


def test_classes_are_for_strategies_that_learn_some(devices):
    model = build(devices, "fed_simclr", model=toy.MODEL)
    with pytest.raises(ParameterError, match=r"'classes'`, got FedSimCLRStrategy; .*train a"):
        host.reveal(model.predict(toy.data(devices), output="classes"))


def write_npz(folder, party):
    path = folder / f"{party}.npz"
    np.savez(path, x=toy.images(party), y=toy.labels(party))
    return path


def trainer(devices, **changes):
    network = {"backbone": "conv4", "in_channels": 1, "hidden_dim": 16, "projection_dim": 16}
    config = {"strategy": "fed_supervised", "rounds": 2, "seed": 7, "progress": False}
    config |= {"model": {**network, "num_classes": toy.CLASSES}, "parameters": QUICK}
    return FederatedOrchestraTrainer({**config, **changes}, devices)


def test_the_trainer_reads_the_labels_of_paths(devices, tmp_path):
    """The same as with arrays; and what it has trained can be exported."""
    paths = {d: write_npz(tmp_path, d.party) for d in devices}
    by_path = trainer(devices, out_dir=str(tmp_path / "out"))
    by_array = trainer(devices)
    first = by_path.train(paths)
    second = by_array.train(toy.data(devices), labels=labels(devices))
    assert first.history == second.history
    assert "train_accuracy" in first.metrics
    x = toy.images("alice")
    assert np.allclose(load_encoder(tmp_path / "out").transform(x), by_path.embed(x), atol=1e-6)


def test_the_trainer_refuses_missing_labels_and_a_search(devices):
    with pytest.raises(DataError, match="learns from them, got none"):
        trainer(devices).train(toy.data(devices))
    with pytest.raises(ParameterError, match="without labels for `tune`, got 'fed_supervised'"):
        trainer(devices).tune(toy.data(devices), {"lr": [0.1]})
    without = {"backbone": "conv4", "in_channels": 1}
    with pytest.raises(
        ParameterError, match="`num_classes` of the model to be a whole number of at least 2"
    ):
        trainer(devices, model=without).train(toy.data(devices), labels=labels(devices))


def test_resume_refuses_other_labels(devices, tmp_path):
    folder = {"checkpoint_dir": str(tmp_path), "rounds": 1}
    x, y = toy.data(devices), labels(devices)
    trainer(devices, **folder).train(x, labels=y)
    with pytest.raises(DataError, match="data of party `alice` to be those of the checkpoint"):
        trainer(devices, **{**folder, "rounds": 2}).resume(
            x, labels=labels(devices, lambda y: 2 - y)
        )
    assert trainer(devices, **{**folder, "rounds": 2}).resume(x, labels=y).rounds == 2


class OwnStrategy(FederatedStrategy):
    """A classifier of one's own with a loss of torch: all that is needed of labels."""

    needs_labels = True

    def make_objective(self):
        return nn.CrossEntropyLoss()


def test_a_strategy_of_ones_own_gets_labels_by_saying_so():
    party = OwnStrategy(partial(orchestra_model, "conv4", in_channels=1), **QUICK)
    party.build_dataset(toy.images("alice"), toy.labels("alice"))
    losses = []
    for step in range(3):
        party.train_step(None, step, 1)
        losses.append(party.get_logs()["train_loss"])
    assert all(later < earlier for earlier, later in pairwise(losses))


def test_what_evaluate_needs_of_a_strategy_without_views():
    """Labels; of the parties' own samples nothing can be measured."""
    party = OwnStrategy(partial(orchestra_model, "conv4", in_channels=1), **QUICK)
    party.build_dataset(toy.images("alice"), stage="eval")
    with pytest.raises(
        DataError, match=r"or labels, .* got no labels for a strategy without views"
    ):
        party.evaluate()
    party.build_dataset(toy.images("alice"), toy.labels("alice"), stage="eval")
    assert "nmi" in {metric.name for metric in party.evaluate()}


class ForgetfulLoss(FederatedStrategy):
    def make_objective(self):
        return nn.CrossEntropyLoss()


class ForgetfulFunction(FederatedStrategy):
    def make_objective(self):
        return lambda model, batch: nn.functional.cross_entropy(
            model(batch["inputs"]), batch["labels"]
        )


def test_a_strategy_that_reads_labels_without_saying_so_is_told_how():
    model = partial(orchestra_model, "conv4", in_channels=1)
    with pytest.raises(ParameterError, match="`needs_labels = True` in the class `ForgetfulLoss`"):
        ForgetfulLoss(model, **QUICK)
    party = ForgetfulFunction(model, **QUICK)
    party.build_dataset(toy.images("alice"), toy.labels("alice"))
    with pytest.raises(DataError, match="`needs_labels = True` in the class `ForgetfulFunction`"):
        party.train_step(None, 0, 1)
