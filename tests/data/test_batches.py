"""The order of batches: every sample once per pass, no batch of one, seeded."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra_strategy.data import batch_slices, num_batches, round_batches
from orchestra_strategy.errors import ParameterError
from orchestra_strategy.rng import numpy_generator

NUM_SAMPLES = st.integers(1, 70)
BATCH_SIZES = st.integers(1, 80)

quick = settings(max_examples=80, deadline=None)


def batches(num_samples, batch_size, num_passes=1, seed=0, party="alice", round_index=0):
    walk = round_batches(num_samples, batch_size, num_passes, seed, party, round_index)
    return [batch.tolist() for batch in walk]


@quick
@given(n=NUM_SAMPLES, size=BATCH_SIZES, passes=st.integers(1, 4), seed=st.integers(0, 2**31))
def test_round_batches__each_sample_once_per_pass(n, size, passes, seed):
    walk = list(round_batches(n, size, passes, seed, "alice", 3))
    assert len(walk) == num_batches(n, size, passes)
    assert all(batch.dtype == np.int64 for batch in walk)
    per_pass = len(walk) // passes
    assert per_pass * passes == len(walk)
    for start in range(0, len(walk), per_pass):
        one_pass = walk[start : start + per_pass]
        assert sorted(np.concatenate(one_pass).tolist()) == list(range(n))


@quick
@given(n=NUM_SAMPLES, size=st.integers(2, 80))
def test_batches__only_the_last_two_differ_in_size_and_none_is_small(n, size):
    sizes = [len(batch) for batch in batches(n, size)]
    assert all(s == size for s in sizes[:-2])
    assert max(sizes) <= max(size, 3)
    if n > 1:
        assert min(sizes) >= 2
    if n > size:
        assert min(sizes) >= size / 2
        assert abs(sizes[-1] - sizes[-2 if len(sizes) > 1 else -1]) <= max(1, size - 1)


@quick
@given(n=NUM_SAMPLES, size=BATCH_SIZES)
def test_batch_slices__covers_the_rows_in_order(n, size):
    slices = batch_slices(n, size)
    rows = np.arange(n)
    assert np.concatenate([rows[s] for s in slices]).tolist() == list(range(n))
    assert [s.stop - s.start for s in slices] == [len(b) for b in batches(n, size)]


@pytest.mark.parametrize(
    ("n", "size", "sizes"),
    [
        (8, 4, [4, 4]),
        (7, 4, [4, 3]),
        (9, 4, [4, 3, 2]),  # not 4 + 4 + 1: the last two share five
        (5, 4, [3, 2]),
        (6, 4, [3, 3]),
        (5, 2, [2, 3]),
        (322, 100, [100, 100, 61, 61]),
        (3, 4, [3]),
        (2, 4, [2]),
        (1, 4, [1]),
        (1, 1, [1]),
        (3, 1, [1, 1, 1]),  # single rows were asked for
    ],
)
def test_sizes__by_hand(n, size, sizes):
    assert [len(batch) for batch in batches(n, size)] == sizes
    assert [s.stop - s.start for s in batch_slices(n, size)] == sizes
    assert num_batches(n, size, 3) == 3 * len(sizes)


def test_order__is_the_named_stream_of_the_pass():
    walk = batches(10, 4, num_passes=2, seed=7, party="bob", round_index=5)
    for index in range(2):
        order = numpy_generator(7, "bob", 5, f"order/{index}").permutation(10).tolist()
        assert walk[3 * index : 3 * index + 3] == [order[:4], order[4:7], order[7:]]


def test_order__depends_on_seed_party_round_and_pass_alone():
    base = batches(50, 50)
    assert batches(50, 50) == base
    assert batches(50, 50, seed=1) != base
    assert batches(50, 50, party="bob") != base
    assert batches(50, 50, round_index=1) != base
    both = batches(50, 50, num_passes=2)
    assert both[0] == base[0]  # more passes leave the first one alone
    assert both[1] != both[0]


def test_order__can_be_entered_in_the_middle():
    whole = batches(20, 6, num_passes=3)
    rest = [b.tolist() for b in islice(round_batches(20, 6, 3, 0, "alice", 0), 5, None)]
    assert rest == whole[5:]


def test_global_generator__is_neither_read_nor_moved():
    np.random.seed(0)
    first = batches(30, 8)
    np.random.seed(1)
    state = np.random.get_state()[1].tolist()
    assert batches(30, 8) == first
    assert np.random.get_state()[1].tolist() == state


@pytest.mark.parametrize("count", [0, -3, 2.0, True, None])
@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("num_samples", lambda v: round_batches(v, 2, 1, 0, "alice", 0)),
        ("batch_size", lambda v: round_batches(5, v, 1, 0, "alice", 0)),
        ("num_passes", lambda v: round_batches(5, 2, v, 0, "alice", 0)),
        ("num_samples", lambda v: num_batches(v, 2, 1)),
        ("batch_size", lambda v: num_batches(5, v, 1)),
        ("num_passes", lambda v: num_batches(5, 2, v)),
        ("num_samples", lambda v: batch_slices(v, 2)),
        ("batch_size", lambda v: batch_slices(5, v)),
    ],
)
def test_counts__are_refused_by_the_call_itself(argument, call, count):
    with pytest.raises(ParameterError, match=f"`{argument}` to be an integer >= 1, got {count!r}"):
        call(count)  # not iterated: an error at the first batch would come from elsewhere
