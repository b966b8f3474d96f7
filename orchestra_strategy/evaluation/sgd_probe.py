"""The published linear probe: a linear classifier on frozen features, trained by SGD.

E. S. Lubana, C. I. Tang, F. Kawsar, R. P. Dick, A. Mathur, "Orchestra: Unsupervised Federated
Learning via Globally Consistent Clustering", ICML 2022, https://arxiv.org/abs/2205.11506: 50
epochs, batch 256, learning rate 30 with a cosine schedule, momentum 0.9, no weight decay. Here for
comparison with published numbers; :func:`linear_probe_accuracy` has nothing to tune.
"""

import math
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from orchestra_strategy.data.batches import round_batches
from orchestra_strategy.errors import ParameterError
from orchestra_strategy.evaluation.array_checks import FloatArray, IntArray, check_probe_sets
from orchestra_strategy.rng import torch_generator
from orchestra_strategy.threads import torch_threads

__all__ = ["Scaling", "sgd_probe_accuracy"]

Scaling = Literal["none", "unit", "standard"]

_INITIAL_DEVIATION = 0.01  # as in MoCo's linear classifier, from which the learning rate 30 comes


@torch_threads(1)  # thin products, and the same numbers on every machine
def sgd_probe_accuracy(
    train_features: FloatArray,
    train_labels: IntArray,
    test_features: FloatArray,
    test_labels: IntArray,
    epochs: int = 50,
    batch_size: int = 256,
    lr: float = 30.0,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    scaling: Scaling = "none",
    seed: int = 0,
) -> float:
    """Train a linear classifier by SGD on the training features; return its test accuracy.

    The defaults are the published setting. Its learning rate suits rows of length about 1: scale
    features that are much longer, or the last epochs still jump.

    Args:
        train_features: Shape (n, d).
        train_labels: Shape (n,), integer, at least two classes.
        test_features: Shape (m, d).
        test_labels: Shape (m,), integer.
        epochs: Walks through all training rows; none is dropped.
        batch_size: Rows per step; the last two batches share what is left.
        lr: Learning rate of the first epoch; that of epoch e is lr (1 + cos(pi e / epochs)) / 2.
        momentum: Of SGD.
        weight_decay: Of SGD.
        scaling: ``"none"`` takes the features as they are, as published; ``"unit"`` scales every
            row to length 1; ``"standard"`` standardises the columns by the training rows and
            divides by sqrt(d), so that the rows have length 1 in the mean square.
        seed: Gives the initial weights and the order; the global generator is not touched.

    Returns:
        The fraction of test rows classified correctly.

    Raises:
        DataError: Features or labels are empty, not finite, or do not match, or have one class.
        ParameterError: A setting is out of its range, or the training has diverged.

    >>> x = np.array([[1.0, 0.0], [0.9, 0.1], [0.1, 0.9], [0.0, 1.0]])
    >>> sgd_probe_accuracy(x, np.array([0, 0, 1, 1]), x, np.array([0, 0, 1, 1]))
    1.0
    """
    check_probe_sets(train_features, train_labels, test_features, test_labels)
    _check_settings(epochs, lr, momentum, weight_decay, scaling)
    batches = round_batches(len(train_features), batch_size, epochs, seed, "sgd probe", 0)
    train, test = (
        torch.from_numpy(x.astype(np.float32))
        for x in _scaled(train_features, test_features, scaling)
    )
    classes, targets = np.unique(train_labels, return_inverse=True)
    labels = torch.from_numpy(targets.astype(np.int64))
    generator = torch_generator(seed, "sgd probe", 0, "weights")
    weight = torch.empty(len(classes), train.shape[1])
    weight.normal_(0.0, _INITIAL_DEVIATION, generator=generator).requires_grad_()
    bias = torch.zeros(len(weight), requires_grad=True)
    optimizer = torch.optim.SGD([weight, bias], lr, momentum, weight_decay=weight_decay)
    order = [torch.from_numpy(rows) for rows in batches]
    steps = len(order) // epochs
    for step, rows in enumerate(order):
        optimizer.param_groups[0]["lr"] = (
            lr * (1 + math.cos(math.pi * (step // steps) / epochs)) / 2
        )
        loss = F.cross_entropy(F.linear(train[rows], weight, bias), labels[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    logits = F.linear(test, weight.detach(), bias.detach())
    if not bool(torch.isfinite(logits).all()):
        raise ParameterError(
            f"Expected `lr` to be small enough for these features, got {lr}: the probe has "
            "diverged. Give a smaller one, or `scaling='standard'`."
        )
    return float(np.mean(classes[logits.argmax(dim=1).numpy()] == test_labels))


def _scaled(
    train: FloatArray, test: FloatArray, scaling: Scaling
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return both sets as the probe sees them."""
    x, y = train.astype(np.float64), test.astype(np.float64)
    if scaling == "none":
        return x, y
    if scaling == "unit":
        lengths = (np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
        x, y = (z / np.where(n > 0, n, 1.0) for z, n in zip((x, y), lengths, strict=True))
        return x, y
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    divisor = np.where(deviation > 0, deviation, 1.0) * math.sqrt(x.shape[1])
    return (x - mean) / divisor, (y - mean) / divisor


def _check_settings(
    epochs: int, lr: float, momentum: float, weight_decay: float, scaling: str
) -> None:
    if epochs < 1:
        raise ParameterError(f"Expected `epochs` to be at least 1, got {epochs}.")
    if not 0 < lr < math.inf:
        raise ParameterError(f"Expected `lr` to be a finite number above 0, got {lr}.")
    if not 0 <= momentum < 1:
        raise ParameterError(f"Expected `momentum` to be in [0, 1), got {momentum}.")
    if not 0 <= weight_decay < math.inf:
        raise ParameterError(
            f"Expected `weight_decay` to be a finite number of at least 0, got {weight_decay}."
        )
    if scaling not in get_args(Scaling):
        raise ParameterError(
            f"Expected `scaling` to be one of {', '.join(map(repr, get_args(Scaling)))}, got "
            f"{scaling!r}."
        )
