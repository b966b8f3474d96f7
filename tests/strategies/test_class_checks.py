"""Mistakes in a strategy's class: told when it is registered, or before FLModel starts a worker."""

from typing import NamedTuple, Tuple  # noqa: UP035

import numpy as np
import pytest
from pydantic import BaseModel

from orchestra_strategy import (
    FederatedStrategy,
    FedSimCLRStrategy,
    OrchestraConfig,
    OrchestraFLModel,
    OrchestraStrategy,
    SelfSupervisedStrategy,
    StrategyConfig,
    host,
    register_strategy,
    session,
)
from orchestra_strategy.algorithms.simclr import SimCLRObjective
from orchestra_strategy.errors import RegistrationError, ReplyError
from tests.federated import toy
from tests.federated.flmodel import SMALL


class Loose(BaseModel):
    gain: float = 1.0


class Settings(NamedTuple):
    temperature: float = 0.5
    sharpness: float = 2.0


class SharpObjective(SimCLRObjective):
    settings_class = Settings


class UntypedObjective(SimCLRObjective):
    settings_class = dict


def with_self(self, weights_list, sample_counts):
    return weights_list[0]


MISTAKES = [
    (FederatedStrategy, {}, "`Mine` to define `make_objective`, got none"),
    (SelfSupervisedStrategy, {}, "`Mine` to name its `objective_class`, got none"),
    (
        OrchestraStrategy,
        {"config_class": Loose},
        r"a subclass of `OrchestraConfig`, .*got Loose; write `class MineConfig\(OrchestraConfig",
    ),
    (
        OrchestraStrategy,
        {"config_class": StrategyConfig},
        r"`OrchestraConfig`, .*got StrategyConfig",
    ),
    (OrchestraStrategy, {"config_class": OrchestraConfig()}, r"`OrchestraConfig`, .*got Orchestra"),
    (OrchestraStrategy, {"config_class": {"gain": 1.0}}, r"`OrchestraConfig`, .*got dict"),
    (
        FedSimCLRStrategy,
        {"objective_class": SharpObjective},
        "settings of its objective, got `SimCLRConfig` without `sharpness`; add",
    ),
    (FedSimCLRStrategy, {"objective_class": UntypedObjective}, "to be a NamedTuple, got dict"),
    (OrchestraStrategy, {"metric_names": "train_loss"}, r"`metric_names` .* got 'train_loss'"),
    (OrchestraStrategy, {"metric_names": ("loss",)}, r"with 'train_loss' .* got \('loss',\)"),
    (
        OrchestraStrategy,
        {"metric_names": ("train_loss", "pull")},
        r"'train_NAME' .* got \('train_loss', 'pull'\)",
    ),
    (
        OrchestraStrategy,
        {"aggregate_weights": with_self},
        "a static method, got one with `self`: it runs on the server",
    ),
    (
        OrchestraStrategy,
        {"aggregate_weights": staticmethod(lambda weights_list: weights_list[0])},
        r"`aggregate_weights` of `Mine` to take \(weights_list, sample_counts\), got \(weights_l",
    ),
    (
        OrchestraStrategy,
        {"before_local_training": lambda self: None},
        r"`before_local_training` of `Mine` to take \(self, user\), got \(self\)",
    ),
    (
        OrchestraStrategy,
        {"loss_terms": lambda self, batch: None},
        r"`loss_terms` of `Mine` to take \(self, model, batch\), got \(self, batch\)",
    ),
]


@pytest.mark.parametrize(("base", "body", "message"), MISTAKES)
def test_a_mistake_is_told_when_the_class_is_registered_or_made(base, body, message):
    cls = type("Mine", (base,), body)
    with pytest.raises(RegistrationError, match=message):
        register_strategy(strategy_name="mistaken", backend="torch")(cls)
    with pytest.raises(RegistrationError, match=message):
        cls(toy.MODEL, random_seed=1)


@pytest.mark.parametrize(("base", "body", "message"), MISTAKES[:4] + MISTAKES[11:13])
def test_secretflows_own_decorator_looks_at_nothing_so_flmodel_tells(
    base, body, message, monkeypatch
):
    cls = type("Mine", (base,), body)
    monkeypatch.setitem(host.dispatcher_table(), "mistaken_torch", cls)
    started = []
    monkeypatch.setattr(host.BaseTorchModel, "__init__", lambda *a, **k: started.append(a))
    with session(toy.PARTIES, mode="debug") as devices:
        wiring = {"server": devices[0], "device_list": devices, "model": toy.MODEL}
        with pytest.raises(RegistrationError, match=message):
            host.FLModel(**wiring, strategy="mistaken", backend="torch")
    assert started == []


def test_further_arguments_of_hooks_may_have_defaults():
    class Roomy(OrchestraStrategy):
        def before_local_training(self, user=None, loud=False):
            pass

        @classmethod
        def aggregate_weights(cls, weights_list, sample_counts, trim=0.0):
            return weights_list[0]

        def train_step(
            self, weights, cur_steps, train_steps, **kwargs
        ) -> Tuple[np.ndarray, int]:  # noqa: UP006
            return super().train_step(weights, cur_steps, train_steps, **kwargs)

    Roomy(toy.MODEL, random_seed=1, **toy.PARAMETERS)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda w: None, r"to return a list of \d+ arrays, got NoneType"),
        (lambda w: w[0][:-1], r"to return a list of (\d+) arrays, got \d+"),
        (lambda w: [a[:0] for a in w[0]], r"the combined weights to have the shape"),
        (lambda w: [a.astype(np.float64) for a in w[0]], "to be a plain numpy array of float32"),
        (lambda w: [a * np.nan for a in w[0]], "of the combined weights to be finite"),
    ],
)
def test_what_an_aggregation_returns_is_looked_at(returned, message):
    class Returning(FedSimCLRStrategy):
        @staticmethod
        def aggregate_weights(weights_list, sample_counts):
            return returned(weights_list)

    register_strategy(strategy_name="returning", backend="torch")(Returning)
    with session(toy.PARTIES, mode="debug") as devices:
        model = OrchestraFLModel(
            device_list=devices, model=toy.MODEL, strategy="returning", **SMALL
        )
        with pytest.raises(ReplyError, match=message):
            model.fit(toy.data(devices), epochs=1)
