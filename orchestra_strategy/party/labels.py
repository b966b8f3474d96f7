"""Labels of a party's samples, for training or for evaluation; they stay where they are."""

from typing import Any

import numpy as np
import numpy.typing as npt

from orchestra_strategy.errors import DataError

__all__ = ["label_problem", "labels_of", "training_labels"]

_ADVICE = "give one class number for each sample, such as `fit(x, y)`"


def labels_of(y: Any, x: Any) -> npt.NDArray[np.int64] | None:
    """Return what FLModel hands on as labels, or None where it is the samples once more.

    FLModel's ``evaluate`` refuses ``y=None``, so a call without labels repeats the samples.

    Raises:
        DataError: It is neither.
    """
    if y is None or np.shape(y) == np.shape(x):
        return None
    labels = _one_number_each(y, x)
    if labels.dtype.kind == "f" and not np.array_equal(labels, np.round(labels)):
        raise DataError("Expected `y` to hold whole class numbers, got fractions or NaN.")
    return labels.astype(np.int64)


def training_labels(
    y: Any, x: Any, num_classes: int | None, mend: bool = False
) -> npt.NDArray[np.int64]:
    """Return the labels that a party trains on.

    Args:
        y: One class number for each sample, (n,) or (n, 1); or, where the host has none to hand on,
            None or the samples once more.
        x: The samples (n, ...).
        num_classes: K, of which classes are 0 to K - 1; None where the strategy does not say.
        mend: Whether what is no class counts as class 0, and is not refused: under differential
            privacy, where a refusal would tell of a sample.

    Raises:
        DataError: There are none, they have another form, or they are no classes.

    >>> training_labels([[1.0], [0.0]], np.zeros((2, 4)), num_classes=2)
    array([1, 0])
    """
    if y is None or np.shape(y) == np.shape(x):
        raise DataError(
            f"Expected labels `y` for a strategy that learns from them, got none; {_ADVICE}."
        )
    labels = _one_number_each(y, x)
    with np.errstate(invalid="ignore"):  # of NaN, which is no class
        classes = labels.astype(np.int64)
        good = (classes == labels) & (classes >= 0)
    if num_classes is not None:
        good &= classes < num_classes
    if not good.all() and not mend:
        most = "up" if num_classes is None else f"to {num_classes - 1}"
        raise DataError(
            f"Expected `y` to hold whole class numbers from 0 {most}, got {int((~good).sum())} of "
            f"{len(labels)} that are not; count the classes of all parties together, and give "
            "their number to the model, `orchestra_model(..., num_classes=...)`."
        )
    return np.where(good, classes, 0)


def label_problem(y: Any, x: Any, num_classes: int | None, mend: bool) -> str:
    """Return what is wrong with a party's labels, for the driver; empty if nothing is.

    The arguments are those of :func:`training_labels`.
    """
    try:
        training_labels(y, x, num_classes, mend)
    except DataError as error:
        return str(error).rstrip(".")
    return ""


def _one_number_each(y: Any, x: Any) -> npt.NDArray[Any]:
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] == 1:  # a column of an HDataFrame
        labels = labels[:, 0]
    if labels.ndim != 1 or len(labels) != len(x) or labels.dtype.kind not in "biuf":
        columns = labels.ndim == 2 and len(labels) == len(x) and labels.dtype.kind in "biuf"
        remedy = "; of one column for each class, give `y.argmax(axis=1)`" if columns else ""
        raise DataError(
            f"Expected `y` to hold one class number per sample, got shape {labels.shape} of "
            f"{labels.dtype} for {len(x)} samples{remedy}."
        )
    return labels
