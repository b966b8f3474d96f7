"""A party that sends NaN: it fails the round by name, or is left out of it and recovers."""

from functools import partial

import numpy as np
import pytest
import torch

from orchestra_strategy import (
    OrchestraAdvancedStrategy,
    OrchestraFLModel,
    OrchestraStrategy,
    host,
    server_aggregation,
    session,
)
from orchestra_strategy.algorithms.objective import LossParts, as_loss_parts
from orchestra_strategy.data.sources import fed_ndarray
from orchestra_strategy.errors import OrchestraError, ParameterError, ReplyError
from orchestra_strategy.runtime.progress import RoundProgress
from orchestra_strategy.runtime.traffic import Exchange
from orchestra_strategy.strategies.registry import lookup_strategy
from orchestra_strategy.threads import torch_threads
from orchestra_strategy.users.optimizers import all_finite
from tests.federated import toy
from tests.strategies.test_baselines import PARAMETERS

NAMES = ("alice", "bob", "carol")
NOTHING = Exchange(0, 0, 0, 0)


def images(party):
    return toy.images("alice", 24)[:, ::-1].copy() if party == "carol" else toy.images(party)


@pytest.fixture(autouse=True)
def one_thread():
    with torch_threads(1):
        yield


@pytest.fixture
def three():
    with session(NAMES, mode="debug") as devices:
        yield devices


def data(devices):
    return fed_ndarray({d: images(d.party) for d in devices})


def spoil(worker, value=np.nan):
    with torch.no_grad():
        next(worker.model.parameters()).fill_(value)


class Spoil(host.Callback):
    """Spoils a party's model before one round."""

    def __init__(self, model, party, epoch, value=np.nan):
        super().__init__()
        self.model, self.party, self.epoch, self.value = model, party, epoch, value

    def on_epoch_begin(self, epoch=None, logs=None):
        if epoch == self.epoch:
            (worker,) = [w for d, w in self.model.workers.items() if d.party == self.party]
            host.reveal(worker.apply(spoil, self.value))


def states(model):
    return host.reveal({d.party: w.apply(toy.state_of) for d, w in model.workers.items()})


# ---- Over FLModel --------------------------------------------------------------------------


def test_by_default_a_nan_fails_the_training_and_names_the_party(three):
    model = toy.build(three)
    message = r"`weights/backbone.body.0.weight` of party `bob` to be finite, got NaN"
    with pytest.raises(ReplyError, match=message):
        model.fit(data(three), epochs=2, callbacks=[Spoil(model, "bob", 1)])


def test_a_party_that_sends_nan_is_left_out_and_takes_part_again_in_the_next_round(three, caplog):
    model = toy.build(three, on_bad_reply="leave_out")
    progress = RoundProgress(3, NOTHING, None)
    model.fit(data(three), epochs=3, callbacks=[Spoil(model, "bob", 1), progress])
    assert [row["left_out"] for row in progress.ledger] == [[], ["bob"], []]
    ((party, rounds),) = model.left_out().items()
    assert (party, list(rounds)) == ("bob", [2])
    assert "of party `bob` to be finite, got NaN" in rounds[2]
    assert "1 of 3 replies are left out. Expected" in caplog.text
    assert model.stop_reason is None
    after = states(model)
    for name, value in after["bob"].items():
        assert np.isfinite(value).all(), name
        if name.startswith("online/") and "num_batches" not in name:
            assert np.array_equal(value, after["alice"][name]), name
    metrics = [row["train_loss"] for row in progress.ledger]
    assert np.isfinite(metrics).tolist() == [True, False, True]


def test_a_further_training_starts_its_own_list_of_those_left_out(three):
    model = toy.build(three, on_bad_reply="leave_out")
    model.fit(data(three), epochs=1, callbacks=[Spoil(model, "bob", 0)])
    progress = RoundProgress(1, NOTHING, None)
    model.fit(data(three), epochs=1, callbacks=[progress])
    assert [row["left_out"] for row in progress.ledger] == [[]]
    assert list(model.left_out()["bob"]) == [1]


def test_more_bad_replies_than_the_policy_allows_fail_the_training(three):
    model = toy.build(three, on_bad_reply="leave_out")
    callbacks = [Spoil(model, party, 0) for party in ("alice", "carol")]
    message = r"`min_parties` = 2 sound replies, got 1 of 3.* party `alice` .* party `carol`"
    with pytest.raises(ReplyError, match=message):
        model.fit(data(three), epochs=1, callbacks=callbacks)


@pytest.mark.parametrize("options", [{"aggregation": "median"}, {"aggregation": "mean"}])
def test_the_median_holds_against_a_party_that_the_mean_follows(three, options):
    model = toy.build(three, **options)
    model.fit(data(three), epochs=1, callbacks=[Spoil(model, "bob", 0, value=1e6)])
    largest = abs(states(model)["alice"]["online/backbone.body.0.weight"]).max()
    assert (largest < 10) == (options["aggregation"] == "median")


# ---- By hand: every strategy and kind of user ----------------------------------------------


def made(name, strategy="orchestra", **kwargs):
    cls = lookup_strategy(strategy)
    options = {**PARAMETERS.get(strategy, toy.PARAMETERS), "on_bad_reply": "leave_out", **kwargs}
    party = cls(partial(toy.MODEL, heads=cls.heads), random_seed=7, party=name, **options)
    party.build_dataset(images(name))
    return party


def exchange(parties, wires):
    how = parties[0].config.aggregation
    server = server_aggregation(
        num_global_clusters=4, aggregation=how, on_bad_reply="leave_out", party_names=NAMES
    )
    for party, reply in zip(parties, server(wires)):
        party.apply_weights(reply)


def round_of(parties, step):
    wires = [party.train_step(None, step, 1)[0] for party in parties]
    exchange(parties, wires)
    return wires


def finite(wire):
    return all(np.isfinite(a).all() for a in wire["arrays"].values())


CASES = [
    ("orchestra", {}),
    ("orchestra", {"user_type": "local_gradient"}),
    ("orchestra_advanced", {}),
    ("orchestra_simple", {}),
    ("fed_byol", {}),
    ("fed_simclr", {}),
]


def broken_loss(party):
    loss_terms = party.loss_terms

    def broken(model, batch):
        loss = as_loss_parts(loss_terms(model, batch))
        return LossParts(loss.total * np.nan, loss.parts)

    return broken


@pytest.mark.parametrize(("strategy", "kwargs"), CASES)
def test_a_loss_of_nan_leaves_nothing_behind(strategy, kwargs, monkeypatch):
    parties = [made(name, strategy, **kwargs) for name in NAMES]
    bob = parties[1]
    exchange(parties, [party.get_weights() for party in parties])
    monkeypatch.setattr(bob, "loss_terms", broken_loss(bob))
    wires = round_of(parties, 0)
    assert [finite(wire) for wire in wires] == [True, False, True]
    assert list(bob.left_out_of()) == [1]
    assert bob.inspection.collapse is None or "diverged" in bob.inspection.collapse
    monkeypatch.undo()
    for step in (1, 2):
        assert all(finite(wire) for wire in round_of(parties, step))
    assert list(bob.left_out_of()) == [1]
    assert np.isfinite(list(bob.get_logs().values())).all()
    theirs = parties[0].averaged_weights()
    for name, ours in bob.averaged_weights().items():
        assert np.array_equal(ours, theirs[name]), name


def test_a_party_of_virtual_users_refuses_their_nan_by_itself(monkeypatch):
    """No mean of its users is made, so there is nothing to send, whatever the policy."""
    bob = made("bob", user_type="multiuser_aggregate", num_virtual_users=2)
    wire = bob.get_weights()
    bob.apply_weights(server_aggregation(num_global_clusters=4)([wire])[0])
    monkeypatch.setattr(bob, "loss_terms", broken_loss(bob))
    with pytest.raises(OrchestraError, match="Expected a finite update, got one that is not from"):
        bob.train_step(None, 0, 1)


def test_what_is_sound_stays_at_a_party_that_was_left_out():
    """Here its reply was refused for another reason: nothing at the party is broken."""
    parties = [made(name) for name in NAMES]
    exchange(parties, [party.get_weights() for party in parties])
    wires = [party.train_step(None, 0, 1)[0] for party in parties]
    wires[1]["meta"]["round"] = 7
    optimizer = parties[1].user_type.user.optimizer
    before = [entry["momentum_buffer"].clone() for entry in optimizer.state.values()]
    target = {k: v.clone() for k, v in parties[1].objective.target.state_dict().items()}
    exchange(parties, wires)
    assert "got 7 from party `bob`" in parties[1].left_out_of()[1]
    after = [entry["momentum_buffer"] for entry in optimizer.state.values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    for name, value in parties[1].objective.target.state_dict().items():
        assert torch.equal(value, target[name]), name


def test_the_round_goes_on_as_if_the_party_were_not_there():
    parties = [made(name) for name in NAMES]
    exchange(parties, [party.get_weights() for party in parties])
    wires = [party.train_step(None, 0, 1)[0] for party in parties]
    want = server_aggregation(num_global_clusters=4)([wires[0], wires[2]])[0]["arrays"]
    spoil(parties[1])
    wires[1] = parties[1]._send("round")
    exchange(parties, wires)
    for party in parties:
        for name, value in party.averaged_weights().items():
            assert np.array_equal(value, want[name]), name
        centroids = party.objective.centroids.numpy()
        assert np.array_equal(centroids, want["global_centroids"])


def test_the_optimizer_the_target_and_the_memory_are_cleaned():
    bob = made("bob")
    wire = bob.get_weights()
    bob.apply_weights(server_aggregation(num_global_clusters=4)([wire])[0])
    bob.train_step(None, 0, 1)
    spoil_target(bob)
    for entry in bob.user_type.user.optimizer.state.values():
        entry["momentum_buffer"].fill_(np.inf)
    reply = server_aggregation(num_global_clusters=4)([bob._send("round")])[0]
    reply["meta"] = {**reply["meta"], "left_out": "a reason"}
    bob.apply_weights(reply)
    assert not bob.user_type.user.optimizer.state
    encoder = bob.objective.target.state_dict()
    assert all_finite(encoder.values())
    online = bob.model.state_dict()
    assert torch.equal(encoder["0.body.0.weight"], online["backbone.body.0.weight"])
    rows = len(bob.objective.memory)
    ids = bob.objective.memory.ids.clone()
    bob.objective.memory.append(torch.full((2, 16), np.nan), torch.tensor([0, 1]))
    assert len(bob.objective.memory) == rows
    assert torch.equal(bob.objective.memory.ids, ids)


def spoil_target(party):
    with torch.no_grad():
        next(party.objective.target.parameters()).fill_(np.nan)


# ---- Quality as a choice of its own --------------------------------------------------------


def test_orchestra_by_quality_is_orchestra_advanced_without_its_l2_term():
    wires = []
    for cls, options in (
        (OrchestraStrategy, {"aggregation": "quality"}),
        (OrchestraAdvancedStrategy, {"l2_weight": 0.0}),
    ):
        party = cls(toy.MODEL, random_seed=7, party="bob", **toy.PARAMETERS, **options)
        party.build_dataset(images("bob"))
        assert "quality" in party.manifest().arrays()
        server = server_aggregation(num_global_clusters=4, aggregation="quality")
        party.apply_weights(server([party.get_weights()])[0])
        wires.append(party.train_step(None, 0, 1)[0])
    ours, theirs = (wire["arrays"] for wire in wires)
    assert 0 < ours["quality"][0] < 1
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def test_orchestra_advanced_with_another_aggregation_sends_no_quality():
    party = made("bob", "orchestra_advanced", aggregation="median")
    assert "quality" not in party.get_weights()["arrays"]
    assert "quality" not in [row["name"] for row in party.manifest_rows()]


# ---- Refusals ------------------------------------------------------------------------------


class EqualParties(OrchestraStrategy):
    @staticmethod
    def aggregate_weights(weights_list, sample_counts):
        return list(weights_list[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aggregation": "best"}, "`aggregation` to be 'mean', 'median', 'trimmed_mean' or 'qual"),
        ({"trim": 0.5}, "`trim` to be less than 0.5, got 0.5"),
        ({"min_parties": 1}, "`min_parties` to be greater than or equal to 2, got 1"),
        (
            {"aggregation": "trimmed_mean"},
            r"at least one of 3 parties at each end, got 0.1.*use at least 0.334",
        ),
        (
            {"on_bad_reply": "leave_out", "min_parties": 3},
            "`min_parties` to be below the number of parties .* got 3 of 3",
        ),
        ({"strategy": "fed_simclr", "aggregation": "quality"}, "do not leave the party, got 'qua"),
        (
            {"server_agg_method": server_aggregation(num_global_clusters=4, aggregation="median")},
            "`aggregation` of the strategy and of .* to be equal, got 'mean' and 'median'",
        ),
        (
            {
                "server_agg_method": server_aggregation(num_global_clusters=4),
                "on_bad_reply": "leave_out",
            },
            "`on_bad_reply` of the strategy and of .* to be equal, got 'leave_out' and 'fail'",
        ),
    ],
)
def test_bad_choices_are_refused_on_the_driver(three, options, message):
    base = {"server": three[0], "device_list": three, "model": toy.MODEL}
    shared = toy.PARAMETERS if "strategy" not in options else {}
    with pytest.raises(ParameterError, match=message):
        OrchestraFLModel(**{**base, **shared, **options})


def test_a_strategy_s_own_aggregation_wins_over_the_mean_and_is_refused_beside_another(
    three, monkeypatch
):
    monkeypatch.setattr(
        "orchestra_strategy.runtime.fl_wiring.our_strategy", lambda name: EqualParties
    )
    model = toy.build(three)
    assert model.server_agg_method.aggregate_weights is EqualParties.aggregate_weights
    assert model.server_agg_method.party_names == NAMES
    with pytest.raises(ParameterError, match=r"EqualParties.aggregate_weights' and 'median'"):
        toy.build(three, aggregation="median")


def test_choices_of_the_server_are_for_the_constructor_alone(three):
    model = toy.build(three)
    for name, value in (("aggregation", "median"), ("on_bad_reply", "leave_out")):
        with pytest.raises(ParameterError, match=f"`{name}` to stay as in the constructor"):
            model.fit(data(three), epochs=1, strategy_kwargs={name: value})
