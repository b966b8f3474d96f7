"""What the server refuses in the parties' replies, what it says, and what it can do without."""

import logging
import pickle

import numpy as np
import pytest

from orchestra_strategy import server_aggregation
from orchestra_strategy.errors import ParameterError, ReplyError
from orchestra_strategy.exchange.payload import unpack

NAMES = ("alice", "bob", "carol")
KEPT = {"on_bad_reply": "leave_out", "party_names": NAMES}


def wire(value=1.0, samples=1, clusters=None, **meta):
    arrays = {"weights/w": np.full(2, value, np.float32)}
    if clusters is not None:
        arrays["local_centroids"] = np.asarray(clusters, np.float32)
        arrays["global_centroids"] = np.eye(2, 3, dtype=np.float32)
    known = {"version": 1, "round": 1, "phase": "round", "num_samples": samples}
    return {"meta": known | meta, "arrays": arrays}


def of(arrays):
    return {**wire(), "arrays": arrays}


BROKEN = [
    (wire(np.nan), "`weights/w` of party `bob` to be finite, got NaN or inf"),
    (wire(np.inf), "`weights/w` of party `bob` to be finite, got NaN or inf"),
    (
        of({"weights/w": np.zeros(2)}),
        "`weights/w` of party `bob` to be a plain .* float32, got float64",
    ),
    (
        of({"weights/w": [1.0, 2.0]}),
        "`weights/w` of party `bob` to be a plain .* float32, got list",
    ),
    (of({"weights/w": np.zeros(3, "f4")}), r"same shapes, got \(3,\) from party `bob` and \(2,\)"),
    (of({"weights/v": np.zeros(2, "f4")}), r"`names` .* got \['weights/v'\] from party `bob` and"),
    (of({}), r"`names` of all parties to agree, got \[\] from party `bob`"),
    (of([1]), "`arrays` of party `bob` to be arrays by name, got list"),
    (wire(round=2), "`round` of all parties to agree, got 2 from party `bob` and 1 from party `a"),
    (wire(phase="sync"), "`phase` of all parties to agree, got 'sync' from party `bob`"),
    (wire(version=2), "payload version 1 from party `bob`, got 2"),
    (wire(samples=-1), "`num_samples` of party `bob` to be an integer of at least 0 .*, got -1"),
    (
        wire(samples=10**400),
        "`num_samples` of party `bob` to be .* below .* got one of 1329 bits",
    ),
    (wire(samples=2**53), "`num_samples` of party `bob` to be .* below .* got one of 54 bits"),
    (wire(samples=np.ones(2, int)), "`num_samples` of party `bob` to be .* got ndarray"),
    (wire(samples=True), "`num_samples` of party `bob` to be .* got True"),
    (wire(round=10**400), "`round` of party `bob` to be an integer of at least 0 and below 2"),
    (wire(phase=np.array(["sync", "x"])), "`phase` of party `bob` to be .* got ndarray"),
    (
        wire(phase="x" * 10**6),
        "`phase` of party `bob` to be 'init', .* got 'x{80}'",
    ),
    (wire(version=np.ones(2, int)), "payload version 1 from party `bob`, got ndarray"),
    ({1: 2, "meta": 3}, r"party `bob` to send a payload .* got \['1', 'meta'\]"),
    (wire(left_out="no"), "`meta` of party `bob` to have the keys"),
    (None, "party `bob` to send a payload of orchestra_strategy.*got NoneType"),
]


@pytest.mark.parametrize(("bad", "message"), BROKEN)
def test_a_bad_reply_fails_the_round_by_its_party_s_name(bad, message):
    with pytest.raises(ReplyError, match=message):
        server_aggregation(party_names=NAMES)([wire(), bad, wire()])


@pytest.mark.parametrize(("bad", "message"), BROKEN)
def test_a_bad_reply_is_left_out_and_its_party_told_why(bad, message, caplog):
    with caplog.at_level(logging.WARNING):
        replies = server_aggregation(**KEPT)([wire(1.0, 1), bad, wire(4.0, 3)])
    assert [r["arrays"]["weights/w"][0] for r in replies] == [(1.0 * 1 + 4.0 * 3) / 4] * 3
    assert [r["meta"]["num_samples"] for r in replies] == [4, 4, 4]
    told = [unpack(reply, "the server", reply=True).left_out for reply in replies]
    assert told[0] is None
    assert told[2] is None
    with pytest.raises(ReplyError, match=message):
        raise ReplyError(told[1])
    assert "1 of 3 replies are left out. " + told[1] in caplog.text


def test_the_first_party_can_be_the_one_that_differs():
    odd = of({"weights/w": np.zeros(3, "f4")})
    with pytest.raises(ReplyError, match=r"got \(3,\) from party `alice` and \(2,\) from party `b"):
        server_aggregation(party_names=NAMES)([odd, wire(), wire()])
    reply = server_aggregation(**KEPT)([odd, wire(2.0), wire(4.0)])[0]
    assert reply["arrays"]["weights/w"].tolist() == [3.0, 3.0]


def test_where_there_is_no_majority_nobody_can_be_left_out():
    two = {**KEPT, "party_names": None}
    with pytest.raises(ReplyError, match=r"got 2 from party 2 and 1 from party 0.* party 3"):
        server_aggregation(**two)([wire(), wire(), wire(round=2), wire(round=2)])


def test_a_left_out_party_has_no_part_in_the_clustering():
    ours = [wire(clusters=np.eye(2, 3)), wire(clusters=[[0.6, 0.8, 0]])]
    theirs = wire(np.nan, clusters=[[0, 0, 1]])
    options = {"num_global_clusters": 2, "on_bad_reply": "leave_out"}
    want = server_aggregation(**options)(ours)[0]["arrays"]["global_centroids"]
    got = server_aggregation(**options)([theirs, *ours])[0]["arrays"]["global_centroids"]
    with_them = [*ours, wire(clusters=[[0, 0, 1]])]
    other = server_aggregation(**options)(with_them)[0]["arrays"]["global_centroids"]
    assert np.array_equal(got, want)
    assert not np.array_equal(other, want)


@pytest.mark.parametrize(
    ("good", "options", "message"),
    [
        (1, {}, "`min_parties` = 2 sound replies, got 1 of 3. Expected `weights/w` of party `al"),
        (2, {"min_parties": 3}, "`min_parties` = 3 sound replies, got 2 of 3. Expected `weig"),
        (3, {"min_parties": 4}, "`min_parties` = 4 sound replies, got 3 of 3."),
    ],
)
def test_too_few_sound_replies_fail_the_round(good, options, message):
    wires = [wire(np.nan)] * (3 - good) + [wire()] * good
    with pytest.raises(ReplyError, match=message):
        server_aggregation(**KEPT, **options)(wires)


def test_all_bad_replies_are_named():
    with pytest.raises(ReplyError, match=r"party `alice` .* party `carol`"):
        server_aggregation(party_names=NAMES)([wire(np.nan), wire(), wire(version=2)])


def test_sound_replies_are_answered_as_without_the_policy():
    wires = [wire(1.0, 1), wire(2.0, 2), wire(4.0, 3)]
    replies = server_aggregation()(wires), server_aggregation(**KEPT)(wires)
    assert pickle.dumps(replies[0]) == pickle.dumps(replies[1])
    assert replies[0][0]["meta"] == {"version": 1, "round": 1, "phase": "round", "num_samples": 6}


def test_another_number_of_replies_than_of_parties_is_refused():
    message = r"one reply from each of 3 parties \(alice, bob, carol\), got 2"
    with pytest.raises(ReplyError, match=message):
        server_aggregation(party_names=NAMES)([wire(), wire()])


def test_a_reason_that_is_no_text_is_refused():
    reply = server_aggregation()([wire()])[0]
    reply["meta"] = {**reply["meta"], "left_out": 3}
    with pytest.raises(
        ReplyError,
        match="`left_out` of the server to be a reason of at most",
    ):
        unpack(reply, "the server", reply=True)


@pytest.mark.parametrize(
    ("aggregation", "want"),
    [("mean", (1 * 1 + 2 * 1 + 9 * 8) / 10), ("median", 2.0), ("trimmed_mean", 2.0)],
)
def test_how_weights_are_combined_is_chosen_by_name(aggregation, want):
    server = pickle.loads(pickle.dumps(server_aggregation(aggregation=aggregation, trim=0.34)))
    reply = server([wire(1.0, 1), wire(9.0, 8), wire(2.0, 1)])[0]
    assert reply["arrays"]["weights/w"].tolist() == pytest.approx([want, want])


@pytest.mark.parametrize(
    ("trim", "values", "bad", "want"),
    [
        (0.1, [-1e6, 1, 2, 3, 4, 5, 6, 7, 1e6], 1, 4.0),  # of 10 one at each end, as without it
        (0.2, [1, 2, 6, 1e6], 1, 4.0),
        (0.4, [1, 2, 4, 1e6], 1, 3.0),  # two of four would leave nobody: the middle two
        (0.34, [1, 3], 1, 2.0),
    ],
)
def test_the_trimmed_mean_cuts_as_many_when_replies_are_left_out(trim, values, bad, want):
    options = {"aggregation": "trimmed_mean", "trim": trim, "on_bad_reply": "leave_out"}
    wires = [*(wire(value) for value in values), *[wire(np.nan)] * bad]
    reply = server_aggregation(**options)(wires)[0]
    assert reply["arrays"]["weights/w"].tolist() == [want, want]


def test_gradients_are_combined_in_the_same_way():
    wires = [of({"gradients/w": np.float32([value])}) for value in (1, 2, 1e6)]
    reply = server_aggregation(aggregation="median")(wires)[0]
    assert reply["arrays"]["gradients/w"].tolist() == [2.0]


def custom(weights_list, sample_counts):
    return list(weights_list[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aggregation": "meridian"}, "got 'meridian'; did you mean 'median'"),
        ({"aggregation": None}, "`aggregation` to be 'mean', .* or 'quality', got None"),
        ({"trim": 0.5}, "`trim` to be less than 0.5, got 0.5"),
        ({"on_bad_reply": "ignore"}, "`on_bad_reply` to be 'fail' or 'leave_out', got 'ignore'"),
        ({"min_parties": 1}, "`min_parties` to be greater than or equal to 2, got 1"),
        ({"party_names": ["a", "a"]}, r"`party_names` to be .* each once, got \['a', 'a'\]"),
        ({"party_names": "ab"}, "`party_names` to be .* got 'ab'"),
        ({"party_names": [1]}, r"`party_names` to be .* got \[1\]"),
        ({"party_names": []}, r"`party_names` to be .* got \[\]"),
        (
            {"aggregation": "median", "aggregate_weights": custom},
            "either an `aggregate_weights` .* or an `aggregation`, got both: 'custom' and 'median'",
        ),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ParameterError, match=message):
        server_aggregation(**options)
