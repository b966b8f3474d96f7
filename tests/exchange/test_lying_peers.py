"""What a peer sends is checked before any work on it, in both directions, and ends in our words."""

import copy
import re
import time

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from orchestra_strategy import OrchestraStrategy, server_aggregation
from orchestra_strategy.aggregation import replies
from orchestra_strategy.aggregation.robust import coordinate_median, trimmed_mean
from orchestra_strategy.aggregation.weighted import weighted_mean
from orchestra_strategy.errors import OrchestraError, ParameterError, ReplyError
from orchestra_strategy.exchange.manifest import Entry, Manifest
from orchestra_strategy.exchange.payload import Payload
from orchestra_strategy.exchange.ring import Ring
from orchestra_strategy.exchange.routes import SecureRoute, Sent
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
    (WEIGHT, lambda a: a[0], "shape"),
    (WEIGHT, lambda a: np.zeros(2, [(f"f{i}", "f4") for i in range(9999)]), "float32"),
    (WEIGHT, lambda a: a * 0 + np.float32(3e38), r"within 2\*\*63 in absolute value.*got 3e\+38"),
    (VARIANCE, lambda a: a - 100, "at least 0, as a variance or a count is, got -"),
]
FROM_PARTIES = [
    *ARRAYS,
    ("local_centroids", lambda a: np.tile(a[:1], (20_000, 1)), "at most 1024 `local_centroids`"),
    ("local_centroids", lambda a: a * np.float32(1e30), r"within 2\*\*63"),
    ("local_centroids", lambda a: a * np.float32(1.01), "to have length 1"),
    ("local_centroids", lambda a: a * 0, "to have length 1, got lengths from 0 to 0"),
    ("local_centroids", masked, "MaskedArray"),
    ("local_centroids", lambda a: np.float32(1), "float32"),
    ("local_centroids", lambda a: a[0], "two axes"),
    ("local_centroids", lambda a: np.eye(2, 7, dtype=np.float32), "the same width"),
    ("global_centroids", lambda a: a + np.float32(3e38), r"within 2\*\*63"),
    ("global_centroids", lambda a: a + np.float32(2), "to have length 1"),
    ("evil" * 1000, lambda a: np.zeros(3, np.float32), "the `names` of all parties to agree"),
    ("evil" * 10**6, lambda a: None, "`evil.*` of party `carol` to be a plain numpy array"),
    ("two\nlines", lambda a: None, r"`two\\nlines` of party `carol`"),
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


def test_a_number_of_samples_that_nobody_has_does_not_spoil_the_round_for_the_others():
    wires = [*copy.deepcopy(FIRST), copy.deepcopy(FIRST[1])]
    wires[2]["meta"]["num_samples"] = 2**53 - 1
    answers = server(on_bad_reply="leave_out")(wires)
    assert "integer of at least 0 and below 2**40" in answers[2]["meta"]["left_out"]
    assert answers[0]["meta"]["num_samples"] == 41 + 20
    party().apply_weights(answers[0])


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        (lambda arrays: arrays.pop("global_centroids"), "and the same width, got shapes .* none"),
        (
            lambda arrays: arrays.update(local_centroids=np.eye(2, 7, dtype=np.float32)),
            r"and the same width, got shapes \(2, 7\) and \(4, 16\)",
        ),
    ],
)
def test_what_all_parties_lie_about_is_refused_as_well(lie, message):
    wires = copy.deepcopy(FIRST)
    for wire in wires:
        lie(wire["arrays"])
    with pytest.raises(ReplyError, match=message):
        server()(wires)


def test_types_and_shapes_of_all_come_before_any_value(monkeypatch):
    """What is looked at last is not looked at where the form is wrong already."""
    looked_at = []
    monkeypatch.setattr(replies, "check_values", lambda *a, **k: looked_at.append(a[1]))
    wires = [*copy.deepcopy(FIRST), copy.deepcopy(FIRST[1])]
    wires[2]["arrays"]["local_centroids"] = np.zeros((20_000, 16), np.float32)
    with pytest.raises(ReplyError):
        server(max_local_centroids=2)(wires)
    assert looked_at == ["party 0", "party 1"]


@pytest.mark.parametrize(
    ("combine", "message"),
    [
        (lambda weights, counts: 3, "a list of 30 arrays, got int"),
        (lambda weights, counts: [], "a list of 30 arrays, got 0"),
        (lambda weights, counts: None, "a list of 30 arrays, got NoneType"),
        (lambda weights, counts: [a.tolist() for a in weights[0]], "float32, got list"),
        (lambda weights, counts: [a.astype(float) for a in weights[0]], "float32, got float64"),
        (lambda weights, counts: [a[None] for a in weights[0]], "to have the shape .* got"),
        (lambda weights, counts: [a * np.float32(1e30) for a in weights[0]], r"within 2\*\*63"),
        (lambda weights, counts: [a * np.float32(3e38) * 9 for a in weights[0]], "finite"),
        (lambda weights, counts: [a - 2 for a in weights[0]], "`weights/.*running_var` .* least 0"),
    ],
)
def test_what_no_party_could_take_is_not_sent_to_them(combine, message):
    with pytest.raises(ReplyError, match=message), np.errstate(over="ignore"):
        server(aggregate_weights=combine)(copy.deepcopy(FIRST))


@pytest.mark.parametrize("combine", [weighted_mean, coordinate_median, trimmed_mean])
def test_no_mean_of_finite_numbers_overflows(combine):
    options = {"trim": 0.0} if combine is trimmed_mean else {}
    most = np.finfo(np.float32).max
    (mean,) = combine([[np.full(3, most)], [np.full(3, most)]], [3, 1], **options)
    assert mean.tolist() == [most] * 3


@pytest.mark.parametrize("form", [np.asfortranarray, lambda a: a[::-1, ::-1].copy()[::-1, ::-1]])
def test_an_array_in_another_order_of_memory_counts_the_same(form):
    wires = copy.deepcopy(FIRST)
    want = server()(wires)[0]["arrays"]
    for name in (WEIGHT, "local_centroids", "global_centroids"):
        wires[1]["arrays"][name] = form(wires[1]["arrays"][name])
        assert not wires[1]["arrays"][name].flags["C_CONTIGUOUS"]
    got = server()(wires)[0]
    assert all(np.array_equal(got["arrays"][name], want[name]) for name in want)
    got["arrays"] = {name: form(a) if a.ndim == 2 else a for name, a in got["arrays"].items()}
    alice = party()
    alice.get_weights()
    alice.apply_weights(got)
    assert np.array_equal(alice.averaged_weights()[WEIGHT], want[WEIGHT])
    assert np.array_equal(alice.objective.centroids.numpy(), want["global_centroids"])


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
        ("num_samples", 40, "`num_samples` of the server .* at least 41, .* got 40"),
        ("left_out", "x" * 10**6, "a reason of at most 1000 characters"),
        ("left_out", "a reason\nCRITICAL and another line", "characters in one line"),
        ("left_out", None, "characters in one line, got None"),
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


@pytest.mark.parametrize("user_type", ["local_update", "local_gradient"])
def test_a_reply_that_is_refused_changes_nothing(user_type):
    alice = party(user_type=user_type)
    alice.apply_weights(server()([alice.get_weights()])[0])
    wire, _ = alice.train_step(None, 0, 1)
    reply = copy.deepcopy(server()([wire])[0])
    for name, array in reply["arrays"].items():
        array += np.float32(name != "global_centroids")
    reply["arrays"]["global_centroids"][:] = 0
    before = {k: v.clone() for k, v in alice.model.state_dict().items()}
    with pytest.raises(ReplyError, match="`global_centroids` of the server to have length 1"):
        alice.apply_weights(reply)
    assert all(torch.equal(v, before[k]) for k, v in alice.model.state_dict().items())


junk = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary()),
    *(st.lists(st.integers(), max_size=3), st.dictionaries(st.integers(), st.none(), max_size=2)),
    st.sampled_from([np.zeros(3), np.array("x"), np.array(None), np.float32(1), object(), type]),
    arrays(
        st.sampled_from([np.float32, np.float64, np.int64, np.bool_, "U3", ">f4", "M8[s]"]),
        array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
    ),
)
often = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def refusal(call):
    """Return our words for it, or None; any other error goes on its way."""
    try:
        call()
    except OrchestraError as error:
        return str(error)
    return None


def put_junk(wire, value, where, data):
    """Put a value in place of another, or beside it; say whether it is another of its type."""
    target = wire if where == "" else wire[where]
    key = data.draw(st.one_of(st.sampled_from(list(target)), st.integers(), st.text(max_size=3)))
    before = target.get(key)
    target[key] = value
    return type(before) is type(value)


@given(value=junk, where=st.sampled_from(["arrays", "meta", ""]), data=st.data())
@often
def test_a_party_s_junk_ends_in_our_words(value, where, data):
    wires = copy.deepcopy(FIRST)
    alike = put_junk(wires[1], value, where, data)
    words = refusal(lambda: server()(wires))
    assert alike if words is None else len(words) < 2000


LISTENER = party()
ANSWER = server()([LISTENER.get_weights()])[0]


@given(value=junk, where=st.sampled_from(["arrays", "meta", ""]), data=st.data())
@often
def test_a_server_s_junk_ends_in_our_words(value, where, data):
    reply = copy.deepcopy(ANSWER)
    alike = put_junk(reply, value, where, data)
    words = refusal(lambda: LISTENER.apply_weights(reply))
    reason = type(reply["meta"]) is dict and type(reply["meta"].get("left_out")) is str
    assert alike or reason if words is None else len(words) < 2000


@given(value=junk)
@often
def test_a_peer_s_junk_as_a_whole_ends_in_our_words(value):
    with pytest.raises(OrchestraError):
        server()([FIRST[0], value])
    with pytest.raises(OrchestraError):
        LISTENER.apply_weights(value)


# ---- Route secure ----------------------------------------------------------------------------

ENTRY = Entry("weights/a.running_var", (2,), "float32", "weighted mean", "server", "a variance")
MANIFEST = Manifest((ENTRY,))


def pack(value, samples=500, **options):
    payload = Payload({ENTRY.name: np.float32([1.0, value])}, 0, "round", samples)
    return SecureRoute().pack(payload, MANIFEST, True, "party `alice`", **options)


def test_what_would_leave_the_ring_is_refused_by_name():
    limit = 2.0**45 / (500 * 3)
    pack(limit * 0.99, ring=Ring(3))
    pack(2.8e10, ring=Ring(0))  # PlainAggregator computes in floating point
    for value in (2.8e10, limit * 1.01):
        with pytest.raises(ReplyError, match=r"`weights/a.running_var` of .* to be below"):
            pack(value, ring=Ring(3))
    with pytest.raises(ReplyError, match="the sum of 64 parties"):
        pack(limit * 0.99)


def test_the_limit_is_that_of_the_aggregator():
    for limit in (2.0**25, 2.0**73):
        pack(limit / 1500 * 0.99, ring=Ring(3, limit))
        with pytest.raises(ReplyError, match=re.escape(f"to be below {limit / 1500:.4g} in")):
            pack(limit / 1500, ring=Ring(3, limit))


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
        (np.float32([1.0, -2.3e10]), "at least 0, as a variance or a count is, got -2.3e"),
        (np.float32([1.0, -1e-4]), "at least 0, as a variance or a count is, got -0.0001"),
        (np.array([1.0, 1e300]), "finite, got NaN or infinity"),
        (np.array([1.0, 1e30]), r"within 2\*\*63"),
        (np.array([1, 2]), "float32 or float64, got int64"),
        (np.array([1.0, 2.0], ">f8"), "float32 or float64, got >f8"),
        (np.array([1.0, 2.0], object), "float32 or float64, got object"),
        (np.matrix([1.0, 2.0]), "float32 or float64, got matrix"),
        ([1.0, 2.0], "float32 or float64, got list"),
        (np.zeros((1, 2)), r"to be float32 \(2,\), got float32 \(1, 2\)"),
        (np.float32([1.0, np.nan]), "finite"),
        (np.ma.MaskedArray([1.0, 2.0], mask=True), "got MaskedArray"),
        ("x", "got str"),
        (None, "got NoneType"),
    ],
)
def test_a_lying_aggregator_is_refused(array, message):
    check = pack(1.0, ring=Ring(0))[0]
    with pytest.raises(ReplyError, match=message):
        SecureRoute().unpack([check, array], Sent(0, "round"), lambda trained: MANIFEST)


@given(value=junk, position=st.integers(0, 1))
@often
def test_an_aggregator_s_junk_ends_in_our_words(value, position):
    wire = pack(1.0, ring=Ring(0))
    wire[position] = value
    words = refusal(lambda: SecureRoute().unpack(wire, Sent(0, "round"), lambda trained: MANIFEST))
    plain = type(value) is np.ndarray and value.shape == (2,)
    assert plain if words is None else len(words) < 2000


def test_a_variance_that_shares_of_secrets_round_below_zero_is_zero():
    """Three units of 2**-18 below zero have been seen, with the protocol CHEETAH."""
    wire = [pack(1.0, ring=Ring(0))[0], np.float32([1.0, -3 * 2.0**-18])]
    reply = SecureRoute().unpack(wire, Sent(0, "round"), lambda trained: MANIFEST)
    assert reply.arrays[ENTRY.name].tolist() == [1.0, 0.0]


def test_zeros_of_an_aggregator_are_told_from_another_round():
    wire = [array * 0 for array in pack(1.0, ring=Ring(0))]
    with pytest.raises(ReplyError, match=r"a mean, got zeros: .* an SPU with `field` FM128"):
        SecureRoute().unpack(wire, Sent(0, "round"), lambda trained: MANIFEST)


def test_a_server_with_too_low_a_limit_is_refused_at_construction():
    with pytest.raises(ParameterError, match=r"`max_local_centroids` .* at least 2 .*, got 1"):
        OrchestraStrategy(
            toy.MODEL,
            server_agg_method=server(max_local_centroids=1),
            **toy.PARAMETERS,
        )
