import math

import numpy as np
import pytest
import torch

from orchestra_strategy.data import round_batches
from orchestra_strategy.errors import DataError, ParameterError
from orchestra_strategy.evaluation import linear_probe_accuracy, sgd_probe_accuracy
from orchestra_strategy.rng import torch_generator


@pytest.fixture
def blobs():
    """Three overlapping classes, rows of length about 1."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 600)
    features = (rng.normal(size=(600, 8)) * 0.35 + np.eye(8)[labels]).astype(np.float32)
    return features[:300], labels[:300], features[300:], labels[300:]


def slow_probe(x, y, test_x, test_y, epochs, batch_size, lr, momentum, weight_decay, seed):
    """Gradients of the softmax by hand, in float64."""
    generator = torch_generator(seed, "sgd probe", 0, "weights")
    w = torch.empty(3, 8).normal_(0, 0.01, generator=generator).double().numpy()
    b, x = np.zeros(3), x.astype(np.float64)
    velocity_w, velocity_b = np.zeros_like(w), np.zeros_like(b)
    batches = list(round_batches(len(x), batch_size, epochs, seed, "sgd probe", 0))
    for step, rows in enumerate(batches):
        epoch = step * epochs // len(batches)
        rate = lr * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        logits = x[rows] @ w.T + b
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        error = (p - np.eye(3)[y[rows]]) / len(rows)
        velocity_w = momentum * velocity_w + error.T @ x[rows] + weight_decay * w
        velocity_b = momentum * velocity_b + error.sum(axis=0) + weight_decay * b
        w, b = w - rate * velocity_w, b - rate * velocity_b
    return np.mean((test_x @ w.T + b).argmax(axis=1) == test_y)


@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_equals_sgd_by_hand(blobs, weight_decay):
    settings = {"epochs": 3, "batch_size": 64, "lr": 0.5, "momentum": 0.9, "seed": 3}
    expected = slow_probe(*blobs, weight_decay=weight_decay, **settings)
    assert 0.5 < expected < 1
    got = sgd_probe_accuracy(*blobs, weight_decay=weight_decay, **settings)
    assert got == pytest.approx(expected)


def test_published_setting_is_near_the_optimum(blobs):
    expected = linear_probe_accuracy(*blobs)
    assert 0.7 < expected < 0.99
    assert sgd_probe_accuracy(*blobs) == pytest.approx(expected, abs=0.04)


def test_separable_classes_with_gaps_in_their_names(blobs):
    x = np.eye(8, dtype=np.float32).repeat(5, axis=0)
    y = np.arange(8).repeat(5) * 10**9
    assert sgd_probe_accuracy(x, y, x, y) == 1.0


def test_small_last_batch_and_tiny_data_train_too():
    x, y = np.array([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]]), np.array([0, 1, 0])
    assert sgd_probe_accuracy(x, y, x, y, batch_size=2) == 1.0


def test_scaling_unit_ignores_the_length_of_a_row(blobs):
    x, y, test_x, test_y = blobs
    lengths = np.random.default_rng(1).uniform(0.1, 50, (300, 1))
    expected = sgd_probe_accuracy(*blobs, scaling="unit")
    got = sgd_probe_accuracy(x * lengths, y, test_x * lengths, test_y, scaling="unit")
    assert got == pytest.approx(expected, abs=0.01)
    zeros = np.zeros_like(test_x)
    assert sgd_probe_accuracy(x, y, zeros, test_y, scaling="unit") <= 0.5


def test_scaling_standard_ignores_units_and_offsets(blobs):
    x, y, test_x, test_y = blobs
    scale, offset = np.array([1, 100, 0.01, 1e4, 3, 7, 1e-3, 1]), 12.0
    expected = sgd_probe_accuracy(*blobs, scaling="standard")
    moved = sgd_probe_accuracy(
        x * scale + offset, y, test_x * scale + offset, test_y, scaling="standard"
    )
    assert moved == pytest.approx(expected, abs=0.01)
    assert expected > 0.7
    # By the training rows: by its own mean a shifted test set would look like the original.
    shifted = sgd_probe_accuracy(x, y, test_x + 20, test_y, scaling="standard")
    assert shifted < expected - 0.2


def test_seed_decides_and_the_global_generators_are_left_alone(blobs):
    torch.manual_seed(0)
    torch_before, numpy_before = torch.get_rng_state(), repr(np.random.get_state())
    few = {"epochs": 1, "batch_size": 16}
    values = [sgd_probe_accuracy(*blobs, seed=seed, **few) for seed in (0, 0, 1, 2, 3)]
    assert values[0] == values[1]
    assert len(set(values)) > 1
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert repr(np.random.get_state()) == numpy_before


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epochs": 0}, "`epochs` to be at least 1, got 0"),
        ({"batch_size": 0}, "`batch_size` to be an integer >= 1, got 0"),
        ({"lr": 0.0}, "`lr` to be a finite number above 0, got 0.0"),
        ({"lr": math.nan}, "`lr` to be a finite number above 0, got nan"),
        ({"momentum": 1.0}, r"`momentum` to be in \[0, 1\), got 1.0"),
        ({"weight_decay": -1.0}, "`weight_decay` to be a finite number of at least 0, got -1.0"),
        ({"scaling": "l2"}, "`scaling` to be one of 'none', 'unit', 'standard', got 'l2'"),
        ({"lr": 1e38}, r"`lr` to be small enough for these features, got 1e\+38: the probe has"),
    ],
)
def test_refuses_settings(blobs, changed, message):
    with pytest.raises(ParameterError, match=message):
        sgd_probe_accuracy(*blobs, **changed)


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (0, np.ones((300, 7)), "`test_features` to have 7 columns, as `train_features` has, got 8"),
        (1, np.zeros(300, int), "`train_labels` to have at least two classes, got only class 0"),
        (2, np.full((300, 8), np.nan), "`test_features` to be finite"),
        (3, np.zeros(2, int), r"`test_labels` to have shape \(300,\)"),
    ],
)
def test_refuses_data(blobs, position, value, message):
    arguments = list(blobs)
    arguments[position] = value
    with pytest.raises(DataError, match=message):
        sgd_probe_accuracy(*arguments)
