"""The coordinate-wise median and trimmed mean, by hand, and against a party that lies."""

import itertools
import tracemalloc

import numpy as np
import pytest

from orchestra_strategy.aggregation.robust import coordinate_median, trimmed_mean, trimmed_parties
from orchestra_strategy.aggregation.weighted import weighted_mean
from orchestra_strategy.errors import ParameterError, ReplyError


def parties(*rows):
    """One array of numbers per party."""
    return [[np.asarray(row, np.float32)] for row in rows]


def random_parties(n, seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(3, 2), (4,), ()]
    return [[rng.normal(size=shape).astype(np.float32) for shape in shapes] for _ in range(n)]


def test_median_by_hand_ignores_one_huge_party_and_all_counts():
    (median,) = coordinate_median(parties([1, 5], [2, -1e6], [1e6, 6]), [1, 1, 10**9])
    assert median.tolist() == [2.0, 5.0]
    assert median.dtype == np.float32


def test_median_of_an_even_number_is_the_mean_of_the_middle_two():
    (median,) = coordinate_median(parties([1], [9], [2], [4]), [1, 1, 1, 1])
    assert median.tolist() == [(2 + 4) / 2]


def test_trimmed_mean_by_hand_cuts_number_by_number():
    values = parties([0, 50], [1, 40], [2, 30], [4, 20], [90, 10])
    (mean,) = trimmed_mean(values, [1, 2, 3, 4, 5], trim=0.2)
    assert mean.tolist() == pytest.approx([(1 + 2 + 4) / 3, (20 + 30 + 40) / 3])
    assert mean.dtype == np.float32
    (middle,) = trimmed_mean(values, [1, 2, 3, 4, 5], trim=0.4)
    assert middle.tolist() == [2.0, 30.0]


@pytest.mark.parametrize("size", [2**14, 2**15 + 1, 2**15 + 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_by_blocks_it_is_bit_for_bit_that_of_whole_arrays(size, dtype):
    rng = np.random.default_rng(0)
    values = [[rng.standard_normal((1, size)).astype(dtype)] for _ in range(11)]
    stacked = np.stack([array for (array,) in values]).astype(np.float64)
    median = np.median(stacked, axis=0).astype(np.float32)
    middle = np.partition(stacked, (1, 9), axis=0)[1:10].mean(axis=0).astype(np.float32)
    assert coordinate_median(values, [1] * 11)[0].tobytes() == median.tobytes()
    assert trimmed_mean(values, [1] * 11, trim=0.1)[0].tobytes() == middle.tobytes()


def test_an_array_without_numbers_stays_one():
    values = [[np.zeros((0, 3), np.float32)]] * 3
    for combine in (coordinate_median, trimmed_mean, weighted_mean):
        options = {"trim": 0.34} if combine is trimmed_mean else {}
        assert combine(values, [1, 1, 1], **options)[0].shape == (0, 3)


def test_trim_0_with_equal_counts_is_the_mean():
    values = random_parties(5)
    for got, want in zip(trimmed_mean(values, [3] * 5, trim=0), weighted_mean(values, [3] * 5)):
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "combine", [coordinate_median, lambda w, n: trimmed_mean(w, n, trim=0.25), weighted_mean]
)
def test_shapes_stay_and_the_order_of_parties_does_not_matter(combine):
    values, counts = random_parties(4), [1, 2, 3, 4]
    want = combine(values, counts)
    assert [a.shape for a in want] == [(3, 2), (4,), ()]
    for order in itertools.permutations(range(4)):
        got = combine([values[i] for i in order], [counts[i] for i in order])
        for a, b in zip(got, want):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_one_liar_of_five_moves_the_mean_and_neither_of_the_others():
    honest = random_parties(4)
    lie = [np.full_like(a, 1e6) for a in honest[0]]
    everyone, counts = [*honest[:2], lie, *honest[2:]], [10] * 5
    assert weighted_mean(everyone, counts)[0].min() > 1e5
    for robust in (
        coordinate_median(everyone, counts),
        trimmed_mean(everyone, counts, trim=0.2),
    ):
        for i, got in enumerate(robust):
            stacked = np.stack([party[i] for party in honest])
            assert (stacked.min(axis=0) <= got).all()
            assert (got <= stacked.max(axis=0)).all()


@pytest.mark.parametrize("combine", [coordinate_median, trimmed_mean])
def test_inputs_stay_as_they_are(combine):
    values = random_parties(10)
    before = [[a.copy() for a in party] for party in values]
    combine(values, [1] * 10)
    for party, old in zip(values, before):
        assert all(np.array_equal(a, b) for a, b in zip(party, old))


def test_memory_grows_with_the_largest_array_and_not_with_their_number():
    one, parties_, arrays = 2**16, 5, 40
    values = [[np.ones(one, np.float32) for _ in range(arrays)] for _ in range(parties_)]
    for combine, most in ((coordinate_median, 4), (lambda w, n: trimmed_mean(w, n, 0.2), 8)):
        tracemalloc.start()
        combine(values, [1] * parties_)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        result = arrays * one * 4
        assert peak - result < most * parties_ * one * 4


@pytest.mark.parametrize("combine", [coordinate_median, trimmed_mean])
@pytest.mark.parametrize(
    ("values", "counts", "message"),
    [
        ([], [], "got 0 for 0 parties"),
        (parties([1], [1]), [1], "got 1 for 2 parties"),
        (parties([1], [1, 2]), [1, 1], r"same shapes, got \[\(2,\)\] from party 1"),
    ],
)
def test_what_does_not_belong_together_is_refused(combine, values, counts, message):
    with pytest.raises(ReplyError, match=message):
        combine(values, counts)


@pytest.mark.parametrize("trim", [-0.1, 0.5, 1, True, "some", float("nan")])
def test_a_trim_that_leaves_nobody_is_refused(trim):
    with pytest.raises(ParameterError, match=r"`trim` to be in \[0, 0.5\), got"):
        trimmed_mean(parties([1], [2], [3]), [1, 1, 1], trim=trim)


def test_a_trim_that_cuts_nobody_is_refused_and_the_least_that_does_is_named():
    with pytest.raises(ParameterError, match=r"at least one of 5 parties.*use at least 0.2, or 0"):
        trimmed_mean(parties(*[[1]] * 5), [1] * 5, trim=0.1)
    with pytest.raises(ParameterError, match=r"of 2 parties.*of so few parties none can be cut"):
        trimmed_mean(parties([1], [2]), [1, 1], trim=0.4)


@pytest.mark.parametrize("n", [3, 6, 7, 9, 11, 13, 49, 99])
def test_the_trim_that_is_named_cuts_one(n):
    with pytest.raises(ParameterError) as refused:
        trimmed_parties(0.001, n)
    named = float(str(refused.value).split("use at least ")[1].split(",")[0])
    assert trimmed_parties(named, n) == 1
