"""Long trainings: a warning before them, and their time after the first round."""

import logging

import pytest

from orchestra_strategy import OrchestraFLModel, OrchestraStrategy, session
from orchestra_strategy.config import StrategyConfig
from orchestra_strategy.runtime import duration
from orchestra_strategy.runtime.duration import TimeOfAll, steps_of_round, warn_of_many_steps
from tests.federated import toy

LOG = "orchestra_strategy.runtime.duration"


@pytest.mark.parametrize(
    ("options", "samples", "steps"),
    [
        ({"batch_size": 16, "local_epochs": 10}, 60_000, 37_500),
        ({"batch_size": 16, "local_epochs": 1}, 41, 3),
        ({"user_type": "local_gradient"}, 60_000, 1),
        # Each of 4 users has 10 samples: 2 batches in each of 3 passes.
        (
            {"user_type": "multiuser_aggregate", "num_virtual_users": 4, "batch_size": 8}
            | {"local_epochs": 3},
            40,
            4 * 6,
        ),
        (
            {"user_type": "multiuser_aggregate", "num_virtual_users": 4, "users_per_round": 2}
            | {"batch_size": 8, "local_epochs": 3},
            40,
            2 * 6,
        ),
    ],
)
def test_steps_by_hand(options, samples, steps):
    assert steps_of_round(StrategyConfig(**options), samples) == steps


@pytest.mark.parametrize("user_type", ["local_update", "local_gradient", "multiuser_aggregate"])
def test_steps_are_those_that_a_party_does(user_type):
    options = {**toy.PARAMETERS, "user_type": user_type, "num_virtual_users": 2}
    party = OrchestraStrategy(toy.MODEL, random_seed=7, **options)
    party.build_dataset(toy.images("alice"))
    for _ in range(2):
        party.train_step(None, 0, 1)
    assert party.user_type.user.steps_done == steps_of_round(party.config, 41)


def test_the_published_settings_on_many_samples_are_warned_of(caplog):
    warn_of_many_steps(StrategyConfig(), {"alice": 60_000, "bob": 500}, rounds=100)
    assert caplog.messages == [
        "Party `alice` will do 3,750,000 local steps, 100 rounds of 37,500: on a CPU that is hours "
        "or days. Less work: fewer rounds, a lower `local_epochs` (10), or a larger `batch_size` "
        "(16). After the first round its time is told."
    ]
    caplog.clear()
    warn_of_many_steps(StrategyConfig(), {"alice": 500, "bob": 500}, rounds=100)
    assert caplog.messages == []


def test_a_fit_tells_once_how_long_all_of_it_takes(caplog, monkeypatch):
    monkeypatch.setattr(duration, "MANY_STEPS", 10)
    with caplog.at_level(logging.INFO, LOG), session(toy.PARTIES, mode="debug") as devices:
        model = OrchestraFLModel(
            device_list=devices,
            model=toy.MODEL,
            strategy="fed_simclr",
            batch_size=8,
            local_epochs=1,
        )
        model.fit(toy.data(devices), epochs=3)
        told = [r.getMessage() for r in caplog.records if r.name == LOG]
        assert told[0].startswith("Party `alice` will do 18 local steps, 3 rounds of 6: on a CPU")
        assert told[1].startswith("The first of 3 epochs took ")
        assert "all of them will take about" in told[1]
        assert len(told) == 2
        caplog.clear()
        model.fit(toy.data(devices), epochs=1)  # nothing is left to wait for
        assert [r for r in caplog.records if r.name == LOG] == []


@pytest.mark.parametrize(("seconds", "level"), [(30.0, logging.INFO), (60.0, logging.WARNING)])
def test_hours_are_told_as_a_warning(seconds, level, caplog, monkeypatch):
    clock = iter([0.0, seconds])
    monkeypatch.setattr(duration.time, "monotonic", lambda: next(clock))
    callback = TimeOfAll(100)
    callback.set_workers({}, None)
    callback.on_epoch_begin(epoch=0)
    with caplog.at_level(logging.INFO, LOG):
        for epoch in range(2):
            callback.on_epoch_end(epoch=epoch)
    assert [record.levelno for record in caplog.records] == [level]
    assert "of 100 epochs took" in caplog.text
