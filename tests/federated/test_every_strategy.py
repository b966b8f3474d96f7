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
    results = trainer.train(toy.data(devices))
    assert results.rounds >= 1
    assert np.isfinite(results.history["train_loss"]).all()
    heads = {name for name, _ in trainer.encoder().named_children()} - {"backbone", "projector"}
    assert heads == set(lookup_strategy(strategy).heads)
    first, second = (host.reveal(w.averaged_weights()) for w in trainer.fl_model._workers.values())
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
    temperatures = [w.apply(lambda w: w.objective.settings) for w in model._workers.values()]
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
