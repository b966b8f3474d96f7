import numpy as np
import pandas as pd
import pytest

from orchestra_strategy.errors import DataError
from orchestra_strategy.evaluation import class_numbers


@pytest.mark.parametrize(
    ("train", "test", "classes"),
    [
        (["cat", "dog", "cat"], ["dog"], ("cat", "dog")),
        (np.array(["cat", "dog", "cat"], object), np.array([["dog"]]), ("cat", "dog")),
        (pd.Series(["cat", "dog", "cat"]), pd.Series(["dog"]), ("cat", "dog")),
        ([7, 9, 7], np.array([9], np.uint8), (7, 9)),
        ([-1, 1, -1], [1], (-1, 1)),
        ([False, True, False], [True], (False, True)),
        ([0.5, 1.5, 0.5], [1.5], (0.5, 1.5)),
        (np.array([0, 1, 0], object), [1], (0, 1)),
    ],
)
def test_any_labels_become_numbers_from_0_on(train, test, classes):
    train_numbers, test_numbers, found = class_numbers(train, test)
    assert train_numbers.tolist() == [0, 1, 0]
    assert test_numbers.tolist() == [1]
    assert found == classes


def test_a_class_of_the_test_alone_keeps_its_place():
    train, test, classes = class_numbers(["b", "d"], ["a", "c"])
    assert (train.tolist(), test.tolist(), classes) == ([1, 3], [0, 2], ("a", "b", "c", "d"))


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ([[1, 2]], [1], r"`train_y` to be one label .* got shape \(1, 2\)"),
        ([1], [], r"`test_y` to be one label .* got shape \(0,\)"),
        (
            [1.0, np.nan],
            [1],
            "`train_y` to have .* none for 1 of 2, the first of them row 1",
        ),
        (["a"], np.array([None, "a"], object), "`test_y` to have a label .* row 0: leave"),
        (np.array(["a", 1], object), ["a"], "`train_y` to be names or numbers, got both"),
        (["1"], [1], "of one kind, got names and numbers"),
        ([1], np.array(["2020-01-01"], "datetime64[D]"), "`test_y` to be whole .* datetime64"),
    ],
)
def test_refusals(train, test, message):
    with pytest.raises(DataError, match=message):
        class_numbers(train, test)
