"""A party's part in a federated linear probe: the functions that run where its data are."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from orchestra_strategy.data.arrays import describe_samples
from orchestra_strategy.evaluation.features import extract_features
from orchestra_strategy.threads import torch_threads

__all__ = [
    "classify",
    "count_correct",
    "describe",
    "features_of",
    "linear_layer",
    "one_hot",
    "scale_from",
    "scaled",
    "sums_of",
    "unscaled",
]

Scale = Mapping[str, npt.NDArray[np.float64]]
Features = npt.NDArray[np.float32]


def describe(x: npt.NDArray[Any], y: npt.NDArray[Any]) -> dict[str, Any]:
    """Return a report on the samples, and lowest and highest label; -1 where they are no classes.

    Args:
        x: Shape (n, ...).
        y: Shape (n,) or (n, 1); floats are fine where they are whole, as tables give them.
    """
    report = describe_samples(x, y)
    labels = np.asarray(y)
    columns = labels.ndim == 1 or (labels.ndim == 2 and labels.shape[1] == 1)
    whole = labels.dtype.kind in "iuf" and bool((labels == np.round(labels)).all())
    if not (columns and whole and labels.size):
        found = f"labels of shape {labels.shape} and dtype {labels.dtype}"
        return {"samples": report, "labels": found, "lowest": -1, "highest": -1}
    lowest, highest = int(labels.min()), int(labels.max())
    found = f"labels from {lowest} to {highest}"
    return {"samples": report, "labels": found, "lowest": lowest, "highest": highest}


def features_of(encoder: nn.Module, x: npt.NDArray[Any]) -> Features:
    """Return the frozen encoder's features, shape (n, d)."""
    with torch_threads(1):
        return extract_features(encoder, x)


def sums_of(features: Features) -> dict[str, Any]:
    """Return number, sum and sum of squares of the rows, in float64."""
    rows = features.astype(np.float64)
    return {"n": len(rows), "sum": rows.sum(axis=0), "squares": (rows**2).sum(axis=0)}


def scale_from(sums: Sequence[Mapping[str, Any]]) -> dict[str, npt.NDArray[np.float64]]:
    """Return mean and divisor (deviation times sqrt(d)) of all parties' rows together.

    Args:
        sums: What :func:`sums_of` returned at each party.

    >>> rows = np.array([[0.0], [2.0]], np.float32)
    >>> scale_from([sums_of(rows), sums_of(rows + 2)])["mean"]
    array([2.])
    """
    n = sum(s["n"] for s in sums)
    mean = sum(s["sum"] for s in sums) / n
    squares = sum(s["squares"] for s in sums) / n
    # What rounding leaves of the variance of a constant column would blow it up.
    variance = np.where(squares - mean**2 > 1e-12 * squares, squares - mean**2, 1.0)
    return {"mean": mean, "divisor": np.sqrt(variance * len(mean))}


def scaled(features: Features, scale: Scale) -> Features:
    """Return standardised rows, of length 1 in the mean square over all parties."""
    rows: Features = ((features - scale["mean"]) / scale["divisor"]).astype(np.float32)
    return rows


def unscaled(
    weights: Sequence[npt.NDArray[np.float32]], scale: Scale
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return weight and bias for features that were not scaled.

    >>> weight, bias = unscaled([np.eye(1), np.zeros(1)], {"mean": 3.0, "divisor": 2.0})
    >>> (weight @ np.array([5.0]) + bias).tolist()
    [1.0]
    """
    weight = weights[0].astype(np.float64) / scale["divisor"]
    bias = weights[1].astype(np.float64) - weight @ np.broadcast_to(scale["mean"], weight.shape[1])
    return weight, bias


def one_hot(y: npt.NDArray[Any], num_classes: int) -> npt.NDArray[np.float32]:
    """Return labels (n, num_classes): SecretFlow makes labels float, which are no indices."""
    classes = np.asarray(y).reshape(-1).astype(np.int64)
    rows: npt.NDArray[np.float32] = np.eye(num_classes, dtype=np.float32)[classes]
    return rows


def linear_layer(width: int, num_classes: int) -> nn.Linear:
    """Return a layer of zeros: the problem is convex, so no start has to be drawn."""
    layer = nn.Linear(width, num_classes, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    return layer


def classify(
    features: npt.NDArray[Any], weight: npt.NDArray[np.float64], bias: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """Return the class of each row, the lowest of equals."""
    classes: npt.NDArray[np.int64] = (features @ weight.T + bias).argmax(axis=1)
    return classes


def count_correct(
    encoder: nn.Module,
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    weight: npt.NDArray[np.float64],
    bias: npt.NDArray[np.float64],
) -> int:
    """Return how many rows are classified correctly."""
    found = classify(features_of(encoder, x), weight, bias)
    return int((found == np.asarray(y).reshape(-1)).sum())
