"""The learning rate by rounds: half a cosine, the same for every kind of user."""

import math
from itertools import pairwise

import numpy as np
import pytest

from orchestra_strategy.config import StrategyConfig
from orchestra_strategy.party.own_server import answer_of_one
from orchestra_strategy.strategies.baselines import FedSimCLRStrategy
from orchestra_strategy.threads import torch_threads
from tests.federated import toy

STEPS = {"batch_size": 64, "local_epochs": 1, "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with torch_threads(1):
        yield


def test_a_rate_falls_along_half_a_cosine_and_stays():
    config = StrategyConfig(lr=0.1, lr_rounds=4)
    expected = [0.1, *(0.05 * (1 + math.cos(math.pi * k / 4)) for k in (1, 2, 3))]
    assert [config.lr_of(r) for r in (1, 2, 3, 4)] == pytest.approx(expected)
    assert config.lr_of(0) == 0.1
    assert config.lr_of(9) == config.lr_of(4)
    assert StrategyConfig(lr=0.1).lr_of(7) == 0.1


@pytest.mark.parametrize("user_type", ["local_update", "local_gradient", "multiuser_aggregate"])
def test_every_kind_of_user_takes_the_rate_of_the_round(user_type):
    """With one step a round and no momentum, a second round at half the rate moves half as far."""
    options = {"user_type": user_type, "num_virtual_users": 2}
    moves = []
    for more in ({}, {"lr_rounds": 2}):
        made = FedSimCLRStrategy(
            toy.MODEL, random_seed=7, party="alice", **STEPS, **options, **more
        )
        made.build_dataset(toy.images("alice"))
        weights = [weight_of(made)]
        for _ in range(2):
            made.train_step(None, 0, 1)
            if user_type == "local_gradient":  # its weights move when the mean comes back
                made.apply_weights(answer_of_one(made, made._unanswered))
            weights.append(weight_of(made))
        moves.append([b - a for a, b in pairwise(weights)])
    plain, falling = moves
    np.testing.assert_array_equal(plain[0], falling[0])
    np.testing.assert_allclose(falling[1], plain[1] / 2, rtol=1e-3, atol=1e-7)


def weight_of(party):
    return next(iter(party.model.parameters())).detach().numpy().copy()
