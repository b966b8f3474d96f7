"""The rows that an evaluation may use: train and test apart, and few labels drawn by seed."""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestra_strategy.errors import DataError, ParameterError
from orchestra_strategy.evaluation.array_checks import Array, as_numpy, check_labels

__all__ = ["check_disjoint", "check_fraction", "labelled_fraction", "labelled_subset"]


def check_disjoint(train_x: Array, test_x: Array, allow_duplicates: bool = False) -> int:
    """Refuse a test set that has rows of the training set.

    Rows are compared by a hash of their bytes, so in any order; a row that was changed at all
    (another crop, another scaling) is another row, which no check of this kind can see.

    Args:
        train_x: Shape (n, ...).
        test_x: Shape (m, ...), rows of the same shape and dtype.
        allow_duplicates: Count the shared rows, but do not refuse them.

    Returns:
        How many test rows appear in ``train_x``: 0 unless ``allow_duplicates``.

    Raises:
        DataError: Rows are shared, or cannot be compared because dtypes or row shapes differ.

    >>> check_disjoint(np.array([[1, 2], [3, 4]]), np.array([[5, 6]]))
    0
    >>> check_disjoint(np.array([[1, 2], [3, 4]]), np.array([[3, 4]]), allow_duplicates=True)
    1
    """
    train, test = as_numpy(train_x), as_numpy(test_x)
    # The bytes of 1 and 1.0 differ, so a different dtype would hide every shared row.
    if train.dtype != test.dtype or train.shape[1:] != test.shape[1:]:
        raise DataError(
            "Expected `train_x` and `test_x` to have rows of one dtype and shape, got "
            f"{train.dtype} {train.shape[1:]} and {test.dtype} {test.shape[1:]}. Compare them as "
            "they were loaded, before any normalisation."
        )
    first_seen: dict[bytes, int] = {}
    for i, digest in enumerate(_row_digests(train)):
        first_seen.setdefault(digest, i)
    shared = [(first_seen[h], j) for j, h in enumerate(_row_digests(test)) if h in first_seen]
    if shared and not allow_duplicates:
        i, j = shared[0]
        raise DataError(
            f"Expected `train_x` and `test_x` to be disjoint, got {len(shared)} of {len(test)} "
            f"test rows that are also in train, the first of them train row {i} = test row {j}. "
            "Split the data again; if these are different samples that happen to be equal, as in "
            "a table with few columns, pass `allow_duplicates=True`."
        )
    return len(shared)


def _row_digests(x: npt.NDArray[Any]) -> list[bytes]:
    """Hash the bytes of each row; 128 bits, so a chance collision is out of the question."""
    if x.dtype.hasobject:
        raise DataError(f"Expected the rows to be numeric, got dtype {x.dtype}.")
    if np.issubdtype(x.dtype, np.floating):
        x = np.add(x, x.dtype.type(0))  # -0.0 equals 0.0, but its bytes do not
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in x]


def labelled_subset(
    y: Array, per_class: int, generator: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Draw ``per_class`` rows of each class: the few labels of a semi-supervised evaluation.

    Generators of equal state give nested subsets: those of 1 per class are among those of 5. So
    a curve over the number of labels shows what more labels do, not another draw.

    Args:
        y: Classes, shape (n,), integer.
        per_class: Rows of each class, at least 1.
        generator: Where the draw comes from; see :func:`orchestra_strategy.rng.numpy_generator`.

    Returns:
        Row numbers, ascending, shape (per_class * number of classes,).

    Raises:
        DataError: A class has fewer than ``per_class`` rows, or ``y`` is empty or not classes.
        ParameterError: ``per_class`` is below 1.

    >>> labelled_subset(np.array([0, 1, 0, 1]), 2, np.random.default_rng(0)).tolist()
    [0, 1, 2, 3]
    """
    if per_class < 1:
        raise ParameterError(f"Expected `per_class` to be at least 1, got {per_class}.")

    def count(label: int, members: int) -> int:
        if members < per_class:
            raise DataError(
                f"Expected every class of `y` to have at least `per_class` = {per_class} rows, got "
                f"{members} of class {label}. Ask for fewer labels per class."
            )
        return per_class

    return _draw(y, count, generator)


def labelled_fraction(
    y: Array, fraction: float, generator: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Draw a fraction of the rows of each class, rounded, but at least one.

    Generators of equal state give nested subsets, as in :func:`labelled_subset`.

    Args:
        y: Classes, shape (n,), integer.
        fraction: In (0, 1].
        generator: Where the draw comes from; see :func:`orchestra_strategy.rng.numpy_generator`.

    Returns:
        Row numbers, ascending.

    Raises:
        DataError: ``y`` is empty or not classes.
        ParameterError: ``fraction`` is not in (0, 1].

    >>> labelled_fraction(np.array([0] * 9 + [1]), 1 / 3, np.random.default_rng(0)).size
    4
    """
    check_fraction(fraction)
    return _draw(y, lambda label, members: max(1, round(fraction * members)), generator)


def check_fraction(fraction: float) -> None:
    """Refuse what is no fraction of the labels.

    Raises:
        ParameterError: It is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ParameterError(f"Expected `fraction` to be in (0, 1], got {fraction}.")


def _draw(
    y: Array, count: Callable[[int, int], int], generator: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Draw ``count(label, members)`` rows of each class."""
    check_labels("y", y, len(y))
    labels = as_numpy(y)
    if not len(labels):
        raise DataError("Expected `y` to have at least one label, got none.")
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        wanted = count(int(label), len(members))
        # The whole class is permuted, so that the draw takes the same random numbers however many
        # rows are wanted; that is what makes the subsets nested.
        chosen.append(generator.permutation(members)[:wanted])
    return np.sort(np.concatenate(chosen)).astype(np.int64)
