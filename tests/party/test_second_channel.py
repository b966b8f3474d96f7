"""Under privacy, what a party says and does depends on its data through the noisy release alone."""

import logging

import numpy as np
import pytest
import torch

from orchestra_strategy import FedRotPredStrategy, FedSimCLRStrategy, OrchestraPrivateStrategy
from orchestra_strategy.data import ViewSet, to_model_input
from orchestra_strategy.errors import PrivacyError
from orchestra_strategy.privacy.mechanism import GaussianMechanism
from tests.federated import toy
from tests.strategies.test_private import GROUP, RECORD, USER, VIRTUAL, exchange, party

RANDOM = np.random.default_rng(5).random((24, 8, 8), np.float32)


def with_one(value):
    images = RANDOM.copy()
    images[3] = value
    return images


@pytest.fixture
def releases(monkeypatch):
    """What goes into the mechanism; out of it comes noise that is the same each time."""
    seen = []

    def spy(self, tensors, sensitivity, release):
        self.ledger.spend(release)
        seen.append((tensors, sensitivity, release))
        draw = torch.Generator().manual_seed(len(seen))
        return [torch.randn(t.shape, generator=draw).to(t) * 1e-3 for t in tensors]

    monkeypatch.setattr(GaussianMechanism, "add_noise", spy)
    return seen


def behaviour(strategy, route="server", rounds=2):
    """Return all that a party says: payloads, logs, counts; an error would be one, too."""

    def answer(wire):
        if route == "secure":
            strategy.apply_weights(wire)
        else:
            exchange(strategy, wire)
        return wire

    said = [answer(strategy.get_weights())]
    for step in range(rounds):
        wire, weight = strategy.train_step(None, step, 1)
        said += [answer(wire), weight, strategy.get_logs(), strategy.collapse_found()]
    said += [strategy.work_done(), strategy.privacy_spent(), strategy.left_out_of()]
    return said


def assert_alike(one, other):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        one, other = list(one.values()), list(other.values())
    if isinstance(one, list | tuple):
        for a, b in zip(one, other, strict=True):
            assert_alike(a, b)
    else:
        assert np.array_equal(one, other)


CASES = [
    pytest.param(OrchestraPrivateStrategy, RECORD, "server", id="record"),
    pytest.param(OrchestraPrivateStrategy, RECORD, "secure", id="record, secure"),
    pytest.param(
        *(OrchestraPrivateStrategy, {**RECORD, "user_type": "local_gradient"}, "server"),
        id="record, one gradient",
    ),
    pytest.param(OrchestraPrivateStrategy, USER, "server", id="user"),
    pytest.param(OrchestraPrivateStrategy, {**USER, **VIRTUAL}, "secure", id="virtual users"),
    pytest.param(FedRotPredStrategy, RECORD, "server", id="baseline, record"),
    pytest.param(FedSimCLRStrategy, {**USER, **VIRTUAL}, "server", id="baseline, user"),
]


@pytest.mark.parametrize(("cls", "options", "route"), CASES)
@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38, -3e38])
def test_a_sample_that_cannot_be_used_does_not_show(cls, options, route, value, releases, caplog):
    said, told = [], []
    for images in (RANDOM, with_one(value)):
        strategy = party(cls, route=route, **options)
        before = len(releases)
        caplog.clear()
        with caplog.at_level(logging.DEBUG):
            assert strategy.describe_data(images)["finite"]
            strategy.build_dataset(images)
            releases.clear()
            said.append(behaviour(strategy, route))
        told.append([r.getMessage() for r in caplog.records])
        assert len(releases) == sum(strategy.privacy.ledger.spent.values()) > before - 1
        for tensors, _, _ in releases:
            assert all(t.isfinite().all() for t in tensors)
    assert_alike(*said)
    assert told[0] == told[1]


@pytest.mark.parametrize(("cls", "options", "route"), CASES)
def test_crafted_weights_that_make_one_sample_overflow_do_not_show(cls, options, route, releases):
    """The server's trap: a first layer that turns a bright pixel into infinity."""
    said = []
    for images, overflows in ((with_one(0.5), False), (with_one(1.0), True)):
        strategy = party(cls, route=route, ring_parties=0, **options)  # only to look at
        strategy.build_dataset(images)
        releases.clear()
        exchange(strategy, strategy.get_weights()) if route == "server" else None
        with torch.no_grad():
            first = next(p for p in strategy.model.parameters() if p.ndim == 4)
            first.fill_(2.0**61)  # within what a server may send
            features = strategy.model.backbone(to_model_input(torch.from_numpy(images)))
            assert features[3].isfinite().all() != overflows
        said.append(behaviour(strategy, route, rounds=1))
    assert_alike(*said)


class StillViews:
    """Views that draw nothing."""

    row_wise = True

    def __call__(self, x, generator):
        return ViewSet(*3 * [to_model_input(x)], torch.zeros(len(x), dtype=torch.int64))


class Failing(FedRotPredStrategy):
    """Raises an error where a sample is bright, in a place of the author's choice."""

    where = "loss"
    bright = 0.999

    def _look(self, batch):
        if float(batch["inputs"].max()) >= self.bright:
            raise RuntimeError(f"a bright sample in {self.where}")

    def make_objective(self):
        objective = super().make_objective()
        # The same views of a sample each time: a batch that is done row by row draws new ones.
        objective.views = StillViews()
        split = objective.per_example

        def per_example(model, batch):
            self.where == "split" and self._look(batch)
            loss, prepared = split(model, batch)

            def failing(model, prepared):
                self.where == "loss" and self._look({"inputs": prepared["inputs"]})
                return loss(model, prepared)

            failing.stateful = True  # a condition on values is nothing for vmap
            return failing, prepared

        objective.per_example = per_example
        return objective

    def before_local_training(self, user):
        super().before_local_training(user)
        if self.where == "before":
            self._look({"inputs": torch.from_numpy(np.array(self.require_data().samples))})

    def after_local_training(self, user):
        super().after_local_training(user)
        if self.where == "after":
            self._look({"inputs": torch.from_numpy(np.array(self.require_data().samples))})


@pytest.mark.parametrize("where", ["split", "loss", "before", "after"])
@pytest.mark.parametrize("options", [USER, RECORD, {**USER, **VIRTUAL}])
def test_an_error_in_own_code_counts_as_zero_and_does_not_show(
    where, options, releases, monkeypatch
):
    monkeypatch.setattr(Failing, "where", where)
    monkeypatch.setattr(Failing, "bright", 2.0)  # the rehearsal's made-up samples pass
    outcomes = []
    for bright in (2.0, 0.9999):
        strategy = party(Failing, views="grey", view_options={"noise": 0.0}, **options)
        strategy.build_dataset(with_one(1.0) * np.float32(1.0))
        exchange(strategy, strategy.get_weights())
        strategy.privacy.rehearse()
        monkeypatch.setattr(Failing, "bright", bright)
        releases.clear()
        outcomes.append((behaviour(strategy, rounds=1), list(releases), strategy.privacy.silence))
    (said, plain, calm), (silenced, failed, silence) = outcomes
    assert calm.failures == 0
    assert silence.failures > 0
    assert_alike(said, silenced)
    for (a, sensitivity, release), (b, _, other) in zip(plain, failed, strict=True):
        assert release == other
        # A unit counts as zero in place of what it has, and others as they did.
        assert torch.cat([(x - y).flatten() for x, y in zip(a, b)]).norm() <= sensitivity * 1.0001


class Mistaken(FedRotPredStrategy):
    """Has a mistake that has nothing to do with the data."""

    def before_local_training(self, user):
        super().before_local_training(user)
        raise AttributeError("a typing error")


@pytest.mark.parametrize("options", [USER, RECORD, {**USER, **VIRTUAL}])
def test_a_mistake_of_the_code_shows_before_the_data_are_touched(options, releases):
    strategy = party(Mistaken, **options)
    with pytest.raises(AttributeError, match="a typing error"):
        strategy.get_weights()
    assert not releases
    wrong = party(FedRotPredStrategy, model=GROUP, views="colour", **options)
    with pytest.raises(Exception, match="Expected `x` to be colour images"):
        wrong.get_weights()


def test_the_rehearsal_costs_nothing_and_leaves_the_party_as_it_was():
    strategy = party(**USER)
    before = {k: v.clone() for k, v in strategy.model.state_dict().items()}
    strategy.privacy.rehearse()
    assert strategy.privacy.rehearsed
    assert not strategy.privacy.ledger.spent
    assert strategy.rounds_done == strategy.reports.rows_trained == 0
    assert strategy.objective.centroids is None
    assert all(torch.equal(before[k], v) for k, v in strategy.model.state_dict().items())


def test_protected_samples_are_not_evaluated_unless_asked_for():
    strategy = party(**USER)
    strategy.build_dataset(toy.images("alice"), stage="eval")
    with pytest.raises(PrivacyError, match=r"`log_unprotected=True` for `evaluate` with privacy="):
        strategy.evaluate()
    told = party(**USER, log_unprotected=True)
    told.build_dataset(toy.images("alice"), stage="eval")
    assert told.evaluate()
