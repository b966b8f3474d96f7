import pickle

import numpy as np
import pytest

from orchestra_strategy import server_aggregation
from orchestra_strategy.aggregation.weighted import weighted_mean
from orchestra_strategy.algorithms.clustering import random_unit_rows
from orchestra_strategy.algorithms.global_clustering import global_clustering
from orchestra_strategy.errors import ParameterError, ReplyError
from orchestra_strategy.rng import torch_generator


def wire(value, samples=1, round_index=1, phase="round", centroids=None, current=None):
    arrays = {"weights/w": np.full(2, value, np.float32)}
    if centroids is not None:
        arrays["local_centroids"] = np.asarray(centroids, np.float32)
        arrays["global_centroids"] = np.asarray(current, np.float32)
    meta = {"version": 1, "round": round_index, "phase": phase, "num_samples": samples}
    return {"meta": meta, "arrays": arrays}


def test_mean_by_hand():
    mean = weighted_mean([[np.float32([1, 2])], [np.float32([4, 8])]], [1, 2])
    assert mean[0].tolist() == [(1 * 1 + 2 * 4) / 3, (1 * 2 + 2 * 8) / 3]
    assert mean[0].dtype == np.float32


def test_a_mean_of_many_numbers_is_the_sum_in_float64_in_the_order_of_the_parties():
    rng = np.random.default_rng(0)
    large = [rng.standard_normal((3, 7001)).astype(np.float32).T for _ in range(3)]
    counts = [3, 5, 11]
    want = sum(a.astype(np.float64) * (n / 19) for a, n in zip(large, counts)).astype(np.float32)
    (got,) = weighted_mean([[a] for a in large], counts)
    assert got.shape == (7001, 3)
    assert got.tobytes() == want.tobytes()
    assert weighted_mean([[np.float32(2)], [np.float32(4)]], [1, 1])[0].shape == ()


def test_a_party_without_samples_does_not_count():
    assert weighted_mean([[np.float32([1])], [np.float32([9])]], [3, 0])[0].tolist() == [1]


@pytest.mark.parametrize(
    ("weights", "counts", "message"),
    [
        ([], [], "got 0 for 0 parties"),
        ([[np.zeros(1)]], [1, 2], "got 2 for 1 parties"),
        ([[np.zeros(2)], [np.zeros(1)]], [1, 1], r"got \[\(1,\)\] from party 1"),
        ([[np.zeros(2)], []], [1, 1], r"got \[\] from party 1"),
        ([[np.zeros(1)]], [0], "with a positive sum, got"),
        ([[np.zeros(1)], [np.zeros(1)]], [2, -1], "with a positive sum, got"),
        ([[np.zeros(1)]], [float("nan")], "with a positive sum, got"),
    ],
)
def test_mean_refuses(weights, counts, message):
    with pytest.raises(ReplyError, match=message):
        weighted_mean(weights, counts)


def test_every_party_gets_the_mean_weighted_by_samples():
    replies = server_aggregation()([wire(1.0, samples=1), wire(4.0, samples=3)])
    assert len(replies) == 2
    for reply in replies:
        assert reply["arrays"]["weights/w"].tolist() == [3.25, 3.25]
        assert reply["meta"]["num_samples"] == 4


def test_first_centroids_are_fitted_from_random_rows_of_the_seed():
    Z = np.eye(4, 3, dtype=np.float32)[:3]
    zeros = np.zeros((2, 3))
    payloads = [wire(0, phase="init", round_index=0, centroids=Z, current=zeros) for _ in "ab"]
    reply = server_aggregation(num_global_clusters=2, seed=5)(payloads)[0]
    start = random_unit_rows(2, 3, torch_generator(5, "server", 0, "global centroids"))
    import torch

    both = torch.from_numpy(np.concatenate([Z, Z]))
    generator = torch_generator(5, "server", 0, "order of local centroids")
    want = global_clustering(both, start, temperature=0.1, generator=generator).centroids
    assert np.allclose(reply["arrays"]["global_centroids"], want.numpy(), atol=1e-6)


def test_later_centroids_start_from_the_echo_and_a_sync_changes_nothing():
    current = np.eye(2, 3)
    Z = np.float32([[0.8, 0.6, 0], [0, 1, 0]])
    server = server_aggregation(num_global_clusters=2)
    moved = server([wire(0, centroids=Z, current=current)] * 2)[0]["arrays"]["global_centroids"]
    kept = server([wire(0, phase="sync", centroids=Z, current=current)] * 2)[0]
    assert not np.array_equal(moved, current)
    assert np.array_equal(kept["arrays"]["global_centroids"], current)


def test_the_order_of_parties_changes_the_result_by_rounding_only():
    payloads = [wire(v, samples=n) for v, n in ((0.1, 3), (0.7, 5), (-2.3, 2))]
    server = server_aggregation()
    first = server(payloads)[0]["arrays"]["weights/w"]
    assert np.allclose(first, server(payloads[::-1])[0]["arrays"]["weights/w"], atol=1e-6)


def test_inputs_are_not_changed_and_the_method_can_be_sent():
    server = pickle.loads(pickle.dumps(server_aggregation(num_global_clusters=2)))
    payloads = [wire(1.0, centroids=np.eye(2, 3), current=np.eye(2, 3)) for _ in "ab"]
    before = pickle.dumps(payloads)
    server(payloads)
    assert pickle.dumps(payloads) == before
    assert server.__name__ == "orchestra_server_aggregation"


def broken(**changes):
    payload = wire(1.0)
    payload["meta"].update(changes)
    return payload


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ([np.zeros(2)], r"party 1 to send a payload of orchestra_strategy.*got list"),
        ({"meta": {}}, r"got \['meta'\]"),
        ({"meta": {"version": 1}, "arrays": {}}, "`meta` of party 1 to have the keys"),
        (broken(version=9), "payload version 1 from party 1, got 9"),
        (broken(num_samples=-1), "`num_samples` of party 1 to be an integer of at least 0"),
        (broken(phase="later"), "`phase` of party 1 to be .* got 'later'"),
        (broken(round=2), "`round` of all parties to agree, got 2 from party 1"),
        (broken(phase="sync"), "`phase` of all parties to agree, got 'sync'"),
        (wire(float("nan")), "`weights/w` of party 1 to be finite, got NaN"),
        (
            {**wire(1.0), "arrays": {"weights/w": np.zeros(2)}},
            "`weights/w` of party 1 to be a plain numpy array of float32, got float64",
        ),
        ({**wire(1.0), "arrays": {"weights/v": np.zeros(2, np.float32)}}, "`names` of all parties"),
        ({**wire(1.0), "arrays": {"weights/w": np.zeros(3, np.float32)}}, "the same shapes"),
    ],
)
def test_a_reply_that_does_not_fit_is_refused(other, message):
    with pytest.raises(ReplyError, match=message):
        server_aggregation()([wire(1.0), other])


def test_different_echoes_and_sizes_are_refused():
    ours = wire(0, centroids=np.eye(2, 3), current=np.eye(2, 3))
    theirs = wire(0, centroids=np.eye(2, 3), current=-np.eye(2, 3))
    with pytest.raises(ReplyError, match="`global_centroids` of party 1 to be those of party 0"):
        server_aggregation(num_global_clusters=2)([ours, theirs])
    with pytest.raises(ReplyError, match=r"`num_global_clusters`.*got 5 and 2"):
        server_aggregation(num_global_clusters=5)([ours, ours])


def test_no_payload_is_refused():
    with pytest.raises(ReplyError, match="at least one payload"):
        server_aggregation()([])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_global_clusters": 1}, "`num_global_clusters` to be .* equal to 2, got 1"),
        ({"clustering_steps": 0}, "`clustering_steps` to be .* equal to 1, got 0"),
        ({"torch_threads": 1.5}, "`torch_threads` to be a valid integer, got 1.5"),
        ({"temperature": "hot"}, "`temperature` to be a valid number, got 'hot'"),
        ({"temperature": float("nan")}, "`temperature` to be a finite number, got nan"),
        ({"seed": None}, "`seed` to be a valid integer, got None"),
        (
            {"agregation": "median"},
            r"a parameter of `server_aggregation\(...\)`, got `agregation`; .* `aggregation`\?",
        ),
        (
            {"aggregate_weights": "median"},
            "`aggregate_weights` to be a function, got 'median'; .* chosen by `aggregation`",
        ),
        ({"temperature": 0}, "`temperature` to be greater than 0, got 0"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ParameterError, match=message):
        server_aggregation(**options)
