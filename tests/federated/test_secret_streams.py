"""Where a party's randomness comes from: a seed in simulations, a secret where it protects."""

from functools import partial

import numpy as np
import pytest
import torch

from orchestra_strategy import (
    OrchestraFLModel,
    OrchestraStrategy,
    host,
    orchestra_model,
    server_aggregation,
)
from orchestra_strategy.checkpoints.state import restore, state_of
from orchestra_strategy.data import round_batches
from orchestra_strategy.errors import CheckpointError, ParameterError
from orchestra_strategy.privacy.mechanism import GaussianMechanism
from orchestra_strategy.rng import SecretStreams, SeededStreams, torch_generator
from tests.federated import toy
from tests.strategies.test_private import RECORD, USER, VIRTUAL, exchange, party

KEY = bytes(range(32))


def draws(streams):
    """One draw of each kind."""
    return (
        torch.rand(4, generator=streams.for_torch("alice", 1, "views")).tolist(),
        streams.for_numpy("alice", 1, "order").permutation(50).tolist(),
        torch.rand(4, generator=streams.child("alice", 0, "x").for_torch("u", 1, "y")).tolist(),
    )


def test_secret_streams_repeat_for_their_secret_alone():
    assert draws(SecretStreams(KEY)) == draws(SecretStreams(KEY))
    for a, b in zip(draws(SecretStreams(KEY)), draws(SecretStreams())):
        assert a != b
    other = SecretStreams()
    other.load_state(SecretStreams(KEY).state())
    assert draws(other) == draws(SecretStreams(KEY))
    assert KEY.hex() not in repr(other)
    with pytest.raises(ParameterError, match="`key` to have 32 bytes, got 3"):
        SecretStreams(b"abc")


def test_each_coordinate_makes_another_secret_stream():
    streams = SecretStreams(KEY)
    first = torch.rand(4, generator=streams.for_torch("alice", 1, "views"))
    for who, index, purpose in (("bob", 1, "views"), ("alice", 2, "views"), ("alice", 1, "order")):
        other = torch.rand(4, generator=streams.for_torch(who, index, purpose))
        assert not torch.equal(first, other)


def test_torchs_generator_is_filled_in_its_full_width():
    """Torch's own seeding takes 32 bits; numpy's Mersenne Twister with these words agrees."""
    streams = SecretStreams(KEY)
    words = np.frombuffer(streams._bytes("torch", "alice", 1, "views", 4 * 624), "<u4")
    reference = np.random.RandomState()
    reference.set_state(("MT19937", words, 624))
    want = reference.randint(0, 2**32, 2000, dtype=np.uint64) & np.uint64(2**24 - 1)
    got = torch.rand(2000, generator=streams.for_torch("alice", 1, "views")) * 2**24
    assert np.array_equal(got.numpy().astype(np.uint64), want)
    for seed in (0, 1, 5):
        again = torch.rand(4, generator=torch.Generator().manual_seed(seed))
        same = torch.rand(4, generator=torch.Generator().manual_seed(seed + 2**32))
        assert torch.equal(again, same)  # what the full width is for


def test_seeded_streams_are_what_everybody_can_repeat():
    streams = SeededStreams(7)
    mine = torch.rand(4, generator=streams.for_torch("alice", 1, "views"))
    assert torch.equal(mine, torch.rand(4, generator=torch_generator(7, "alice", 1, "views")))
    assert not streams.secret
    assert streams.state() is None


# ---- Which a party has ---------------------------------------------------------------------


def by_hand(**options):
    return OrchestraStrategy(
        toy.MODEL, random_seed=7, **{"party": "alice", **toy.PARAMETERS, **options}
    )


@pytest.mark.parametrize(
    ("make", "secret"),
    [
        (by_hand, False),
        (partial(by_hand, streams="seed"), False),
        (partial(by_hand, streams="secret"), True),
        (partial(party, **{**USER, "noise_seed": None}), True),
        (partial(party, **{**RECORD, "noise_seed": None}), True),
        (partial(party, **USER), False),  # `noise_seed` is for tests
    ],
)
def test_privacy_and_the_parameter_decide_and_the_manifest_says_it(make, secret):
    strategy = make()
    assert strategy.streams.secret == secret
    (row,) = [r for r in strategy.manifest_rows() if r["name"] == "random streams"]
    assert ("a secret of the party" in row["meaning"]) == secret


def test_a_public_seed_is_refused_with_privacy():
    with pytest.raises(ParameterError, match=r"`streams` to be 'auto' or 'secret' .* `noise_seed`"):
        party(**USER, streams="seed")


@pytest.mark.parametrize("streams", ["auto", "secret"])
def test_in_debug_mode_the_seed_decides_unless_a_secret_is_asked_for(devices, streams):
    model = toy.build(devices, streams=streams)
    model.fit(toy.data(devices), epochs=1)
    worker = next(iter(model.workers.values()))
    assert host.reveal(worker.apply(lambda w: w.streams.secret)) == (streams == "secret")
    assert host.in_simulation()


def views_of(strategy, server_seed=7):
    """Return the views of a party's first step, and what a server makes of the public seed."""
    seen, inner = [], strategy.objective.views
    strategy.objective.views = lambda x, g: seen.append((x, inner(x, g))) or seen[-1][1]
    exchange(strategy, strategy.get_weights())
    seen.clear()
    strategy.train_step(None, 0, 1)
    samples = torch.from_numpy(toy.images("alice"))
    order = next(round_batches(len(samples), 8, 1, server_seed, "alice", 0))
    guess = inner(samples[order], torch_generator(server_seed, "alice", 1, "views"))
    return seen[0][1], guess


@pytest.mark.parametrize(("streams", "found"), [("seed", True), ("secret", False)])
def test_a_server_repeats_views_and_order_by_the_seed_but_not_a_secret(streams, found):
    strategy = by_hand(streams=streams)
    strategy.build_dataset(toy.images("alice"))
    real, guess = views_of(strategy)
    assert torch.equal(real.x1, guess.x1) == found


def test_users_and_their_order_follow_from_the_secret():
    def drawn(key):
        strategy = party(
            OrchestraStrategy, **{**VIRTUAL, "users_per_round": 2, "streams": "secret", "k_min": 2}
        )
        strategy.streams.load_state(key.hex())
        strategy.build_dataset(toy.images("alice"))
        exchange(strategy, strategy.get_weights())
        users = []
        for step in range(4):
            strategy.train_step(None, step, 1)
            users.append(strategy.user_type.user.users_done)
        return users, [part.tolist() for part in strategy.user_type.parts]

    assert drawn(KEY) == drawn(KEY)
    assert drawn(KEY) != drawn(bytes(32))


def test_a_checkpoint_keeps_the_secret_and_refuses_another_source():
    kept = by_hand(streams="secret")
    kept.build_dataset(toy.images("alice"))
    exchange(kept, kept.get_weights())
    state = state_of(kept)
    again = by_hand(streams="secret")
    restore(again, state)
    assert draws(again.streams) == draws(kept.streams)
    with pytest.raises(CheckpointError, match=r"`streams` to be as in the checkpoint, .* a secret"):
        restore(by_hand(streams="seed"), state)


# ---- SecretFlow's own FLModel ----------------------------------------------------------------


def test_without_a_name_nothing_follows_from_a_fingerprint_of_the_data(devices, monkeypatch):
    """One of ten users' data replaced: what leaves moves by two users' shares at most."""
    seen = []

    def spy(self, tensors, sensitivity, release):
        seen.append((torch.cat([t.detach().double().flatten() for t in tensors]), sensitivity))
        return [t.detach().clone() for t in tensors]

    monkeypatch.setattr(GaussianMechanism, "add_noise", spy)
    rng = np.random.default_rng(0)
    first = rng.random((40, 8, 8), np.float32)
    second = first.copy()
    second[:4] = rng.random((4, 8, 8), np.float32)
    found = []
    for images in (first, second):
        seen.clear()
        data = toy.fed_ndarray({devices[0]: images, devices[1]: first})
        model = host.FLModel(
            server=devices[0],
            device_list=devices,
            model=partial(toy.MODEL, norm="group+batch"),
            strategy="orchestra_private",
            backend="torch",
            server_agg_method=server_aggregation(num_global_clusters=4),
            **{"num_global_clusters": 4, "num_local_clusters": 1, "memory_size": 4, "k_min": 2},
            **{"local_epochs": 2, "batch_size": 4, "lr": 0.5, "clip_norm": 0.5, **USER},
            **{**VIRTUAL, "num_virtual_users": 10, "user_split": "blocks"},
        )
        model.fit(data, data, epochs=1, aggregate_freq=10**6, verbose=0)
        found.append(seen[:2])  # alice's updates and moments
    for (a, sensitivity), (b, _) in zip(*found):
        assert 0 < (a - b).norm().item() <= 2 * sensitivity * (1 + 1e-5)


def test_an_own_flmodel_takes_the_parameter(devices):
    with pytest.raises(ParameterError, match="`streams` to be 'auto', 'seed' or 'secret'"):
        OrchestraFLModel(
            server=devices[0],
            device_list=devices,
            model=partial(orchestra_model, "conv4", in_channels=1),
            streams="public",
        )
