"""Linear probe: logistic regression on frozen, standardised features.

G. Alain, Y. Bengio, "Understanding intermediate layers using linear classifier probes", 2016,
https://arxiv.org/abs/1610.01644. The Orchestra paper (https://arxiv.org/abs/2205.11506) trains its
probe by SGD (50 epochs, batch 256, learning rate 30, cosine). We solve the same convex problem with
an L2 term to its optimum instead: nothing to tune, and no randomness.
"""

import warnings
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from orchestra_strategy.errors import ParameterError
from orchestra_strategy.evaluation.array_checks import FloatArray, IntArray, check_probe_sets

__all__ = ["Outcome", "linear_probe", "linear_probe_accuracy"]


class Outcome(NamedTuple):
    """A probe on the test rows.

    Attributes:
        accuracy: The fraction that is classified correctly.
        scores: Of two classes, how much each row (m,) looks like the second; else None.
    """

    accuracy: float
    scores: FloatArray | None


def linear_probe(
    train_features: FloatArray,
    train_labels: IntArray,
    test_features: FloatArray,
    test_labels: IntArray,
    statistics_from: FloatArray | None = None,
    max_iter: int = 10_000,
) -> Outcome:
    """Train a linear classifier on the training features, and measure it on the test's.

    Args:
        train_features: Shape (n, d).
        train_labels: Shape (n,), integer, at least two classes.
        test_features: Shape (m, d).
        test_labels: Shape (m,), integer.
        statistics_from: Training features, shape (p, d), whose mean and deviation standardise both
            sets; ``train_features`` by default. Where only few training rows have labels, give all
            of them: the statistics of ten rows are noise, and no label is needed for better ones.
        max_iter: Upper limit of the solver's iterations.

    Raises:
        DataError: Features or labels are empty, not finite, or do not match, or have one class.
        ParameterError: The solver has not converged within ``max_iter``. A probe stopped early
            would be compared with others that were not.

    >>> x = np.array([[0.0], [1.0], [9.0], [10.0]])
    >>> linear_probe(x, np.array([0, 0, 1, 1]), x + 0.1, np.array([0, 0, 1, 1])).accuracy
    1.0
    """
    reference = train_features if statistics_from is None else statistics_from
    check_probe_sets(
        train_features, train_labels, test_features, test_labels, statistics_from=reference
    )
    if max_iter < 1:
        raise ParameterError(f"Expected `max_iter` to be at least 1, got {max_iter}.")
    # float64, because the solver's line search can stall in float32 on collapsed features.
    scaler = StandardScaler().fit(reference.astype(np.float64))
    train, test = (scaler.transform(x.astype(np.float64)) for x in (train_features, test_features))
    # One thread: the products are thin, and BLAS threads that wait for each other on cores which
    # the parties use as well made a probe ten times slower.
    with threadpool_limits(1):
        classifier = _fit(LogisticRegression(max_iter=max_iter), train, train_labels)
        scores = classifier.decision_function(test) if len(classifier.classes_) == 2 else None
        return Outcome(float(classifier.score(test, test_labels)), scores)


def linear_probe_accuracy(
    train_features: FloatArray,
    train_labels: IntArray,
    test_features: FloatArray,
    test_labels: IntArray,
    statistics_from: FloatArray | None = None,
    max_iter: int = 10_000,
) -> float:
    """Return the accuracy of :func:`linear_probe`; arguments and errors are its.

    >>> x = np.array([[0.0], [1.0], [9.0], [10.0]])
    >>> linear_probe_accuracy(x, np.array([0, 0, 1, 1]), x, np.array([0, 0, 1, 0]))
    0.75
    """
    sets = (train_features, train_labels, test_features, test_labels)
    return linear_probe(*sets, statistics_from, max_iter).accuracy


def _fit(
    classifier: LogisticRegression, features: FloatArray, labels: IntArray
) -> LogisticRegression:
    """Fit the classifier; turn the solver's warning into an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            return classifier.fit(features, labels)
        except ConvergenceWarning as warning:
            reason = str(warning).splitlines()[0]
            raise ParameterError(
                "Expected `max_iter` to be enough for the linear probe to converge, got "
                f"{classifier.max_iter}: {reason} Give a higher `max_iter`."
            ) from warning
