"""What a peer sends is checked before any work on it, in both directions, and ends in our words."""

import copy
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestra_strategy import OrchestraStrategy, server_aggregation
from orchestra_strategy.aggregation.routes import SecureRoute, Sent
from orchestra_strategy.errors import OrchestraError, ParameterError, ReplyError
from orchestra_strategy.payload import Entry, Manifest, Payload
from tests.federated import toy

WEIGHT = "weights/projector.0.weight"
VARIANCE = "weights/backbone.body.1.running_var"


def party(name="alice", **options):
    strategy = OrchestraStrategy(
        toy.MODEL, random_seed=7, party=name, **{**toy.PARAMETERS, **options}
    )
    strategy.build_dataset(toy.images(name))
    return strategy


def server(**options):
    return server_aggregation(num_global_clusters=4, **options)


FIRST = [party(name).get_weights() for name in ("alice", "bob")]


def masked(array):
    hidden = array.copy()
    hidden.flat[0] = np.nan
    return np.ma.MaskedArray(hidden, mask=~np.isfinite(hidden))


ARRAYS = [
    (WEIGHT, masked, "MaskedArray"),
    (WEIGHT, np.matrix, "matrix"),
    (WEIGHT, lambda a: a.tolist(), "list"),
    (WEIGHT, lambda a: None, "NoneType"),
    (WEIGHT, lambda a: "x" * 10**6, "str"),
    (WEIGHT, lambda a: a.astype(object), "object"),
    (WEIGHT, lambda a: a.astype(">f4"), ">f4"),
    (WEIGHT, lambda a: a.astype(np.float64), "float64"),
    (WEIGHT, lambda a: a * np.nan, "NaN or infinity"),
    (WEIGHT, lambda a: a[:3], "shape"),
    (VARIANCE, lambda a: a - 100, "a variance, at least 0, got -"),
]
FROM_PARTIES = [
    *ARRAYS,
    ("local_centroids", lambda a: np.tile(a[:1], (20_000, 1)), "at most 1024 `local_centroids`"),
    ("local_centroids", lambda a: a * np.float32(1e30), "to have length 1"),
    ("local_centroids", lambda a: a * 0, "to have length 1, got lengths from 0 to 0"),
    ("local_centroids", masked, "MaskedArray"),
    ("local_centroids", lambda a: np.float32(1), "float32"),
    ("local_centroids", lambda a: a[0], "two axes"),
    ("global_centroids", lambda a: a + np.float32(3e38), "to have length 1"),
    ("evil" * 1000, lambda a: np.zeros(3, np.float32), "the `names` of all parties to agree"),
    (5, lambda a: np.zeros(3, np.float32), "names of arrays .* to be texts"),
]


@pytest.mark.parametrize(("name", "lie", "message"), FROM_PARTIES)
def test_a_lying_party_is_refused_by_name_and_at_once(name, lie, message):
    wires = copy.deepcopy(FIRST)
    wires.append(copy.deepcopy(FIRST[1]))
    wires[2]["arrays"][name] = lie(wires[2]["arrays"].get(name))
    start = time.process_time()
    names = ("alice", "bob", "carol")
    with pytest.raises(ReplyError, match=message) as e:
        server(party_names=names)(wires)
    assert "`carol`" in str(e.value)
    assert len(str(e.value)) < 1000
    assert time.process_time() - start < 1.0
    sound = server(party_names=names, on_bad_reply="leave_out")(wires)
    assert "carol" in sound[2]["meta"]["left_out"]
    party().apply_weights(sound[0])


def test_a_mean_that_overflows_is_refused_by_name():
    wires = copy.deepcopy(FIRST)
    for wire in wires:
        wire["arrays"][WEIGHT][:] = 3.4e38
    with pytest.raises(ReplyError, match="to have a finite mean") as e:
        server(aggregate_weights=lambda weights, counts: [w * 2 for w in weights[0]])(wires)
    assert WEIGHT in str(e.value)


@pytest.mark.parametrize(
    ("name", "lie", "message"),
    [
        *ARRAYS,
        ("global_centroids", lambda a: a * np.float32(1e6), "to have length 1"),
        ("global_centroids", lambda a: a * 0, "to have length 1"),
        (5, lambda a: np.zeros(3, np.float32), "names of arrays .* to be texts"),
    ],
)
def test_a_lying_server_is_refused(name, lie, message):
    alice = party()
    reply = server()([alice.get_weights()])[0]
    reply["arrays"][name] = lie(reply["arrays"].get(name))
    with pytest.raises(ReplyError, match=r"shape|float32" if message == "shape" else message):
        alice.apply_weights(reply)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("round", 99, "reply to round 1, phase 'round', got one to round 99"),
        ("phase", "init", "got one to round 1, phase 'init'"),
        ("phase", [], "`phase` of the server"),
        ("version", True, "payload version 1"),
        ("num_samples", np.array(5), "`num_samples` of the server"),
        ("left_out", "x" * 10**6, "a reason of at most 2000 characters"),
    ],
)
def test_a_reply_that_belongs_elsewhere_is_refused(key, value, message):
    alice = party()
    alice.apply_weights(server()([alice.get_weights()])[0])
    wire, _ = alice.train_step(None, 0, 1)
    reply = server()([wire])[0]
    reply["meta"][key] = value
    with pytest.raises(ReplyError, match=message) as e:
        alice.apply_weights(reply)
    assert len(str(e.value)) < 1000


junk = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary()),
    *(st.lists(st.integers(), max_size=3), st.dictionaries(st.integers(), st.none(), max_size=2)),
    st.sampled_from([np.zeros(3), np.array("x"), np.array(None), np.float32(1), object(), type]),
)


@given(value=junk, where=st.sampled_from(["arrays", "meta", "", "reply"]), data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_junk_ends_in_our_words(value, where, data):
    wires = copy.deepcopy(FIRST)
    target = wires[1]
    if where in ("arrays", "meta"):
        target = wires[1][where]
    key = data.draw(st.sampled_from(list(target)))
    before, target[key] = target[key], value
    try:
        server()(wires)
    except OrchestraError:
        return
    assert type(before) is type(value)  # a number in place of another one


# ---- Route secure ----------------------------------------------------------------------------

ENTRY = Entry("weights/a.running_var", (2,), "float32", "weighted mean", "server", "a variance")
MANIFEST = Manifest((ENTRY,))


def pack(value, samples=500, **options):
    payload = Payload({ENTRY.name: np.float32([1.0, value])}, 0, "round", samples)
    return SecureRoute().pack(payload, MANIFEST, True, "party `alice`", **options)


def test_what_would_leave_the_ring_is_refused_by_name():
    limit = 2.0**45 / (500 * 3)
    pack(limit * 0.99, ring_parties=3)
    pack(2.8e10, ring_parties=0)  # PlainAggregator computes in floating point
    for value in (2.8e10, limit * 1.01):
        with pytest.raises(ReplyError, match=r"`weights/a.running_var` of .* to be below"):
            pack(value, ring_parties=3)
    with pytest.raises(ReplyError, match="the sum of 64 parties"):
        pack(limit * 0.99)


def test_the_limit_is_where_the_ring_wraps_around():
    """A slow model of the aggregator: whole numbers of 64 bits."""
    limit = 2.0**45 / (500 * 3)
    for factor, wraps in ((0.99, False), (1.01, True)):
        encoded = int(limit * factor * 500 * 2**18)
        total = (3 * encoded + 2**63) % 2**64 - 2**63
        assert (total != 3 * encoded) == wraps


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.float32([1.0, -2.3e10]), "a variance, at least 0, got -2.3e"),
        (np.float32([1.0, np.nan]), "finite"),
        (np.ma.MaskedArray([1.0, 2.0], mask=True), "got MaskedArray"),
        ("x", "got str"),
        (None, "got NoneType"),
    ],
)
def test_a_lying_aggregator_is_refused(array, message):
    check = pack(1.0, ring_parties=0)[0]
    with pytest.raises(ReplyError, match=message):
        SecureRoute().unpack([check, array], Sent(0, "round"), lambda trained: MANIFEST)


def test_a_server_with_too_low_a_limit_is_refused_at_construction():
    with pytest.raises(ParameterError, match=r"`max_local_centroids` .* at least 2 .*, got 1"):
        OrchestraStrategy(
            toy.MODEL,
            server_agg_method=server(max_local_centroids=1, clustering_steps=500),
            **toy.PARAMETERS,
        )
