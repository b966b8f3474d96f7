"""Labels at a party: which forms are taken, and what is told of those that are not."""

import numpy as np
import pytest

from orchestra_strategy.errors import DataError
from orchestra_strategy.party.labels import label_problem, training_labels

X = np.zeros((3, 4), np.float32)


@pytest.mark.parametrize(
    "y",
    [[0, 2, 1], np.array([[0], [2], [1]], np.uint8), np.array([0.0, 2.0, 1.0]), (0, 2, True)],
)
def test_whole_numbers_of_any_type_are_classes(y):
    labels = training_labels(y, X, num_classes=3)
    assert labels.tolist() == [0, 2, 1]
    assert labels.dtype == np.int64


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, r"labels `y` for a strategy that learns from them, got none; .*`fit\(x, y\)`"),
        (X, "learns from them, got none"),  # what FLModel hands on where there are no labels
        ([0, 1], r"one class number per sample, got shape \(2,\) of int64 for 3 samples\.$"),
        (np.eye(3), r"got shape \(3, 3\) of float64 .*; .* give `y.argmax\(axis=1\)`"),
        (["a", "b", "a"], "one class number per sample, got shape"),
    ],
)
@pytest.mark.parametrize("mend", [False, True])
def test_another_form_is_refused_with_the_remedy(y, message, mend):
    with pytest.raises(DataError, match=message):
        training_labels(y, X, 3, mend)


@pytest.mark.parametrize("y", [[0, 3, 1], [0, -1, 1], [0, 1.5, 1], [0, np.nan, 1], [0, np.inf, 1]])
def test_what_is_no_class_is_refused_or_under_privacy_counts_as_the_first(y):
    with pytest.raises(DataError, match=r"from 0 to 2, got 1 of 3 .*num_classes="):
        training_labels(y, X, 3)
    assert training_labels(y, X, 3, mend=True).tolist() == [0, 0, 1]


def test_without_a_number_of_classes_any_whole_number_from_0_is_fine():
    assert training_labels([0, 7, 1], X, None).tolist() == [0, 7, 1]
    with pytest.raises(DataError, match="whole class numbers from 0 up, got 1 of 3"):
        training_labels([0, -7, 1], X, None)


def test_the_driver_hears_of_values_only_without_privacy():
    assert "got 1 of 3" in label_problem([0, 3, 1], X, 3, mend=False)
    assert label_problem([0, 3, 1], X, 3, mend=True) == ""
    assert "got none" in label_problem(None, X, 3, mend=True)
