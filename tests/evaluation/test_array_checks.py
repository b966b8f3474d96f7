import re

import numpy as np
import pytest
import torch

from orchestra_strategy.errors import DataError
from orchestra_strategy.evaluation.array_checks import as_numpy, check_features, check_labels


def both(x):
    """The same values as numpy and as torch, because the checks take either."""
    return [np.asarray(x), torch.as_tensor(x)]


@pytest.mark.parametrize("features", [*both([[1.0, 2.0]]), np.ones((3, 1), np.float32)])
def test_check_features__accepts(features):
    check_features("z", features)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        *((x, "`z` to be a non-empty (n, d) matrix, got shape (2,)") for x in both([1.0, 2.0])),
        *((x, "non-empty (n, d) matrix, got shape (0, 3)") for x in both(np.ones((0, 3)))),
        *((x, "non-empty (n, d) matrix, got shape (3, 0)") for x in both(np.ones((3, 0)))),
        (np.ones((2, 2), np.int64), "`z` to be floating, got int64. Cast it"),
        (torch.ones(2, 2).long(), "`z` to be floating, got torch.int64. Cast it"),
        *(
            (x, "`z` to be finite, got NaN or infinite values in 2 of 3 rows, the first of them "
             "row 1.")
            for x in both([[0.0, 0.0], [np.nan, np.inf], [0.0, -np.inf]])
        ),
    ],
)  # fmt: skip
def test_check_features__refuses(features, message):
    with pytest.raises(DataError, match=re.escape(message)):
        check_features("z", features)


@pytest.mark.parametrize("labels", [*both([0, 2, 1]), np.array([0, 1, 255], np.uint8)])
def test_check_labels__accepts(labels):
    check_labels("y", labels, 3)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        *((x, "`y` to have shape (3,), one label for each row") for x in both([0, 1])),
        *((x, "got shape (3, 1)") for x in both([[0], [1], [2]])),
        (np.array([0.0, 1.0, 2.0]), "`y` to be integer classes, got float64. Encode"),
        (np.array(["a", "b", "c"]), "`y` to be integer classes, got <U1"),
        (torch.tensor([True, False, True]), "`y` to be integer classes, got torch.bool"),
        *((x, "`y` to be classes of at least 0, got -1. Drop") for x in both([0, -1, 2])),
    ],
)
def test_check_labels__refuses(labels, message):
    with pytest.raises(DataError, match=re.escape(message)):
        check_labels("y", labels, 3)


def test_as_numpy__shares_an_array_and_detaches_a_tensor():
    array = np.ones(2)
    assert as_numpy(array) is array
    assert as_numpy(torch.ones(2, requires_grad=True)).tolist() == [1.0, 1.0]
