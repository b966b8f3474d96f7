"""A strategy stepped by hand: what leaves a party, k-anonymity, and equivalences."""

import numpy as np
import pytest
import torch

from orchestra_strategy import OrchestraStrategy, server_aggregation
from orchestra_strategy.errors import DataError, ReplyError
from orchestra_strategy.exchange.manifest import Entry, Manifest
from orchestra_strategy.exchange.payload import Payload, pack
from orchestra_strategy.rng import SeededStreams
from tests.federated import toy


def party(name="alice", size=None, **kwargs):
    strategy = OrchestraStrategy(toy.MODEL, random_seed=7, party=name, **toy.PARAMETERS, **kwargs)
    strategy.build_dataset(toy.images(name, size))
    return strategy


def exchange(strategies, payloads):
    for strategy, reply in zip(strategies, server_aggregation(num_global_clusters=4)(payloads)):
        strategy.apply_weights(reply)


def trained(rounds=1, **kwargs):
    parties = [party("alice", **kwargs), party("bob", **kwargs)]
    exchange(parties, [p.get_weights() for p in parties])
    for _ in range(rounds):
        exchange(parties, [p.train_step(None, 0, 1)[0] for p in parties])
    return parties


def test_the_first_step_by_hand_is_round_0():
    strategy = party()
    before = {k: v.clone() for k, v in strategy.model.state_dict().items()}
    wire, num_samples = strategy.train_step(weights=None, cur_steps=0, train_steps=1)
    assert num_samples == 41
    assert wire["meta"] == {"version": 1, "round": 0, "phase": "init", "num_samples": 41}
    assert wire["arrays"]["local_centroids"].shape == (2, 16)
    for name, value in strategy.model.state_dict().items():
        assert torch.equal(value, before[name]), name


def leaves(tree):
    if isinstance(tree, dict):
        return [leaf for value in tree.values() for leaf in leaves(value)]
    return [tree]


def test_exactly_the_manifest_leaves_a_party():
    alice, _ = trained()
    wire, _ = alice.train_step(None, 0, 1)
    expected = alice.manifest().arrays()
    assert wire.keys() == {"meta", "arrays"}
    assert wire["meta"].keys() == {"version", "round", "phase", "num_samples"}
    assert list(wire["arrays"]) == list(expected)
    assert all(type(leaf) in (np.ndarray, int, str) for leaf in leaves(wire))
    sent = sum(a.nbytes for a in wire["arrays"].values())
    assert sent == sum(e.nbytes for e in expected.values())
    names = " ".join(expected)
    assert "target" not in names
    assert "memory" not in names
    assert "num_batches" not in names


def test_no_row_of_memory_target_or_data_is_in_the_payload():
    alice, _ = trained(rounds=2)
    wire, _ = alice.train_step(None, 0, 1)
    sent = {a.tobytes() for a in wire["arrays"].values()}
    sent |= {row.tobytes() for a in wire["arrays"].values() if a.ndim > 1 for row in a}
    secret = list(alice.objective.memory.rows.numpy())
    secret += [t.numpy() for t in alice.objective.target.state_dict().values() if t.numel() > 600]
    secret += list(toy.images("alice"))
    assert not sent & {row.tobytes() for row in secret}


def test_an_undeclared_array_cannot_be_sent(monkeypatch):
    alice, _ = trained()
    extras = alice.extras

    def leaking():
        return {**extras(), "memory": alice.objective.memory.rows.numpy()}

    monkeypatch.setattr(alice, "extras", leaking)
    with pytest.raises(ReplyError, match=r"not in the manifest: \['memory'\]"):
        alice.train_step(None, 0, 1)


def test_what_was_sent_does_not_change_afterwards():
    alice, _ = trained()
    wire, _ = alice.train_step(None, 0, 1)
    before = {k: v.copy() for k, v in wire["arrays"].items()}
    alice.train_step(None, 0, 1)
    assert all(np.array_equal(wire["arrays"][k], v) for k, v in before.items())


def test_what_comes_in_is_copied_and_may_be_read_only():
    alice, _ = trained()
    wire, _ = alice.train_step(None, 0, 1)
    reply = server_aggregation(num_global_clusters=4)([wire])[0]
    for array in reply["arrays"].values():
        array.flags.writeable = False
    alice.apply_weights(reply)
    alice.train_step(None, 0, 1)


@pytest.mark.parametrize("size", [4, 7, 8, 15, 40])
def test_every_centroid_that_leaves_is_a_mean_of_at_least_k_min_samples(size):
    """The clusters share out the memory's distinct samples, at least k_min to each."""
    strategy = party("bob", size)
    wire = strategy.get_weights()
    sizes = strategy.method.centroids.by_user[0].sizes
    assert len(wire["arrays"]["local_centroids"]) == len(sizes)
    assert int(sizes.min()) >= 4
    assert int(sizes.sum()) == len(strategy.objective.memory.ids.unique()) == min(16, size)


def test_scaled_down_sizes_are_told_once_with_both_numbers(caplog):
    party("bob", 7).get_weights()
    (record,) = caplog.records
    told = record.getMessage()
    assert "7 samples: memory_size is 7 instead of 16, num_local_clusters is 1 instead of" in told
    caplog.clear()
    party("bob", 15).get_weights()
    (record,) = caplog.records
    assert record.getMessage().endswith("15 samples: memory_size is 15 instead of 16.")
    caplog.clear()
    party("bob", 20).get_weights()
    assert not caplog.records


def test_memory_holds_different_samples_even_where_rounds_are_parts_of_an_epoch():
    strategy = party("bob")
    strategy.build_dataset(toy.images("bob"), sampling_rate=8 / 20)  # 3 host steps per epoch
    exchange([strategy], [strategy.get_weights()])
    for step in range(7):
        strategy.train_step(None, step, 1)
        ids = strategy.objective.memory.ids
        assert len(ids.unique()) == len(ids)
    assert strategy.rounds_done == 7


def test_host_steps_share_out_an_epoch():
    """However often FLModel aggregates, an epoch is every sample once per local epoch."""
    strategy = party("alice")
    strategy.build_dataset(toy.images("alice"), sampling_rate=8 / 20)
    exchange([strategy], [strategy.get_weights()])
    seen = []
    original = strategy.user_type.user.objective
    strategy.user_type.user.objective = lambda model, batch: seen.append(batch["ids"]) or original(
        model, batch
    )
    for step in range(3):
        strategy.train_step(None, step, 1)
    assert sorted(torch.cat(seen).tolist()) == list(range(41))


def test_a_round_repeats_bit_for_bit_and_depends_on_the_seed():
    states = [toy.state_of(trained(rounds=2)[0]) for _ in range(2)]
    assert all(np.array_equal(states[0][k], states[1][k]) for k in states[0])
    other = [OrchestraStrategy(toy.MODEL, random_seed=8, party=p, **toy.PARAMETERS) for p in "ab"]
    assert not torch.equal(
        other[0].model.state_dict()["projector.0.weight"],
        trained(0)[0].model.state_dict()["projector.0.weight"],
    )


def test_parties_have_different_random_streams():
    """Without a name, a fingerprint of the data stands in: the same images, the same stream."""
    named = [party("alice"), party("bob")]
    draws = [torch.rand(3, generator=p.stream("views")) for p in named]
    assert not torch.equal(*draws)
    nameless = OrchestraStrategy(toy.MODEL, random_seed=7, **toy.PARAMETERS)
    nameless.build_dataset(toy.images("alice"))
    other = OrchestraStrategy(toy.MODEL, random_seed=7, **toy.PARAMETERS)
    other.build_dataset(toy.images("bob"))
    assert nameless.party != other.party
    assert "alice" not in nameless.party


def test_one_party_is_centralised_training():
    """A plain loop over the same batches and views, without federation, gives the same model.

    After a pass the target follows the network that the pass has led to, as after a round. Rounding
    differs by processor and grows with the steps, so both are compared by how far they have moved.
    """
    alice = party("alice", size=24)
    exchange([alice], [alice.get_weights()])
    model = toy_copy(alice)
    start = flat(model)
    reference = toy_copy_objective(alice, model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    for epoch in range(2):
        alice.round_index = epoch + 1
        reference.generator = alice.stream("views")
        model.train()
        order = {"batch_size": 8, "passes": 1, "party": "alice", "epoch": epoch}
        order["streams"] = SeededStreams(7)
        batches = list(alice.require_data().training_batches(0, 1, device="cpu", **order))
        first = [p.clone() for p in reference.target.parameters()]
        for batch in batches:
            optimizer.zero_grad()
            reference(model, batch).total.backward()
            optimizer.step()
        keep = 0.9 ** len(batches)  # ema_decay of the toy run
        online = [*model.backbone.parameters(), *model.projector.parameters()]
        with torch.no_grad():
            for t, before, o in zip(reference.target.parameters(), first, online):
                t.copy_(keep * before + (1 - keep) * o)
        exchange([alice], [alice.train_step(None, 0, 1)[0]])
        reference.centroids = alice.objective.centroids
    moved, apart = (flat(model) - start).norm(), (flat(model) - flat(alice.model)).norm()
    assert apart < 1e-4 * moved


def flat(model):
    return torch.cat([value.detach().double().ravel() for value in model.state_dict().values()])


def toy_copy(strategy):
    model = toy.MODEL()
    model.load_state_dict(strategy.model.state_dict())
    return model


def toy_copy_objective(strategy, model):
    objective = strategy.make_objective()
    objective.load_state_dict(strategy.objective.state_dict())
    return objective


def test_training_before_data_is_refused():
    strategy = OrchestraStrategy(toy.MODEL, **toy.PARAMETERS)
    with pytest.raises(DataError, match="call `build_dataset` first"):
        strategy.train_step(None, 0, 1)


def test_refused_data_are_refused_again_by_the_next_call():
    strategy = OrchestraStrategy(toy.MODEL, **toy.PARAMETERS)
    with pytest.raises(DataError, match="at least `k_min`"):
        strategy.build_dataset(toy.images("alice", 3))
    for call in (strategy.get_weights, lambda: strategy.train_step(None, 0, 1)):
        with pytest.raises(DataError, match="at least `k_min`"):
            call()


def test_a_reply_of_another_model_is_refused():
    alice, _ = trained()
    wire, _ = alice.train_step(None, 0, 1)
    reply = server_aggregation(num_global_clusters=4)([wire])[0]
    reply["arrays"] = {**reply["arrays"], "weights/projector.0.weight": np.zeros((1, 1), "f4")}
    with pytest.raises(
        ReplyError, match=r"`weights/projector.0.weight` of the server to be float32"
    ):
        alice.apply_weights(reply)
    with pytest.raises(ReplyError, match="the server to send a payload of orchestra_strategy"):
        alice.apply_weights([np.zeros(3)])


def test_manifest_by_hand():
    entry = Entry("z", (None, 3), "float32", "clustered", "server", "means", max_rows=2)
    manifest = Manifest((entry,))
    assert entry.nbytes == 2 * 3 * 4
    manifest.check({"z": np.zeros((1, 3), np.float32)})
    for array in (np.zeros((3, 3), "f4"), np.zeros((1, 2), "f4"), np.zeros((1, 3))):
        with pytest.raises(ReplyError, match="`z` of this party to be float32"):
            manifest.check({"z": array})
    with pytest.raises(ReplyError, match="`z` of this party to be finite"):
        pack(Payload({"z": np.full((1, 3), np.inf, np.float32)}, 0, "init", 1), manifest)
    with pytest.raises(ReplyError, match=r"missing: \['z'\]"):
        manifest.check({})
    assert manifest.rows()[0]["bytes"] == 24
