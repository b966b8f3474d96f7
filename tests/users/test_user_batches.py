import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from orchestra_strategy.errors import DataError
from orchestra_strategy.users.user_batches import (
    as_batch,
    cyclic_slices,
    read_samples,
    sorted_labels,
)
from tests.users import toy

X, Y = torch.arange(6.0).view(3, 2), torch.tensor([2, 0, 1])


@pytest.mark.parametrize(
    ("raw", "names"),
    [
        ((X, Y), ["inputs", "labels"]),
        ([X, Y], ["inputs", "labels"]),
        ((X,), ["inputs"]),
        (X, ["inputs"]),
        ({"inputs": X, "labels": Y}, ["inputs", "labels"]),
        ({"input_ids": Y, "mask": X}, ["input_ids", "mask"]),
    ],
)
def test_forms(raw, names):
    batch = as_batch(raw, toy.SETUP)
    assert sorted(batch) == names
    assert all(torch.equal(batch[n], X if batch[n].ndim == 2 else Y) for n in names)


def test_dtype_is_for_floating_point_only():
    batch = as_batch((X.double(), Y), {"device": "cpu", "dtype": torch.float32})
    assert (batch["inputs"].dtype, batch["labels"].dtype) == (torch.float32, torch.int64)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ((X, Y, Y), r"dict, \(x, y\), \(x,\) or a tensor, got tuple of length 3"),
        (3, r"\(x,\) or a tensor, got 3"),
        ({"x": X}, r"a batch with `inputs` or `input_ids`, got \['x'\]"),
        ((X, [2, 0, 1]), "`labels` of a batch to be a tensor with a row per sample, got list"),
        ((torch.tensor(1.0),), "`inputs` of a batch to be a tensor with a row per sample"),
        ((X, Y[:2]), r"the same rows, got \{'inputs': 3, 'labels': 2\}"),
    ],
)
def test_other_forms(raw, message):
    with pytest.raises(DataError, match=message):
        as_batch(raw, toy.SETUP)


def test_samples_are_read_no_further_than_needed():
    read = []

    def batches():
        for i in range(4):
            read.append(i)
            yield (X + 10 * i, Y)

    samples = read_samples(batches(), 5, toy.SETUP, "user 0")
    assert read == [0, 1]
    assert samples["inputs"][:, 0].tolist() == [0, 2, 4, 10, 12]
    assert samples["ids"].tolist() == [0, 1, 2, 3, 4]


def test_ids_of_the_loaders_own_are_kept():
    ids = torch.tensor([7, 5, 6])
    samples = read_samples([{"inputs": X, "ids": ids}], None, toy.SETUP, "user 0")
    assert samples["ids"].tolist() == [7, 5, 6]


def test_batches_that_differ():
    with pytest.raises(DataError, match=r"batches of user 2 to hold the same tensors, got \['inpu"):
        read_samples([(X, Y), (X,)], None, toy.SETUP, "user 2")


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 20))
def test_slices_begin_size_after_size_and_are_never_empty(rows, size, steps):
    slices = list(cyclic_slices({"inputs": torch.arange(rows)}, size, steps))
    assert len(slices) == steps
    for step, batch in enumerate(slices):
        start = step * size % rows
        assert batch["inputs"].tolist() == list(range(start, min(start + size, rows)))


def test_sorted_labels():
    assert sorted_labels(Y).tolist() == [0, 1, 2]
    assert sorted_labels(torch.tensor([[3, 1], [2, 0]])).tolist() == [[1, 3], [0, 2]]
    assert sorted_labels(None) is None
