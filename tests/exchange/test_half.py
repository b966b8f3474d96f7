"""Weights in half the bytes: what is rounded, what is not, and what no float16 is."""

from functools import partial
from types import MappingProxyType

import numpy as np
import pytest

from orchestra_strategy import FedRotPredStrategy, OrchestraStrategy, server_aggregation
from orchestra_strategy.errors import ParameterError, ReplyError
from orchestra_strategy.exchange.half import narrowed, widened
from orchestra_strategy.exchange.manifest import Entry
from tests.federated import toy

WEIGHT = "weights/projector.0.weight"
VARIANCE = "weights/backbone.body.1.running_var"
HALF = {"payload_dtype": "float16"}


def party(name="alice", **options):
    own = {**toy.PARAMETERS, **HALF, **options}
    strategy = OrchestraStrategy(toy.MODEL, random_seed=7, party=name, **own)
    strategy.build_dataset(toy.images(name))
    return strategy


def exchanged(parties, payloads, **options):
    replies = server_aggregation(num_global_clusters=4, **options)(payloads)
    for strategy, reply in zip(parties, replies):
        strategy.apply_weights(reply)
    return replies


def trained(names=toy.PARTIES, options=MappingProxyType({}), **parameters):
    parties = [party(name, **parameters) for name in names]
    exchanged(parties, [p.get_weights() for p in parties], **options)
    wires = [p.train_step(None, 0, 1)[0] for p in parties]
    return parties, wires


def test_numbers_travel_as_the_nearest_float16_and_come_back_unchanged():
    values = np.float32([1 / 3, -0.1, 65504, 65503, 1e-8, 2**-24, 1 + 2**-11, 1 + 3 * 2**-11])
    (half,) = narrowed({"weights/w": values}, entries("float16"), "alice").values()
    assert half.dtype == np.float16
    assert half.tobytes() == values.astype(np.float16).tobytes()
    assert half[-2:].tolist() == [1, 1 + 2**-9]  # ties go to even
    back = widened(half)
    assert back.dtype == np.float32
    assert np.array_equal(back, half)


def entries(dtype):
    return {"weights/w": Entry("weights/w", (8,), dtype, "weighted mean", "server", "")}


def test_what_a_manifest_has_in_float32_stays():
    values = np.float32([1 / 3] * 8)
    assert narrowed({"weights/w": values}, entries("float32"), "alice")["weights/w"] is values


def test_trained_weights_take_half_the_bytes_and_the_manifest_says_what_does_not():
    half, wide = party(), party(payload_dtype="float32")
    rows = {row["name"]: row for row in half.manifest_rows()}
    others = {row["name"]: row for row in wide.manifest_rows()}
    narrow = {name for name, row in rows.items() if row["dtype"] == "float16"}
    trained = {f"weights/{name}" for name, _ in half.model.named_parameters()}
    assert narrow == trained
    for name, row in rows.items():
        assert row["bytes"] * (2 if name in narrow else 1) == others[name]["bytes"], name
    assert rows[WEIGHT]["meaning"].endswith("rounded to float16")
    assert rows[VARIANCE]["meaning"].endswith("stays float32 beside float16 weights")
    assert rows["local_centroids"]["dtype"] == rows["global_centroids"]["dtype"] == "float32"


def test_what_leaves_is_what_the_manifest_says():
    parties, wires = trained()
    for strategy, wire in zip(parties, wires):
        assert {n: a.dtype for n, a in wire["arrays"].items()} == {
            n: e.dtype for n, e in strategy.manifest().arrays().items()
        }


@pytest.mark.parametrize(
    "options",
    [{}, {"aggregation": "median"}, {"aggregation": "trimmed_mean", "trim": 0.4}],
    ids=str,
)
def test_all_adopt_the_same_rounded_average_of_what_was_sent(options):
    (alice, bob, eve), wires = trained(("alice", "bob", "alice"), options, **options)
    replies = exchanged((alice, bob, eve), wires, **options)
    sent = [w["arrays"][WEIGHT].astype(np.float64) for w in wires]
    want = np.median(sent, axis=0)
    if not options:
        want = np.average(sent, axis=0, weights=[w["meta"]["num_samples"] for w in wires])
    want = want.astype(np.float32).astype(np.float16)
    assert replies[0]["arrays"][WEIGHT].tobytes() == want.tobytes()
    for strategy in (alice, bob, eve):
        got = strategy.averaged_weights()[WEIGHT]
        assert got.dtype == np.float32
        assert np.array_equal(got, want)
        assert np.array_equal(strategy.model.projector[0].weight.detach().numpy(), want)


def test_a_partys_own_weights_stay_float32_until_the_average_comes():
    (alice, _), wires = trained()
    own = alice.model.projector[0].weight.detach().numpy()
    assert not np.array_equal(own, wires[0]["arrays"][WEIGHT])
    assert np.array_equal(own.astype(np.float16), wires[0]["arrays"][WEIGHT])


@pytest.mark.parametrize(
    ("value", "shown"), [(65510, "65510"), (-70000, "70000"), (np.nan, "nan"), (np.inf, "inf")]
)
def test_what_no_float16_is_does_not_leave(value, shown):
    (alice, _), _ = trained()
    alice.model.projector[0].weight.data[0, 0] = value
    message = rf"`{WEIGHT}` of party `alice` .* within 65504 .* got {shown}: .*'float32'"
    with pytest.raises(ReplyError, match=message):
        alice.get_weights()


def test_a_variance_beyond_that_range_travels():
    (alice, _), _ = trained()
    alice.model.backbone.body[1].running_var[0] = 1e6
    assert alice.get_weights()["arrays"][VARIANCE][0] == 1e6


def test_with_leave_out_the_server_does_without_it():
    options = {"on_bad_reply": "leave_out"}
    parties, _ = trained(("alice", "bob", "alice"), options, **options)
    parties[1].model.projector[0].weight.data[0, 0] = 1e5
    wires = [p.get_weights() for p in parties]
    replies = exchanged(parties, wires, **options)
    assert f"`{WEIGHT}` of party 1 to be finite" in replies[1]["meta"]["left_out"]
    assert np.array_equal(*(p.averaged_weights()[WEIGHT] for p in parties[:2]))


def test_an_average_that_no_float16_is_does_not_come_back():
    _, wires = trained()
    server = server_aggregation(
        num_global_clusters=4, aggregate_weights=lambda sent, _: [a + 1e5 for a in sent[0]]
    )
    with pytest.raises(ReplyError, match=r"of the combined weights to be finite and within 65504"):
        server(wires)


def test_own_aggregations_get_float32():
    _, wires = trained()
    seen = []

    def first(sent, _):
        seen.extend(array.dtype for arrays in sent for array in arrays)
        return sent[0]

    server_aggregation(num_global_clusters=4, aggregate_weights=first)(wires)
    assert set(seen) == {np.dtype(np.float32)}


def test_parties_that_differ_are_told():
    (_, wide), (narrow, *_) = trained(payload_dtype="float32")[1], trained()[1]
    with pytest.raises(ReplyError, match=r"`payload_dtype` of all parties to be the same, got"):
        server_aggregation(num_global_clusters=4)([narrow, wide])


def test_a_reply_in_the_other_type_is_refused():
    (alice, _), wires = trained()
    reply, _ = server_aggregation(num_global_clusters=4)(wires)
    reply["arrays"] = {name: widened(array) for name, array in reply["arrays"].items()}
    with pytest.raises(ReplyError, match=r"of the server to be float16 \(.*, got float32"):
        alice.apply_weights(reply)


@pytest.mark.parametrize("name", [VARIANCE, "local_centroids"])
def test_only_trained_weights_may_be_narrow(name):
    (alice, _), wires = trained()
    for wire in wires:
        wire["arrays"][name] = wire["arrays"][name].astype(np.float16)
    with pytest.raises(ReplyError, match="float32"):
        alice.apply_weights(server_aggregation(num_global_clusters=4)(wires)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"route": "secure"}, r"'float32' on `route='secure'`.*fixed-point.*`route='server'`"),
        ({"user_type": "local_gradient"}, r"gradients are often below 6e-8.*'local_update'"),
    ],
)
def test_where_nothing_would_be_won_it_is_refused(options, message):
    with pytest.raises(ParameterError, match=message):
        party(**options)


def test_with_privacy_what_leaves_is_the_noisy_update_rounded():
    quiet = {"privacy": "user", "noise_multiplier": 1.0, "clip_norm": 0.1, "noise_seed": 1}
    sent = {}
    for dtype in ("float32", "float16"):
        strategy = private_party(payload_dtype=dtype, **quiet)
        strategy.apply_weights(server_aggregation()([strategy.get_weights()])[0])
        before = strategy.averaged_weights()[WEIGHT]
        wire = strategy.train_step(None, 0, 1)[0]
        own = strategy.model.projector[0].weight.detach().numpy()
        sent[dtype] = wire["arrays"][WEIGHT]
        # The network itself has the noise already, so that rounding comes after it.
        assert (own - before).std() == pytest.approx(0.1, rel=0.1)
        assert np.array_equal(sent[dtype], own.astype(dtype))


def private_party(**options):
    own = {n: toy.PARAMETERS[n] for n in ("batch_size", "local_epochs", "lr")}
    model = partial(toy.MODEL, norm="group")
    strategy = FedRotPredStrategy(model, random_seed=7, party="alice", **(own | options))
    strategy.build_dataset(toy.images("alice"))
    return strategy
