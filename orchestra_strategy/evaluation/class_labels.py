"""Labels of any kind as numbers of classes, and how well scores rank two of them."""

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, roc_auc_score

from orchestra_strategy.errors import DataError
from orchestra_strategy.evaluation.array_checks import FloatArray, IntArray

__all__ = ["class_numbers", "ranking", "two_classes"]


def class_numbers(train_y: Any, test_y: Any) -> tuple[IntArray, IntArray, tuple[Any, ...]]:
    """Return labels as positions in the sorted list of all classes that occur.

    Args:
        train_y: (n,) or (n, 1) labels: whole numbers, names, booleans, or numbers that stand for
            classes; an array, a list or a column of a table.
        test_y: The same, (m,).

    Returns:
        (n,) int64, (m,) int64, and the classes in order.

    Raises:
        DataError: They have another shape, or a label is missing (None, NaN), or numbers and names
            are mixed.

    >>> class_numbers(["no", "yes"], np.array(["yes"]))
    (array([0, 1]), array([1]), ('no', 'yes'))
    """
    train, test = _labels("train_y", train_y), _labels("test_y", test_y)
    numbers = [labels.dtype.kind != "U" for labels in (train, test)]
    if numbers[0] != numbers[1]:
        raise DataError(
            "Expected `train_y` and `test_y` to be labels of one kind, got "
            f"{'numbers and names' if numbers[0] else 'names and numbers'}."
        )
    classes, found = np.unique(np.concatenate([train, test]), return_inverse=True)
    return found[: len(train)], found[len(train) :], tuple(classes.tolist())


def _labels(name: str, y: Any) -> npt.NDArray[Any]:
    """Return labels (n,) as numbers, or as texts."""
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or not len(labels):
        raise DataError(
            f"Expected `{name}` to be one label for each sample, (n,), got shape {labels.shape}."
        )
    if labels.dtype.kind == "O":
        missing = [label is None or label != label for label in labels]
        if not any(missing):
            texts = [isinstance(label, str) for label in labels]
            if any(texts) and not all(texts):
                raise DataError(f"Expected `{name}` to be names or numbers, got both.")
            labels = np.array(labels.tolist())
    else:
        missing = list(np.isnan(labels)) if labels.dtype.kind == "f" else []
    if any(missing):
        raise DataError(
            f"Expected `{name}` to have a label for each sample, got none for {sum(missing)} of "
            f"{len(labels)}, the first of them row {missing.index(True)}: leave these rows out."
        )
    if labels.dtype.kind not in "biufU":
        raise DataError(
            f"Expected `{name}` to be whole numbers, names or booleans, got {labels.dtype}."
        )
    return labels


def two_classes(train_labels: IntArray, test_labels: IntArray) -> bool:
    """Whether both have the same two classes, of which the second can be ranked before the first.

    >>> two_classes(np.array([0, 1]), np.array([1, 0, 0])), two_classes(np.arange(2), np.arange(1))
    (True, False)
    """
    classes = np.unique(train_labels)
    return len(classes) == 2 and np.array_equal(classes, np.unique(test_labels))


def ranking(labels: IntArray, scores: FloatArray) -> dict[str, float]:
    """Return how well scores put the second of two classes before the first.

    Args:
        labels: (m,) of two classes.
        scores: (m,) higher for the second of them.

    Returns:
        ``auc``, the area under the ROC curve (0.5 is chance), and ``ap``, the average precision
        (the second class's share is chance).

    >>> ranking(np.array([0, 1, 0, 1]), np.array([0.1, 0.9, 0.5, 0.3]))
    {'auc': 0.75, 'ap': 0.8333333333333333}
    """
    second = labels == labels.max()
    return {
        "auc": float(roc_auc_score(second, scores)),
        "ap": float(average_precision_score(second, scores)),
    }
