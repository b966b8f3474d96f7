"""The refusals that every part of the evaluation shares, so that they read alike everywhere.

An evaluation that runs on the wrong rows gives a number all the same, so features and labels are
checked before any of them is used: rank, rows, dtype, and that every value is finite.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from orchestra_strategy.errors import DataError

__all__ = [
    "Array",
    "FloatArray",
    "IntArray",
    "as_numpy",
    "check_features",
    "check_labels",
    "check_probe_sets",
    "check_two_classes",
]

Array = npt.NDArray[Any] | Tensor
FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.integer[Any]]


def as_numpy(x: Array) -> npt.NDArray[Any]:
    """Return ``x`` as a numpy array on the CPU, without a copy where it is one already.

    >>> as_numpy(torch.ones(2, requires_grad=True)).tolist()
    [1.0, 1.0]
    """
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)


def check_features(name: str, features: Array) -> None:
    """Refuse what is not a non-empty finite matrix of features.

    Args:
        name: The argument's name, for the message.
        features: Shape (n, d), floating.

    Raises:
        DataError: Wrong rank, no rows or no columns, not floating, or a NaN or infinite value.

    >>> check_features("features", np.zeros((2, 3)))
    >>> check_features("features", np.zeros((0, 3)))
    Traceback (most recent call last):
        ...
    orchestra_strategy.errors.DataError: Expected `features` to be a non-empty (n, d) matrix, got \
shape (0, 3).
    """
    if features.ndim != 2 or 0 in features.shape:
        raise DataError(
            f"Expected `{name}` to be a non-empty (n, d) matrix, got shape {tuple(features.shape)}."
        )
    if isinstance(features, Tensor):
        floating, finite = features.is_floating_point(), torch.isfinite(features)
        bad_rows = (~finite).any(dim=1).nonzero().flatten().tolist()
    else:
        floating = np.issubdtype(features.dtype, np.floating)
        bad_rows = np.flatnonzero(~np.isfinite(features).all(axis=1)).tolist() if floating else []
    if not floating:
        raise DataError(
            f"Expected `{name}` to be floating, got {features.dtype}. Cast it to float32 first."
        )
    if bad_rows:
        raise DataError(
            f"Expected `{name}` to be finite, got NaN or infinite values in {len(bad_rows)} of "
            f"{len(features)} rows, the first of them row {bad_rows[0]}."
        )


def check_labels(name: str, labels: Array, rows: int) -> None:
    """Refuse what is not one integer class of at least 0 for each row.

    Args:
        name: The argument's name, for the message.
        labels: Shape (n,), integer.
        rows: How many rows the features beside them have.

    Raises:
        DataError: Wrong rank or length, not integer, or a negative class.

    >>> check_labels("labels", np.array([0, 1]), 2)
    """
    if labels.ndim != 1 or len(labels) != rows:
        raise DataError(
            f"Expected `{name}` to have shape ({rows},), one label for each row of the features, "
            f"got shape {tuple(labels.shape)}."
        )
    # Booleans are left out: numpy would use them as a mask where an index is meant.
    integer = np.issubdtype(as_numpy(labels[:0]).dtype, np.integer)
    if not integer:
        raise DataError(
            f"Expected `{name}` to be integer classes, got {labels.dtype}. Encode the classes as "
            "0, 1, 2, ... first."
        )
    if rows and int(labels.min()) < 0:
        raise DataError(
            f"Expected `{name}` to be classes of at least 0, got {int(labels.min())}. Drop the "
            "rows without a label first."
        )


def check_probe_sets(
    train_features: Array,
    train_labels: Array,
    test_features: Array,
    test_labels: Array,
    **more_features: Array,
) -> None:
    """Refuse sets on which no classifier can be trained and tested.

    Args:
        train_features: Shape (n, d).
        train_labels: Shape (n,), integer, at least two classes.
        test_features: Shape (m, d).
        test_labels: Shape (m,), integer.
        **more_features: Further matrices by their argument's name, shape (any, d).

    Raises:
        DataError: Features or labels are empty, not finite, or do not match, or have one class.
    """
    named = {"train_features": train_features, "test_features": test_features} | more_features
    for name, features in named.items():
        check_features(name, features)
        if features.shape[1] != train_features.shape[1]:
            raise DataError(
                f"Expected `{name}` to have {train_features.shape[1]} columns, as `train_features` "
                f"has, got {features.shape[1]}. Extract both with the same model."
            )
    check_labels("train_labels", train_labels, len(train_features))
    check_labels("test_labels", test_labels, len(test_features))
    check_two_classes("train_labels", train_labels)


def check_two_classes(name: str, labels: Array) -> None:
    """Refuse labels of a single class, from which no classifier learns anything.

    Args:
        name: The argument's name, for the message.
        labels: Shape (n,), integer, n >= 1.

    Raises:
        DataError: All labels are the same.
    """
    if len(np.unique(as_numpy(labels))) < 2:
        raise DataError(
            f"Expected `{name}` to have at least two classes, got only class {labels[0]}. Take "
            "labelled rows of every class."
        )
