"""Noisy updates as whole numbers of few bits: the grid by hand, right on average, checked."""

import pickle

import numpy as np
import pytest

from orchestra_strategy import server_aggregation
from orchestra_strategy.cluster.allow_list import loads
from orchestra_strategy.errors import ParameterError, ReplyError
from orchestra_strategy.exchange.rounded import restored, rounded
from orchestra_strategy.privacy import epsilon_of
from orchestra_strategy.privacy.accounting import Release
from tests.exchange.test_half import private_party

NAME = "projector.0.weight"
QUIET = {"privacy": "user", "noise_multiplier": 1.0, "clip_norm": 0.1, "noise_seed": 1}
BYTES = {4: 0.5, 8: 1, 16: 2}


def on_grid(values, bits, seed=0):
    return rounded({"rounded/w": np.float32(values)}, bits, np.random.default_rng(seed))


def trained(parties=1, **options):
    """Parties after a round, their weights before it, and what they send."""
    strategies = [private_party(**{**QUIET, "noise_seed": i, **options}) for i in range(parties)]
    replies = server_aggregation()([s.get_weights() for s in strategies])
    for strategy, reply in zip(strategies, replies):
        strategy.apply_weights(reply)
    before = strategies[0].averaged_weights()
    return strategies, before, [s.train_step(None, 0, 1)[0] for s in strategies]


@pytest.mark.parametrize(
    ("bits", "largest", "sent"),
    [
        (4, 14, [(8 - 7) << 4 | 8 + 2, 8 << 4 | 8 + 7, (8 - 1) << 4 | 8]),
        (8, 254, [-127, 2, 0, 127, -1]),
        (16, 65534, [-32767, 2, 0, 32767, -1]),
    ],
)
def test_numbers_on_the_grid_travel_as_they_are(bits, largest, sent):
    values = [-largest, 4, 0, largest, -2]  # steps of 2
    told = on_grid(values, bits)
    assert told["rounded_steps"].tolist() == [2]
    assert told["rounded/w"].tolist() == sent
    assert told["rounded/w"].nbytes == -(-5 * bits // 8)
    padded = values + [0] * (bits == 4)
    assert restored(told)["rounded/w"].tolist() == padded
    assert on_grid([0, 0], bits)["rounded_steps"] == 0


def test_others_go_to_one_of_two_neighbours_and_are_right_on_average():
    values = np.full(40_000, 0.3)
    values[0] = 1
    got = restored(on_grid(values, 4))["rounded/w"][1:] * 7
    assert set(got.round(5).tolist()) == {2, 3}
    assert got.mean() == pytest.approx(2.1, abs=5 * np.sqrt(0.1 * 0.9 / len(got)))


def test_the_largest_number_is_never_beyond_the_last_step():
    rng = np.random.default_rng(0)
    for value in np.float32(rng.random(500) * 10.0 ** rng.integers(-30, 30, 500)):
        assert on_grid([value, -value], 8)["rounded/w"].tolist() == [127, -127]
    assert on_grid([1e-45, 0], 8)["rounded/w"].tolist() == [1, 0]  # no number lies between


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("user_type", ["multiuser_aggregate", "local_gradient"])
def test_what_leaves_and_comes_back_is_what_the_manifest_says(bits, user_type):
    options = {"user_type": user_type, "num_virtual_users": 3}
    (alice,), before, (wire,) = trained(payload_bits=bits, **options)
    assert alice.privacy.epsilon() == pytest.approx(epsilon_of({Release(1.0): 1}, 1e-5))
    # As cluster mode reads it; arrays of another process may be read-only.
    pickled = pickle.dumps(wire)
    came = loads(pickled, "alice")
    for array in came["arrays"].values():
        array.flags.writeable = False
    (reply,) = server_aggregation()([came])
    rows = {row["name"]: row for row in alice.manifest_rows() if row["when"] != "start"}
    assert rows["rounded/" + NAME]["meaning"].split(" bits")[0].endswith(f"at random to {bits}")
    for name, array in wire["arrays"].items():
        assert rows[name]["bytes"] == array.nbytes == reply["arrays"][name].nbytes, name
    numbers = sum(p.numel() for p in alice.model.parameters())
    sent = sum(a.nbytes for a in wire["arrays"].values())
    assert sent == alice.reply_bytes()["round"]
    assert 0 < len(pickled) - sent < 150 * len(wire["arrays"])
    assert 0 <= sent - numbers * BYTES[bits] < 5 * len(wire["arrays"])
    # With one party it is its own noisy update that comes back, to a step.
    alice.apply_weights(reply)
    released = alice.user_type.user.update_privacy.released
    steps = wire["arrays"]["rounded_steps"]
    for (name, p), total, step in zip(alice.model.named_parameters(), released, steps):
        want = total.numpy() / alice.privacy.num_units()
        scale = alice.config.lr if user_type == "local_gradient" else -1  # and some weight decay
        moved = (before["weights/" + name] - p.detach().numpy()) / scale
        assert np.abs(moved - want).max() <= step + 2e-4, name


def test_all_adopt_the_rounded_mean_and_rounding_is_no_signal():
    parties, before, wires = trained(3, payload_bits=4, lr=1e-9)
    mean = np.mean([restored(w["arrays"])["rounded/" + NAME] for w in wires], axis=0)
    replies = server_aggregation()(wires)
    for strategy, reply in zip(parties, replies):
        own = strategy.model.projector[0].weight.detach().numpy() - before["weights/" + NAME]
        assert own.std() == pytest.approx(0.1, rel=0.02)  # all of the noise, before any rounding
        strategy.apply_weights(reply)
    moved = parties[0].averaged_weights()["weights/" + NAME] - before["weights/" + NAME]
    step = np.abs(mean).max() / 7
    assert np.abs(moved.ravel() - mean).max() <= step * 1.01
    assert np.abs(moved.ravel() - mean).max() > step / 2  # not to the nearest
    for strategy in parties[1:]:
        for name, value in strategy.averaged_weights().items():
            assert np.array_equal(value, parties[0].averaged_weights()[name]), name
    # Uncounted, the rounding of 8 % of the variance would look like a ratio of 0.3.
    assert parties[0].get_logs()["privacy_snr"] < 0.15


def test_a_party_that_does_not_round_is_told_so():
    (rounding, _), (plain, *_) = trained(2, payload_bits=8)[2], trained(2)[2]
    named = "`payload_bits` of all parties to be the same, got some from .*{}.* and none from .*{}"
    for wires, order in (((rounding, plain), "01"), ((plain, rounding), "10")):
        with pytest.raises(ReplyError, match=named.format(*order)):
            server_aggregation()(list(wires))


def changed(name, change):
    def lie(arrays):
        return arrays | {name: change(arrays[name])}

    return lie


LIES = [
    (changed("rounded/" + NAME, np.float32), r"to be .* of uint8, int8 or int16, got float32"),
    (changed("rounded/" + NAME, np.int16), r"Expected `payload_bits` of all parties .*int16"),
    (changed("rounded_steps", lambda a: a[1:]), r"one number for each of its \d+ arrays"),
    (changed("rounded_steps", lambda a: -a - 1), r"`rounded_steps` of party 0 to be from 0 to"),
    (changed("rounded_steps", lambda a: a + np.float32(1e15)), r"0 to 2\*\*48, got 1e\+15"),
    (changed("rounded_steps", lambda a: a * np.nan), "finite, got NaN"),
    (lambda arrays: {n: a for n, a in arrays.items() if n != "rounded_steps"}, "got shape"),
]


def test_what_no_honest_party_sends_is_left_out():
    (_, *_), _, wires = trained(3, payload_bits=8)
    server = server_aggregation(on_bad_reply="leave_out")
    for lie, message in LIES:
        told = server([wires[0] | {"arrays": lie(wires[0]["arrays"])}, *wires[1:]])
        with pytest.raises(ReplyError, match=message):
            raise ReplyError(told[0]["meta"].get("left_out", "nothing"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"payload_bits": 5}, "Expected `payload_bits` to be 4, 8, 16 or None, got 5"),
        ({"payload_bits": 32}, "`payload_bits` to be less than or equal to 16, got 32"),
        ({"privacy": "record"}, "`privacy` to be 'user' with `payload_bits`, got 'record'"),
        ({"route": "secure"}, r"no `payload_bits` on `route='secure'`, got 8.*64 bits.*'server'"),
        ({"payload_dtype": "float16"}, "`payload_dtype` to be 'float32'.*in 8 bits already"),
    ],
)
def test_where_it_cannot_be_it_is_refused(options, message):
    with pytest.raises(ParameterError, match=message):
        private_party(**{**QUIET, "payload_bits": 8, **options})
