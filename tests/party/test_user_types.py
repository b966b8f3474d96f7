"""The three kinds of user inside a strategy: equivalences, and the real FLModel."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from orchestra_strategy import (
    FederatedStrategy,
    OrchestraFLModel,
    OrchestraStrategy,
    host,
    server_aggregation,
)
from orchestra_strategy.data import to_model_input
from orchestra_strategy.data.sources import fed_ndarray
from orchestra_strategy.errors import DataError, ParameterError
from tests.federated import toy
from tests.federated.conftest import devices  # noqa: F401

USER_TYPES = ["local_gradient", "local_update", "multiuser_aggregate"]


class Tiny(nn.Module):
    """No BatchNorm: a sample's loss does not depend on the others."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(64, 5)

    def forward(self, x):
        return self.body(x.flatten(1))


class Plain(FederatedStrategy):
    """A stateless objective: features of norm 1, pulled to a fixed direction."""

    def make_objective(self):
        def objective(model, batch):
            z = model(to_model_input(batch["inputs"]))
            return F.mse_loss(z, torch.ones_like(z))

        return objective


def parties(images, seed=3, **parameters):
    made = []
    for name, x in images.items():
        party = Plain(Tiny, random_seed=seed, party=name, **parameters)
        party.build_dataset(x)
        made.append(party)
    return made


def round_of(strategies):
    wires = [s.train_step(None, 0, 1)[0] for s in strategies]
    for strategy, reply in zip(strategies, server_aggregation()(wires)):
        strategy.apply_weights(reply)
    return wires


def test_single_step_equals_centralised_sgd_on_the_pooled_batch():
    images = {"alice": toy.images("alice"), "bob": toy.images("bob")}
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "batch_size": 16}
    federated = parties(images, user_type="local_gradient", **options)
    centre = Tiny()
    centre.load_state_dict(federated[0].model.state_dict())
    optimizer = torch.optim.SGD(centre.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for step in range(6):
        pooled = torch.cat([p.privacy.next_batch(step)["inputs"] for p in federated])
        wires = round_of(federated)
        z = centre(to_model_input(pooled))
        optimizer.zero_grad()
        F.mse_loss(z, torch.ones_like(z)).backward()
        optimizer.step()
        assert sum(w["meta"]["num_samples"] for w in wires) == len(pooled)
        for party in federated:
            for got, want in zip(party.model.parameters(), centre.parameters()):
                assert torch.allclose(got, want, atol=1e-6)
    # Batches of 41 and 20 samples at 16: of different sizes, so the weights matter.
    assert {len(federated[0].privacy.next_batch(i)["ids"]) for i in range(3)} == {16, 13, 12}


class Remembering(Tiny):
    """Keeps a buffer that is averaged, one that is not, and a number in ``state_dict`` alone."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))
        self.register_buffer("scratch", torch.zeros(1), persistent=False)
        self.number = 0

    def get_extra_state(self):
        return self.number

    def set_extra_state(self, state):
        self.number = state


@pytest.mark.parametrize("user_type", USER_TYPES)
def test_a_user_starts_from_all_that_the_party_keeps_beside_parameters(user_type):
    party = Plain(Remembering, random_seed=3, party="alice", user_type=user_type)
    party.build_dataset(toy.images("alice"))
    party.model.seen.fill_(5)
    party.model.scratch.fill_(6)
    party.model.number = 7
    party.train_step(None, 0, 1)
    user = party.user_type.user.model
    assert (user.seen.item(), user.scratch.item(), user.number) == (5, 6, 7)


def test_single_step_sends_gradients_and_no_weights():
    (party,) = parties({"alice": toy.images("alice")}, user_type="local_gradient")
    before = {k: v.clone() for k, v in party.model.state_dict().items()}
    wire, _ = party.train_step(None, 0, 1)
    assert list(wire["arrays"]) == ["gradients/body.weight", "gradients/body.bias"]
    assert list(wire["arrays"]) == list(party.manifest().arrays())
    for name, value in party.model.state_dict().items():
        assert torch.equal(value, before[name])  # they move when the mean comes back


def test_single_step_walks_through_all_data_before_it_repeats():
    (party,) = parties({"alice": toy.images("alice")}, user_type="local_gradient")
    ids = torch.cat([party.privacy.next_batch(i)["ids"] for i in range(3)])
    assert sorted(ids.tolist()) == list(range(41))


def test_blocks_give_each_virtual_user_consecutive_samples():
    options = {"user_type": "multiuser_aggregate", "num_virtual_users": 3}
    x = np.random.default_rng(0).random((10, 8, 8), dtype=np.float32)
    (blocks,) = parties({"alice": x}, user_split="blocks", **options)
    assert [p.tolist() for p in blocks.user_type.parts] == [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]]
    (shuffled,) = parties({"alice": x}, **options)
    assert [p.tolist() for p in shuffled.user_type.parts] != [
        p.tolist() for p in blocks.user_type.parts
    ]
    with pytest.raises(ParameterError, match="`user_split`"):
        blocks.configure({"user_split": "shuffled"})


def test_one_virtual_user_is_the_party_itself_up_to_the_order_of_its_data():
    """One pass in one batch: nothing is left of the order."""
    images = {"alice": toy.images("alice")}
    options = {"batch_size": 64, "local_epochs": 1, "lr": 0.1, "momentum": 0.0}
    (one,) = parties(images, user_type="multiuser_aggregate", num_virtual_users=1, **options)
    (itself,) = parties(images, user_type="local_update", **options)
    for party in (one, itself):
        round_of([party])
    for got, want in zip(one.model.parameters(), itself.model.parameters()):
        assert torch.allclose(got, want, atol=1e-6)


def test_virtual_users_are_the_weighted_mean_of_single_parties():
    options = {"batch_size": 64, "local_epochs": 2, "lr": 0.1, "momentum": 0.0}
    x = toy.images("alice")
    (host_party,) = parties(
        {"alice": x}, user_type="multiuser_aggregate", num_virtual_users=5, **options
    )
    singles = parties(
        {str(i): x[part] for i, part in enumerate(host_party.user_type.parts)}, **options
    )
    round_of([host_party])
    round_of(singles)
    for got, want in zip(host_party.model.parameters(), singles[0].model.parameters()):
        assert torch.allclose(got, want, atol=1e-6)


def test_an_epoch_of_single_steps_is_a_walk_through_the_smallest_party(devices):  # noqa: F811
    model = toy.build(devices, strategy="orchestra_single_step")
    model.fit(toy.data(devices), epochs=2)
    rounds = [host.reveal(w.apply(lambda w: w.rounds_done)) for w in model.workers.values()]
    assert rounds == [6, 6]  # 20 samples at batch 8: three batches, twice
    work = [host.reveal(w.work_done()) for w in model.workers.values()]
    # Alice's six batches are one pass in batches of 8 (8 8 8 8 5 4), bob's are two (8 6 6).
    assert [w["rows"] for w in work] == [41, 40]


def test_users_drawn_go_on_over_several_fits(devices):  # noqa: F811
    options = {"strategy": "orchestra_aggregate", "num_virtual_users": 4, "users_per_round": 1}
    x = {d: toy.images(d.party, 40) for d in devices}
    drawn = []
    for fits, epochs in ((4, 1), (1, 4)):
        model, seen = toy.build(devices, **options), []
        worker = model.workers[devices[0]]
        for _ in range(fits):
            model.fit(fed_ndarray(x), epochs=epochs)
            seen += host.reveal(worker.apply(lambda w: list(w.user_type.user.users_done)))
        drawn.append(seen)
    assert len(set(drawn[0])) > 1
    assert drawn[0][-1] == drawn[1][-1]


def test_other_data_in_a_second_fit_empty_the_memories(devices):  # noqa: F811
    for strategy, sizes in (("orchestra_aggregate", (64, 32)), ("orchestra_single_step", (16, 64))):
        options = {"num_virtual_users": 4} if strategy == "orchestra_aggregate" else {}
        model = toy.build(devices, strategy=strategy, **options)
        for seed, size in enumerate(sizes):
            x = {d: np.roll(toy.images(d.party, size), seed, axis=0) for d in devices}
            model.fit(fed_ndarray(x), epochs=1)
        ids = host.reveal(
            model.workers[devices[0]].apply(lambda w: w.objective.memory.ids.tolist())
        )
        assert len(set(ids)) == len(ids) <= 16
        assert max(ids) < sizes[1]


def test_a_strategy_without_heads_takes_any_model(devices):  # noqa: F811
    host.dispatcher_table()["plain_torch"] = Plain
    try:
        model = OrchestraFLModel(
            server=devices[0], device_list=devices, model=Tiny, strategy="plain", local_epochs=1
        )
        history = model.fit(toy.data(devices), epochs=1)
    finally:
        del host.dispatcher_table()["plain_torch"]
    assert history["global_history"]["train_loss"]


@pytest.mark.parametrize("strategy", ["orchestra", "orchestra_single_step", "orchestra_aggregate"])
def test_all_three_run_in_fl_model(devices, strategy):  # noqa: F811
    options = {"num_virtual_users": 3} if strategy == "orchestra_aggregate" else {}
    model = toy.build(devices, strategy=strategy, **options)
    history = model.fit(toy.data(devices), epochs=2)
    assert np.isfinite(history["global_history"]["train_loss"]).all()
    first, second = (host.reveal(w.apply(toy.state_of)) for w in model.workers.values())
    for name in first:
        if name.startswith("online/") and "num_batches" not in name:
            assert np.array_equal(first[name], second[name]), name
    assert np.array_equal(first["centroids"], second["centroids"])


@pytest.mark.parametrize("user_type", USER_TYPES)
def test_user_type_is_a_parameter_of_orchestra(user_type):
    party = OrchestraStrategy(toy.MODEL, **toy.PARAMETERS, user_type=user_type)
    assert (
        type(party.user_type.user).__name__
        == {
            "local_gradient": "UserSingleStep",
            "local_update": "UserMultiStep",
            "multiuser_aggregate": "MultiUserAggregate",
        }[user_type]
    )
    assert "server learns" in repr(party.user_type.user).lower()


def aggregate(size=24, **kwargs):
    options = {**toy.PARAMETERS, "user_type": "multiuser_aggregate", "num_virtual_users": 4}
    party = OrchestraStrategy(toy.MODEL, random_seed=7, party="a", **{**options, **kwargs})
    party.build_dataset(toy.images("alice", size))
    return party


def start(party):
    reply = server_aggregation(num_global_clusters=4)([party.get_weights()])[0]
    party.apply_weights(reply)


def test_each_virtual_user_has_its_own_memory_of_its_own_samples():
    party = aggregate()
    start(party)
    party.train_step(None, 0, 1)
    for user, part in enumerate(party.user_type.parts):
        ids = party.method.store.load(user)["ids"]
        assert sorted(ids.tolist()) == part.tolist()


def test_every_users_centroids_are_k_anonymous_and_only_they_leave():
    party = aggregate()
    wire = party.get_weights()
    assert [c.sizes.min() >= 4 for c in party.method.centroids.by_user] == [True] * 4
    assert (
        len(wire["arrays"]["local_centroids"])
        == sum(len(c.sizes) for c in party.method.centroids.by_user)
        == 4
    )
    assert wire["meta"]["num_samples"] == 24


def test_users_are_drawn_each_round_and_the_others_keep_their_memory():
    party = aggregate(users_per_round=2)
    start(party)
    before = {u: party.method.store.load(u)["rows"] for u in range(4)}
    wire, num_samples = party.train_step(None, 0, 1)
    moved = {u for u in range(4) if not torch.equal(party.method.store.load(u)["rows"], before[u])}
    assert moved == set(party.user_type.user.users_done)
    assert len(moved) == 2
    assert num_samples == 12
    assert len(wire["arrays"]["local_centroids"]) == 2


def encoder_of(party):
    return {n: p.detach().clone() for n, p in nn.Sequential(
        party.model.backbone, party.model.projector).named_parameters()}  # fmt: skip


def target_of(party):
    return {n: p.clone() for n, p in party.objective.target.named_parameters()}


@pytest.mark.parametrize("user_type", ["local_update", "multiuser_aggregate"])
def test_between_rounds_the_target_follows_the_averaged_network(user_type):
    party = aggregate(ema_decay=0.9, local_epochs=2, user_type=user_type, users_per_round=None)
    start(party)
    first = target_of(party)
    ends, moves = [], []
    original = party.after_local_training

    def spy(user):
        ends.append(target_of(party))
        moves.append(party.objective.moves)
        original(user)

    party.after_local_training = spy
    wire, _ = party.train_step(None, 0, 1)
    # Local steps have moved it, and the round has taken that back.
    assert all(not torch.equal(end["0.body.0.weight"], first["0.body.0.weight"]) for end in ends)
    assert all(torch.equal(now, first[name]) for name, now in target_of(party).items())
    # The server's reply differs from the party's own weights; the target follows the reply.
    reply = server_aggregation(num_global_clusters=4, seed=7)([wire])[0]
    reply["arrays"] = {
        k: v * 1.5 if k.startswith("weights/") else v for k, v in reply["arrays"].items()
    }
    party.apply_weights(reply)
    online, tau = encoder_of(party), 0.9 ** max(moves)
    party.open_round()
    for name, now in target_of(party).items():
        expected = tau * first[name].double() + (1 - tau) * online[name].double()
        torch.testing.assert_close(now.double(), expected, atol=1e-6, rtol=1e-5)
    # It is settled once, not twice.
    before = target_of(party)
    party.open_round()
    assert all(torch.equal(now, before[name]) for name, now in target_of(party).items())


def test_each_virtual_user_starts_from_the_partys_target():
    party = aggregate(ema_decay=0.5)
    start(party)
    first, starts = target_of(party), []
    original = party.before_local_training

    def spy(user):
        original(user)
        starts.append(target_of(party))

    party.before_local_training = spy
    party.train_step(None, 0, 1)
    assert len(starts) == 4
    assert all(torch.equal(t[name], first[name]) for t in starts for name in first)


def test_private_folder_goes_with_the_worker():
    party = aggregate()
    start(party)
    folder = party.method.store._folder.name
    assert oct(__import__("os").stat(folder).st_mode)[-3:] == "700"
    party.method.store._folder.cleanup()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"user_type": "local"}, ParameterError, "`user_type` to be 'local_gradient', 'local_up"),
        ({"num_virtual_users": 0}, ParameterError, "`num_virtual_users` to be greater than"),
        ({"users_per_round": 9}, ParameterError, "`num_virtual_users`, got 9 > 4"),
        ({"size": 15}, DataError, "each of 4 virtual users to have at least `k_min` = 4 .* got 3"),
    ],
)
def test_bad_settings_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        aggregate(**options)
