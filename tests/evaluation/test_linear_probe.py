import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from orchestra_strategy.errors import DataError, ParameterError
from orchestra_strategy.evaluation import linear_probe_accuracy

LINE = np.array([[0.0], [1.0], [9.0], [10.0]])
HALVES = np.array([0, 0, 1, 1])


@pytest.fixture
def blobs():
    """Three overlapping classes in 4 columns of very different scale."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    features = rng.normal(size=(300, 4)) * 1.5 + np.eye(4)[labels] * 3
    features *= np.array([1.0, 100.0, 0.01, 1e4])
    return features[:150], labels[:150], features[150:], labels[150:]


def test_separable_data_is_100_percent():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 20)
    features = 10 * np.eye(3)[labels] + rng.uniform(-1, 1, (60, 3))
    shifted = 10 * np.eye(3)[labels] + rng.uniform(-1, 1, (60, 3))
    assert linear_probe_accuracy(features, labels, shifted, labels) == 1.0


def test_equals_scikit_learn_on_features_standardised_by_hand(blobs):
    x, y, test_x, test_y = blobs
    mean, std = x.mean(axis=0), x.std(axis=0)
    model = LogisticRegression(max_iter=10_000).fit((x - mean) / std, y)
    expected = np.mean(model.predict((test_x - mean) / std) == test_y)
    assert 0.5 < expected < 1.0  # neither trivial nor hopeless, so a difference would show
    assert linear_probe_accuracy(*blobs) == expected


def test_test_rows_are_standardised_by_the_train_statistics():
    # Moved by 20, all test rows lie on class 1's side; by their own mean they would look right.
    assert linear_probe_accuracy(LINE, HALVES, LINE + 20, HALVES) == 0.5


def test_statistics_from_other_training_rows():
    # The column that tells the classes apart varies by 1 among all rows, but by 0.001 among the
    # labelled: on the statistics of all, the L2 term keeps the probe on the other column.
    labelled = np.array([[0.000, 0.0], [0.001, 1.0]])
    everything = np.array([[-1.0, 0.0], [1.0, 0.0], [-1.0, 1.0], [1.0, 1.0]])
    test_x, test_y = np.array([[1.0, 0.0], [-1.0, 1.0]]), np.array([0, 1])
    arguments = (labelled, np.array([0, 1]), test_x, test_y)
    assert linear_probe_accuracy(*arguments) == 0.0
    assert linear_probe_accuracy(*arguments, statistics_from=everything) == 1.0


def test_scale_of_a_column_does_not_count(blobs):
    x, y, test_x, test_y = blobs
    scale = np.array([3.0, 7.0, 1000.0, 0.5])
    assert linear_probe_accuracy(x * scale, y, test_x * scale, test_y) == linear_probe_accuracy(
        *blobs
    )


def test_collapsed_features_are_chance_not_a_crash():
    same = np.full((40, 3), 0.7, np.float32)
    labels = np.arange(40) % 2
    assert linear_probe_accuracy(same, labels, same, labels) == 0.5


def test_repeats_exactly(blobs):
    assert linear_probe_accuracy(*blobs) == linear_probe_accuracy(*blobs)


def test_convergence_failure_is_an_error(blobs):
    message = "`max_iter` to be enough for the linear probe to converge, got 1: .* Give a higher"
    with pytest.raises(ParameterError, match=message):
        linear_probe_accuracy(*blobs, max_iter=1)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"max_iter": 0}, ParameterError, "`max_iter` to be at least 1, got 0"),
        ({"train_labels": np.full(4, 3)}, DataError, "at least two classes, got only class 3"),
        ({"train_features": LINE[:, 0]}, DataError, "`train_features` to be a non-empty"),
        ({"train_labels": HALVES[:2]}, DataError, r"`train_labels` to have shape \(4,\)"),
        ({"test_labels": HALVES[:2]}, DataError, r"`test_labels` to have shape \(4,\)"),
        ({"test_features": LINE - np.inf}, DataError, "`test_features` to be finite"),
        (
            {"test_features": np.ones((4, 2))},
            DataError,
            "`test_features` to have 1 columns, as `train_features` has, got 2",
        ),
        ({"statistics_from": LINE[:0]}, DataError, "`statistics_from` to be a non-empty"),
        ({"statistics_from": np.ones((4, 2))}, DataError, "`statistics_from` to have 1 columns"),
    ],
)
def test_refuses(changed, error, message):
    arguments = {
        "train_features": LINE,
        "train_labels": HALVES,
        "test_features": LINE,
        "test_labels": HALVES,
    }
    with pytest.raises(error, match=message):
        linear_probe_accuracy(**(arguments | changed))
