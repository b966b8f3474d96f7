import torch
from hypothesis import given
from hypothesis import strategies as st

from orchestra_strategy.users.user_means import RunningMean


def mean_of(values, weights):
    mean = RunningMean()
    for value, weight in zip(values, weights):
        mean.add([torch.tensor([value])], weight)
    return mean.result()[0].item()


def test_by_hand():
    assert mean_of([1.0, 3.0], [1, 1]) == 2.0  # not 1.75
    assert mean_of([1.0, 3.0, 5.0], [1, 1, 2]) == (1 + 3 + 2 * 5) / 4
    assert mean_of([7.0], [3]) == 7.0


@given(st.lists(st.tuples(st.floats(-1e3, 1e3, width=32), st.integers(1, 9)), min_size=1))
def test_any_order(pairs):
    values, weights = zip(*pairs)
    there = mean_of(values, weights)
    assert there == mean_of(values[::-1], weights[::-1])


def test_one_sum_and_no_hold_on_the_terms():
    term = torch.ones(2)
    mean = RunningMean()
    mean.add([term], 1)
    term.zero_()
    mean.add([torch.full((2,), 3.0)], 1)
    assert mean.result()[0].tolist() == [2.0, 2.0]


def test_integers_and_booleans_keep_the_largest_and_their_dtype():
    mean = RunningMean()
    mean.add([torch.tensor(3), torch.tensor(False)], 1)
    mean.add([torch.tensor(9), torch.tensor(True)], 5)
    mean.add([torch.tensor(4), torch.tensor(False)], 1)
    assert [t.item() for t in mean.result()] == [9, True]
    assert [t.dtype for t in mean.result()] == [torch.int64, torch.bool]


def test_dtypes_come_back():
    mean = RunningMean()
    mean.add([torch.ones(1, dtype=torch.float16), torch.ones(1, dtype=torch.float64)], 1)
    assert [t.dtype for t in mean.result()] == [torch.float16, torch.float64]


def test_nothing_added():
    assert RunningMean().result() == []
