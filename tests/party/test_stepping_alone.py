"""A strategy stepped by hand with ``train_step(None, ...)`` again and again: its own server."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from orchestra_strategy import (
    FedBYOLStrategy,
    FedRotPredStrategy,
    FedSimCLRStrategy,
    FedSimSiamStrategy,
    FedSpecLossStrategy,
    OrchestraAdvancedStrategy,
    OrchestraAggregateStrategy,
    OrchestraPrivateStrategy,
    OrchestraSimpleStrategy,
    OrchestraSingleStepStrategy,
    OrchestraStrategy,
    host,
    server_aggregation,
    session,
)
from orchestra_strategy.aggregation.robust import coordinate_median
from tests.federated import toy

FEW = {"batch_size": 8, "local_epochs": 1, "lr": 0.01}
CLASSES: dict[Any, dict[str, Any]] = {
    OrchestraStrategy: toy.PARAMETERS,
    OrchestraAdvancedStrategy: toy.PARAMETERS,
    OrchestraSingleStepStrategy: toy.PARAMETERS,
    OrchestraAggregateStrategy: {**toy.PARAMETERS, "num_virtual_users": 2},
    OrchestraPrivateStrategy: {**toy.PARAMETERS, "noise_multiplier": 0.5, "noise_seed": 1},
    OrchestraSimpleStrategy: FEW,
    FedBYOLStrategy: FEW,
    FedRotPredStrategy: FEW,
    FedSimCLRStrategy: FEW,
    FedSimSiamStrategy: FEW,
    FedSpecLossStrategy: FEW,
}
SECURE = [c for c in CLASSES if c is not OrchestraAdvancedStrategy]  # by quality, it needs a server


def alone(cls, **options):
    norm = "group+batch" if cls is OrchestraPrivateStrategy else "batch"
    model = partial(toy.MODEL, norm=norm, heads=cls.heads)
    party = cls(model, random_seed=42, **{**CLASSES[cls], **options})
    party.build_dataset(toy.images("alice", 24))
    return party


def weights_of(party):
    return torch.cat([p.detach().flatten() for p in party.model.parameters()])


@pytest.mark.parametrize("cls", CLASSES)
def test_every_strategy_trains_alone(cls):
    """As the guide has it: nothing but ``train_step(weights=None, cur_steps=0, train_steps=1)``."""
    party = alone(cls)
    start, phases = weights_of(party), []
    for _ in range(4):
        payload, samples = party.train_step(weights=None, cur_steps=0, train_steps=1)
        phases.append(payload["meta"]["phase"])
    rounds = 4 if phases[0] == "round" else 3
    assert phases == ["init"] * (4 - rounds) + ["round"] * rounds
    assert party.rounds_done == rounds
    assert (weights_of(party) - start).abs().max() > 1e-5
    assert samples == payload["meta"]["num_samples"] > 0
    assert set(payload) == {"arrays", "meta"}


@pytest.mark.parametrize("cls", SECURE)
def test_on_route_secure_too(cls):
    party = alone(cls, route="secure")
    start = weights_of(party)
    for _ in range(3):
        payload, samples = party.train_step(None, 0, 1)
    assert party.rounds_done >= 2
    assert (weights_of(party) - start).abs().max() > 1e-5
    assert isinstance(payload, list)
    assert [a.dtype for a in payload] == [np.float32] * len(payload)
    assert payload[0].shape == (2,)
    sent = list(party.manifest().arrays().values())
    assert [a.shape for a in payload[1:]] == [e.shape or (1,) for e in sent]
    assert samples > 0


@pytest.mark.parametrize("route", ["server", "secure"])
def test_it_is_what_a_server_of_one_would_do(route):
    first, other = alone(OrchestraStrategy, route=route), alone(OrchestraStrategy, route=route)
    server = server_aggregation(num_global_clusters=4, seed=42)
    answer = None
    for _ in range(3):
        first.train_step(None, 0, 1)
        payload, _ = other.train_step(answer, 0, 1)
        answer = payload if route == "secure" else server([payload])[0]
        assert torch.equal(weights_of(first), weights_of(other))
    assert first.objective.centroids is not None


@pytest.mark.parametrize("route", ["server", "secure"])
def test_its_own_payload_handed_back_is_the_same(route):
    first, other = alone(OrchestraStrategy, route=route), alone(OrchestraStrategy, route=route)
    payload = None
    for _ in range(3):
        first.train_step(None, 0, 1)
        payload, _ = other.train_step(payload, 0, 1)
    assert torch.equal(weights_of(first), weights_of(other))


def test_it_goes_by_the_strategys_own_aggregation_and_parameters():
    calls = []

    class Own(FedSimCLRStrategy):
        @staticmethod
        def aggregate_weights(weights_list, sample_counts):
            calls.append(list(sample_counts))
            return coordinate_median(weights_list, sample_counts)

    CLASSES[Own] = FEW
    party = alone(Own)
    for _ in range(3):
        party.train_step(None, 0, 1)
    del CLASSES[Own]
    assert calls == [[24]] * 2
    careful = alone(FedSimCLRStrategy, on_bad_reply="leave_out", aggregation="trimmed_mean")
    for _ in range(2):
        careful.train_step(None, 0, 1)


def test_an_answer_from_elsewhere_comes_first():
    party = alone(FedSimCLRStrategy)
    wire, _ = party.train_step(None, 0, 1)
    reply = server_aggregation()([wire])[0]
    reply["arrays"] = {name: array * 2 for name, array in reply["arrays"].items()}
    party.apply_weights(reply)
    want = weights_of(party)
    assert party._unanswered is None
    party.train_step(None, 0, 1)
    assert (weights_of(party) - want).abs().max() < 0.1  # from there, and not from its own


def test_under_flmodel_nobody_answers_himself():
    """A worker that has not had its reply must not make one up."""
    with session(toy.PARTIES, mode="debug") as devices:
        model = toy.build(devices)
        model.fit(toy.data(devices), epochs=1)
        worker = next(iter(model.workers.values()))
        worker.train_step(None, 0, 1)
        assert host.reveal(worker.apply(lambda w: w._unanswered)) is None
