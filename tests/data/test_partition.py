"""Partitions: every sample once, sizes kept, seeded, and every refusal."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra_strategy.data import dirichlet_partition, iid_partition, shard_partition
from orchestra_strategy.errors import DataError, ParameterError
from orchestra_strategy.rng import numpy_generator

SEEDS = st.integers(0, 2**31)
LABELS = np.repeat(np.arange(5), 40)

quick = settings(max_examples=50, deadline=None)


def assert_exact_cover(parts, num_samples):
    assert all(part.dtype == np.int64 for part in parts)
    assert all(np.array_equal(part, np.sort(part)) for part in parts)
    assert sorted(np.concatenate(parts).tolist()) == list(range(num_samples))


def as_lists(parts):
    return [part.tolist() for part in parts]


@quick
@given(parties=st.integers(1, 12), extra=st.integers(0, 60), seed=SEEDS)
def test_iid__covers_and_is_even(parties, extra, seed):
    parts = iid_partition(parties + extra, parties, seed)
    assert_exact_cover(parts, parties + extra)
    sizes = [len(part) for part in parts]
    assert len(sizes) == parties
    assert max(sizes) - min(sizes) <= 1


@quick
@given(
    labels=st.lists(st.integers(-2, 3), min_size=12, max_size=60),
    parties=st.integers(1, 4),
    alpha=st.sampled_from([1.0, 10.0, 1e6]),
    seed=SEEDS,
)
def test_dirichlet__covers_and_leaves_no_party_empty(labels, parties, alpha, seed):
    parts = dirichlet_partition(labels, parties, alpha, seed)
    assert len(parts) == parties
    assert_exact_cover(parts, len(labels))
    assert min(len(part) for part in parts) >= 1


@quick
@given(
    alpha=st.floats(0.3, 100.0), parties=st.integers(1, 5), min_size=st.integers(1, 20), seed=SEEDS
)
def test_dirichlet__keeps_the_minimum(alpha, parties, min_size, seed):
    parts = dirichlet_partition(LABELS, parties, alpha, seed, min_size=min_size, max_tries=500)
    assert_exact_cover(parts, len(LABELS))
    assert min(len(part) for part in parts) >= min_size


def test_dirichlet__small_classes_go_to_all_parties_alike():
    labels = np.arange(300)  # one sample per class: rounded down, all would go to the last party
    sizes = [len(part) for part in dirichlet_partition(labels, 3, 10.0, seed=0)]
    assert sum(sizes) == 300
    assert min(sizes) > 70


@quick
@given(
    labels=st.lists(st.integers(0, 4), min_size=12, max_size=80),
    parties=st.integers(1, 4),
    per_party=st.integers(1, 3),
    seed=SEEDS,
)
def test_shards__cover_and_are_even(labels, parties, per_party, seed):
    parts = shard_partition(labels, parties, per_party, seed)
    assert_exact_cover(parts, len(labels))
    sizes = [len(part) for part in parts]
    assert len(sizes) == parties
    assert max(sizes) - min(sizes) <= per_party  # each shard differs by at most one


def test_shards__one_shard_per_class_gives_each_party_whole_classes():
    parts = shard_partition(LABELS, num_parties=5, shards_per_party=1, seed=3)
    assert sorted(set(LABELS[part]).pop() for part in parts) == [0, 1, 2, 3, 4]
    assert all(len(set(LABELS[part])) == 1 for part in parts)


def test_shards__are_dealt_at_random():
    # Dealt in order, party 0 would hold labels 0 and 1 for every seed.
    held = {
        tuple(sorted(set(LABELS[shard_partition(LABELS, 2, 2, seed)[0]]))) for seed in range(20)
    }
    assert len(held) > 1


def test_shards__mix_the_samples_of_a_label():
    first = shard_partition(np.zeros(40), num_parties=2, shards_per_party=1, seed=0)[0]
    assert first.tolist() not in (list(range(20)), list(range(20, 40)))


PARTITIONS = {
    "iid": lambda seed: iid_partition(len(LABELS), 4, seed),
    "dirichlet": lambda seed: dirichlet_partition(LABELS, 4, 0.5, seed),
    "shards": lambda seed: shard_partition(LABELS, 4, 3, seed),
}


@pytest.mark.parametrize("name", PARTITIONS)
def test_seed__same_same_and_other_other(name):
    split = PARTITIONS[name]
    assert as_lists(split(1)) == as_lists(split(1))
    assert as_lists(split(1)) != as_lists(split(2))


@pytest.mark.parametrize("name", PARTITIONS)
def test_global_generator__is_neither_read_nor_moved(name):
    np.random.seed(0)
    first = as_lists(PARTITIONS[name](1))
    state = np.random.get_state()[1].tolist()
    np.random.seed(1)
    assert as_lists(PARTITIONS[name](1)) == first
    np.random.seed(0)
    assert np.random.get_state()[1].tolist() == state


def slow_dirichlet(labels, parties, alpha, generator):
    """One sample at a time: it goes to the first party whose cumulated share covers it."""
    parts = [[] for _ in range(parties)]
    for label in sorted(set(labels)):
        members = [i for i, own in enumerate(labels) if own == label]
        shares, rounding = generator.dirichlet([alpha] * parties), generator.random()
        for position, sample in enumerate(generator.permutation(members)):
            party = 0
            while party < parties - 1 and position >= int(
                sum(shares[: party + 1]) * len(members) + rounding
            ):
                party += 1
            parts[party].append(int(sample))
    return [sorted(part) for part in parts]


@pytest.mark.parametrize("alpha", [0.3, 1.0, 50.0])
def test_dirichlet__equals_the_slow_version(alpha):
    labels = [0, 1, 1, 2] * 20
    fast = dirichlet_partition(labels, 3, alpha, seed=5)
    slow = slow_dirichlet(labels, 3, alpha, numpy_generator(5, "partition", 0, "dirichlet"))
    assert as_lists(fast) == slow


def test_dirichlet__alpha_sets_the_skew():
    def largest_share(alpha):
        shares = []
        for seed in range(10):
            for part in dirichlet_partition(LABELS, 2, alpha, seed):
                counts = np.bincount(LABELS[part], minlength=5)
                shares.append(counts / 40)
        return float(np.abs(np.array(shares) - 0.5).mean())

    # Beta(alpha, alpha): mean distance from 1/2 is ~0.5, 1/4 and ~0.
    assert largest_share(0.02) > 0.45
    assert largest_share(1.0) == pytest.approx(0.25, abs=0.06)
    assert largest_share(1e6) < 0.02


def test_dirichlet__draws_again_until_the_minimum_is_met():
    first_draw = slow_dirichlet(LABELS, 4, 0.2, numpy_generator(0, "partition", 0, "dirichlet"))
    assert min(map(len, first_draw)) < 25  # so that the retry is needed
    parts = dirichlet_partition(LABELS, 4, 0.2, seed=0, min_size=25)
    assert min(map(len, parts)) >= 25


def test_dirichlet__takes_strings_and_any_order_of_labels():
    names = np.array(["cat", "ant", "cat", "bee", "ant", "bee"] * 5)
    codes = np.array([2, 0, 2, 1, 0, 1] * 5)
    assert as_lists(dirichlet_partition(names, 2, 1.0, 0)) == as_lists(
        dirichlet_partition(codes, 2, 1.0, 0)
    )


def test_dirichlet__gives_up_with_all_the_numbers():
    labels = np.zeros(12, int)
    generator = numpy_generator(0, "partition", 0, "dirichlet")
    best = max(min(map(len, slow_dirichlet(labels, 4, 0.7, generator))) for _ in range(3))
    assert best == 1  # neither the start value 0 nor the wanted 3
    message = (
        "at least `min_size`=3 samples at each of `num_parties`=4 for `alpha`=0.7, got at best 1 "
        "at the smallest party in `max_tries`=3 draws; raise alpha or max_tries, or lower min_size"
    )
    with pytest.raises(DataError, match=message):
        dirichlet_partition(labels, 4, 0.7, seed=0, min_size=3, max_tries=3)


@pytest.mark.parametrize("alpha", [0.0, -1.0, 1e-300, 1e308, float("nan"), float("inf"), "1", True])
def test_dirichlet__refuses_alpha_out_of_range(alpha):
    with pytest.raises(
        ParameterError, match=r"`alpha` to be a number in \[1e-06, 1e\+06\], got .*iid"
    ):
        dirichlet_partition(LABELS, 4, alpha, seed=0)


@pytest.mark.parametrize("count", [0, -1, 1.5, True, "2", None])
@pytest.mark.parametrize(
    ("argument", "split"),
    [
        ("num_samples", lambda v: iid_partition(v, 1, 0)),
        ("num_parties", lambda v: iid_partition(10, v, 0)),
        ("num_parties", lambda v: dirichlet_partition(LABELS, v, 1.0, 0)),
        ("min_size", lambda v: dirichlet_partition(LABELS, 2, 1.0, 0, min_size=v)),
        ("max_tries", lambda v: dirichlet_partition(LABELS, 2, 1.0, 0, max_tries=v)),
        ("num_parties", lambda v: shard_partition(LABELS, v, 1, 0)),
        ("shards_per_party", lambda v: shard_partition(LABELS, 2, v, 0)),
    ],
)
def test_counts__must_be_positive_integers(argument, split, count):
    with pytest.raises(ParameterError, match=f"`{argument}` to be an integer >= 1, got {count!r}"):
        split(count)


@pytest.mark.parametrize(
    ("message", "split"),
    [
        (r"at least 3 samples \(one sample per party\), got 2", lambda: iid_partition(2, 3, 0)),
        (
            r"at least 12 samples \(`min_size`=6 per party\), got 11",
            lambda: dirichlet_partition([0] * 11, 2, 1.0, 0, min_size=6),
        ),
        (
            r"at least 6 samples \(one sample per shard\), got 5",
            lambda: shard_partition([0] * 5, 2, 3, 0),
        ),
        (
            r"`labels` to be \(N,\) with N >= 1, got shape \(2, 1\)",
            lambda: dirichlet_partition([[0], [1]], 1, 1.0, 0),
        ),
        (
            r"`labels` to be \(N,\) with N >= 1, got shape \(0,\)",
            lambda: shard_partition([], 1, 1, 0),
        ),
    ],
)
def test_too_few_or_misshapen__are_refused(message, split):
    with pytest.raises(DataError, match=message):
        split()


def test_limits__exactly_enough_samples_pass():
    assert as_lists(iid_partition(1, 1, 0)) == [[0]]
    assert sorted(as_lists(iid_partition(3, 3, 0))) == [[0], [1], [2]]
    assert_exact_cover(shard_partition([0] * 6, 2, 3, 0), 6)
