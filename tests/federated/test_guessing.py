"""The warning of a rotation loss that is worse than guessing."""

import logging

import pytest

from orchestra_strategy.runtime.guessing import WorseThanGuessing
from orchestra_strategy.strategies.orchestra_config import OrchestraConfig
from tests.federated import toy


class Losses(WorseThanGuessing):
    """The callback with given losses in place of the parties'."""

    def __init__(self, config, losses):
        super().__init__(config)
        self.losses = iter(losses)

    def _calc_aggregated_metrics(self):
        return {"train_degeneracy": next(self.losses)}


def told(caplog, losses, **options):
    with caplog.at_level(logging.WARNING):
        callback = Losses(OrchestraConfig(**options), losses)
        for epoch in range(len(losses)):
            callback.on_epoch_end(epoch)
    return [record.getMessage() for record in caplog.records]


def test_a_loss_far_above_that_of_guessing_is_told_once_with_the_remedy(caplog):
    (message,) = told(caplog, [1.5, 2.03, 3.0], lr=0.03)
    assert message.startswith("`train_degeneracy` is 2.03 in epoch 2, where guessing one of 4 rota")
    assert message.endswith("Lower `lr` (0.03), or set `deg_length=4.0`.")


def test_rows_of_a_table_are_not_said_to_be_rotated(caplog):
    (message,) = told(caplog, [2.0], views="table")
    assert "guessing one of 4 answers has 1.39" in message


def test_a_remedy_that_is_taken_is_not_told_again(caplog):
    (message,) = told(caplog, [2.0], lr=0.1, deg_length=4.0)
    assert message.endswith("Lower `lr` (0.1).")


@pytest.mark.parametrize(("losses", "options"), [([1.4, 1.5], {}), ([9.0], {"deg_weight": 0.0})])
def test_nothing_is_told_near_guessing_or_where_the_loss_has_no_weight(caplog, losses, options):
    assert told(caplog, losses, **options) == []


def test_a_training_tells_it(devices, caplog):
    model = toy.build(devices, lr=3.0, stop_on_collapse=False)
    model.fit(toy.data(devices), epochs=1)
    assert "the steps are too long for it, and it disturbs the encoder" in caplog.text
