"""Privacy where something goes wrong or is done differently: nothing leaves unpaid."""

import logging

import numpy as np
import pytest
import torch

from orchestra_strategy import FedRotPredStrategy, OrchestraPrivateStrategy
from orchestra_strategy.errors import ParameterError, PrivacyError
from orchestra_strategy.exchange.manifest import Entry
from tests.federated import toy
from tests.strategies.test_private import GROUP, RECORD, USER, VIRTUAL, exchange, party

LEAK = Entry("mine", (8, 8), "float32", "clustered", "server", "a sample")


def ready(route, **options):
    strategy = party(route=route, **options)
    wire = strategy.get_weights()
    if route == "secure":
        strategy.apply_weights(wire)
    else:
        exchange(strategy, wire)
    return strategy


class Leaking(FedRotPredStrategy):
    """Sends its first sample."""

    def extra_entries(self):
        return (LEAK,)

    def extras(self):
        return {"mine": toy.images("alice")[0]}


class Declared(Leaking):
    """Says that it has added noise."""

    protected_entries = ("mine",)


@pytest.mark.parametrize("options", [USER, RECORD])
def test_what_a_strategy_sends_of_its_own_is_refused_unless_declared(options):
    with pytest.raises(PrivacyError, match=r"`extra_entries` to carry noise .*got `mine`; add the"):
        party(Leaking, **options)
    party(Leaking)
    party(Declared, **options)


def test_delta_stays_for_the_whole_run():
    strategy = party(**USER)
    with pytest.raises(ParameterError, match=r"`delta` to stay as in the constructor"):
        strategy.configure({"delta": 0.1})


def test_the_weight_of_round_0_is_that_of_users():
    strategy = party(**USER, **VIRTUAL)
    wire, weight = strategy.train_step(None, 0, 1)
    assert weight == wire["meta"]["num_samples"] == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {**USER, **VIRTUAL, "noise_seed": None, "delta": 0.25},
            "`delta` is 0.25, not below 1 / 4",
        ),
        ({**RECORD, "noise_seed": None, "delta": 0.03}, "`delta` is 0.03, not below 1 / 41"),
        ({**RECORD, "noise_seed": None}, None),
    ],
)
def test_what_voids_a_guarantee_is_said(options, message, caplog):
    with caplog.at_level(logging.WARNING, "orchestra_strategy.party.privacy.protected"):
        assert ready("server", **options).privacy.mechanism is not None
    told = [r.getMessage() for r in caplog.records if r.name.endswith("party.privacy.protected")]
    assert told == [] if message is None else message in told[0]


def test_a_records_views_do_not_depend_on_who_else_is_there():
    """Two runs with the same secret draw the same views, whatever the root seed."""
    drawn = []
    for seed in (7, 8):
        strategy = OrchestraPrivateStrategy(
            GROUP, random_seed=seed, party="alice", **{**toy.PARAMETERS, **RECORD}
        )
        strategy.build_dataset(toy.images("alice"))
        strategy.method.start_user(None)
        drawn.append(torch.rand(3, generator=strategy.objective.generator).numpy())
    assert np.array_equal(*drawn)
