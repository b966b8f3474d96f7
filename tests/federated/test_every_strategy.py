"""Every strategy of the package over two parties in process."""

from functools import partial

import numpy as np
import pytest

from federated_orchestra import FederatedOrchestraTrainer
from orchestra_strategy import (
    FederatedStrategy,
    OrchestraFLModel,
    host,
    registered_strategies,
    server_aggregation,
)
from orchestra_strategy.errors import ModelError, ParameterError
from orchestra_strategy.strategies.registry import lookup_strategy
from tests.federated import toy
from tests.strategies.test_baselines import PARAMETERS, SHARED

OURS = [
    name
    for name in (registered.removesuffix("_torch") for registered in registered_strategies())
    if lookup_strategy(name).__module__.startswith("orchestra_strategy.")
]
MODEL = {"backbone": "conv4", "in_channels": 1, "hidden_dim": 16, "projection_dim": 16}


def config(strategy, **changes):
    parameters = PARAMETERS.get(strategy, toy.PARAMETERS)
    if strategy == "orchestra_aggregate":
        parameters = {**parameters, "num_virtual_users": 2}
    model = MODEL
    if strategy == "orchestra_private":
        private = {"noise_multiplier": 0.5, "log_unprotected": True}
        parameters, model = {**parameters, **private}, {**MODEL, "norm": "group"}
    if strategy == "fed_supervised":
        model = {**model, "num_classes": toy.CLASSES}
    options = {"rounds": 1, "seed": 7, "model": model, "progress": False}
    return {**options, "strategy": strategy, "parameters": parameters, **changes}


def test_all_of_ours_are_here():
    assert set(PARAMETERS) | {"orchestra", "orchestra_aggregate", "orchestra_single_step"} <= set(
        OURS
    )
    assert all(issubclass(lookup_strategy(name), FederatedStrategy) for name in OURS)


@pytest.mark.parametrize("strategy", OURS)
def test_the_trainer_changes_strategy_by_its_name_alone(devices, strategy):
    trainer = FederatedOrchestraTrainer(config(strategy), devices)
    labels = toy.labels_for(lookup_strategy(strategy), devices)
    results = trainer.train(toy.data(devices), labels=labels)
    assert results.rounds >= 1
    assert np.isfinite(results.history["train_loss"]).all()
    heads = {name for name, _ in trainer.encoder().named_children()} - {"backbone", "projector"}
    assert heads == set(lookup_strategy(strategy).heads)
    first, second = (host.reveal(w.averaged_weights()) for w in trainer.fl_model.workers.values())
    for name, value in first.items():
        assert np.array_equal(value, second[name]), name
    assert trainer.embed(toy.images("alice")).shape == (41, 512)


def test_plain_fl_model_works_with_a_baseline(devices):
    model = host.FLModel(
        server=devices[0],
        device_list=devices,
        model=partial(toy.MODEL, heads=()),
        strategy="fed_simclr",
        backend="torch",
        random_seed=7,
        server_agg_method=server_aggregation(),
        temperature=0.2,
        **SHARED,
    )
    x = toy.data(devices)
    history = model.fit(x, x, epochs=2, aggregate_freq=10**6, verbose=0)
    assert len(history["global_history"]["train_loss"]) == 2
    temperatures = [
        w.apply(lambda w: w.objective.settings) for w in host.workers_of(model).values()
    ]
    assert [tuple(t) for t in host.reveal(temperatures)] == [(0.2,), (0.2,)]


def test_a_model_without_predictor_is_refused_on_the_driver(devices):
    options = {"server": devices[0], "device_list": devices, "model": toy.MODEL}
    with pytest.raises(ModelError, match=r"without `predictor`.*heads=\('predictor',\)"):
        OrchestraFLModel(**options, strategy="fed_byol")


def test_the_trainer_refuses_unknown_strategies_and_the_hosts(devices):
    for name, message in (
        ("fed_simcrl", "did you mean `fed_simclr`"),
        ("fed_prox", "to be one of"),
    ):
        with pytest.raises(ParameterError, match=message):
            FederatedOrchestraTrainer(config(name), devices)


@pytest.mark.parametrize("route", ["server", "secure"])
@pytest.mark.parametrize("strategy", OURS)
def test_what_leaves_a_party_does_not_grow_with_its_samples(strategy, route):
    """No entry is per sample: sixteen more samples change no shape, and the manifest says so."""
    cls, chosen = lookup_strategy(strategy), config(strategy)
    if route == "secure" and strategy == "orchestra_advanced":  # by quality it needs a server
        chosen = {**chosen, "parameters": {**chosen["parameters"], "aggregation": "mean"}}
    model = partial(toy.MODEL, norm=chosen["model"].get("norm", "batch"), heads=cls.heads)
    shapes = []
    for size in (48, 64):
        party = cls(model, random_seed=7, party="alice", route=route, **chosen["parameters"])
        y = toy.labels("alice", size) if cls.needs_labels else None
        party.build_dataset(toy.images("alice", size), y)
        party.apply_weights(server_reply(party, route))
        wire, _ = party.train_step(None, 0, 1)
        arrays = wire if route == "secure" else wire["arrays"].values()
        shapes.append([a.shape for a in arrays])
        assert not any(row["per_sample"] for row in party.manifest_rows())
        bound = sum(row["bytes"] for row in party.manifest_rows() if row["to"] != "driver")
        assert sum(a.nbytes for a in arrays) <= bound
    if strategy == "orchestra_private" and route == "server":  # noise decides which are withheld
        shapes = [[s for s in each if len(s) != 2 or s[1] != 16] for each in shapes]
    assert shapes[0] == shapes[1]


def server_reply(party, route):
    wire = party.get_weights()
    if route == "secure":
        return wire
    server = server_aggregation(num_global_clusters=4, aggregation=party.config.aggregation)
    return server([wire])[0]
