"""The evaluation protocol: linear probes with few and all labels, and kNN, beside two controls.

An accuracy alone says little: on easy data an untrained network or the raw input may reach it too.
So every method is measured together with both, on the same test rows and with the same labels, and
a method that does not beat both controls has learnt nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from orchestra_strategy.errors import DataError, ParameterError
from orchestra_strategy.evaluation.array_checks import (
    Array,
    FloatArray,
    IntArray,
    as_numpy,
    check_features,
    check_labels,
)
from orchestra_strategy.evaluation.class_labels import ranking, two_classes
from orchestra_strategy.evaluation.features import extract_features
from orchestra_strategy.evaluation.knn import knn_votes
from orchestra_strategy.evaluation.linear_probe import Outcome, linear_probe
from orchestra_strategy.evaluation.splits import check_disjoint, labelled_subset
from orchestra_strategy.rng import numpy_generator

__all__ = ["CONTROLS", "MEASURES", "ProbeResult", "probe_protocol", "with_controls"]

CONTROLS = ("untrained", "pixels", "columns")
"""Names of the feature sets that a method must beat; which of the last two, depends on the data."""

MEASURES = {"accuracy": "Accuracy", "auc": "AUC", "ap": "Average precision"}
"""What is measured, with its name in tables; the last two of two classes alone."""

FeaturePairs = Mapping[str, tuple[FloatArray, FloatArray]]


@dataclass(frozen=True)
class ProbeResult:
    """Accuracies of one feature set under one probe, or another measure of it.

    Attributes:
        mean: Mean over the seeds, a fraction in [0, 1].
        std: Sample standard deviation over the seeds (n - 1); 0 for a single value.
        values: One accuracy per seed; one in all if nothing was drawn.
    """

    mean: float
    std: float
    values: tuple[float, ...]

    @classmethod
    def from_values(cls, values: Sequence[float]) -> "ProbeResult":
        """Summarise at least one accuracy.

        >>> ProbeResult.from_values([0.5, 1.0]).mean
        0.75
        """
        std = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        return cls(float(np.mean(values)), std, tuple(float(v) for v in values))

    def percent(self) -> str:
        """Return mean and deviation in percent; a single value has no deviation to show.

        >>> ProbeResult(0.9312, 0.0042, (0.9, 0.96)).percent()
        '93.1 ± 0.4'
        >>> ProbeResult(1.0, 0.0, (1.0,)).percent()
        '100.0'
        """
        mean = f"{100 * self.mean:.1f}"
        return f"{mean} ± {100 * self.std:.1f}" if len(self.values) > 1 else mean


def with_controls(
    trained_model: nn.Module,
    untrained_model: nn.Module,
    train_x: Array,
    test_x: Array,
    batch_size: int = 512,
    device: "torch.device | str" = "cpu",
    allow_duplicates: bool = False,
    name: str = "trained",
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Extract the features of a method and of its two controls, for :func:`probe_protocol`.

    Args:
        trained_model: Maps a batch to features (B, d).
        untrained_model: The same network as it was initialised.
        train_x: Shape (n, ...), uint8 or floating.
        test_x: Shape (m, ...), none of its rows in ``train_x``.
        batch_size: Rows at a time.
        device: Where the models run.
        allow_duplicates: See :func:`check_disjoint`.
        name: What the method's features are called, such as its strategy.

    Returns:
        ``name``, ``untrained`` and ``pixels`` (the flattened input; ``columns`` of a table), each
        with its train (n, d) and test (m, d) features.

    Raises:
        DataError: Train and test overlap, or cannot be evaluated on.
        ParameterError: Both models are the same object, or ``name`` is that of a control.
    """
    if name in CONTROLS:
        raise ParameterError(f"Expected `name` to be none of {CONTROLS}, got {name!r}.")
    if trained_model is untrained_model:
        raise ParameterError(
            "Expected `untrained_model` to be another module than `trained_model`, got the same "
            "object. Keep a copy with `copy.deepcopy(model)` before training."
        )
    check_disjoint(train_x, test_x, allow_duplicates)
    features = {
        of: (
            extract_features(model, train_x, batch_size, device),
            extract_features(model, test_x, batch_size, device),
        )
        for of, model in ((name, trained_model), ("untrained", untrained_model))
    }
    # As they were given: the normalisation for the network would shift the cosines of kNN.
    raw_train, raw_test = (as_numpy(x).reshape(len(x), -1) for x in (train_x, test_x))
    raw = "columns" if train_x.ndim == 2 else "pixels"
    return features | {raw: (raw_train.astype(np.float32), raw_test.astype(np.float32))}


def probe_protocol(
    features_by_name: FeaturePairs,
    train_labels: IntArray,
    test_labels: IntArray,
    labels_per_class: Sequence[int | None] = (1, 5, 20, None),
    seeds: int = 5,
    root_seed: int = 0,
) -> dict[str, dict[str, ProbeResult]]:
    """Measure each feature set by linear probes on few and on all labels, and by kNN.

    The labelled rows of a seed are the same for every feature set, so the comparison is paired:
    an easy draw is easy for all. Features are standardised by all training rows, for which no
    label is needed.

    Args:
        features_by_name: Name -> (train (n, d), test (m, d)); d may differ between names.
        train_labels: Shape (n,), integer.
        test_labels: Shape (m,), integer.
        labels_per_class: Numbers of labelled rows of each class; None for all of them.
        seeds: How many labelled subsets are drawn for each number.
        root_seed: The experiment's seed, from which the draws derive.

    Returns:
        Name -> results by ``"1"``, ``"5"``, ``"20"``, ``"all"`` (as asked for) and ``"knn"``. The
        last two draw nothing, so they have one value. Of two classes, also how well the probes
        rank: ``"1 auc"`` and ``"1 ap"``, the area under the ROC curve and the average precision of
        the second class, and so on for each.

    Raises:
        DataError: Features and labels do not match, or a class has too few rows.
        ParameterError: Nothing to measure, or a number out of its range.

    >>> x, y = np.array([[-2.0], [-1.0], [1.0], [2.0]]), np.array([0, 0, 1, 1])
    >>> probe_protocol({"toy": (x, x)}, y, y, labels_per_class=(1, None))["toy"]["1"].values
    (1.0, 1.0, 1.0, 1.0, 1.0)
    """
    _check_request(features_by_name, train_labels, test_labels, seeds)
    # All subsets are drawn before anything is trained: a class with too few rows is told at once.
    draws = {
        "all" if count is None else str(count): _draw(train_labels, count, seeds, root_seed)
        for count in labels_per_class
    }
    return {
        name: _measured(train, train_labels, test, test_labels, draws)
        for name, (train, test) in features_by_name.items()
    }


def _measured(
    train: FloatArray,
    train_labels: IntArray,
    test: FloatArray,
    test_labels: IntArray,
    draws: Mapping[str, Sequence[IntArray]],
) -> dict[str, ProbeResult]:
    """Return what one set of features gives, by the keys of :func:`probe_protocol`."""
    outcomes = {
        key: [
            linear_probe(train[rows], train_labels[rows], test, test_labels, statistics_from=train)
            for rows in subsets
        ]
        for key, subsets in draws.items()
    }
    # Copies, because torch warns when it would share a read-only array, such as Ray gives.
    bank, labels, queries = (
        torch.from_numpy(np.array(x, order="C")) for x in (train, train_labels, test)
    )
    votes = knn_votes(bank, labels, queries).numpy()
    right = votes.argmax(axis=1) == test_labels
    # Of two classes (`ranked`) the second one's share of the votes.
    outcomes["knn"] = [Outcome(float(right.mean()), votes[:, int(train_labels.max())])]
    ranked = two_classes(train_labels, test_labels)
    results = {}
    for key, found in outcomes.items():
        results[key] = ProbeResult.from_values([outcome.accuracy for outcome in found])
        if ranked:
            ranks = [ranking(test_labels, o.scores) for o in found if o.scores is not None]
            for measure in ("auc", "ap"):
                values = [rank[measure] for rank in ranks]
                results[f"{key} {measure}"] = ProbeResult.from_values(values)
    return results


def _draw(labels: IntArray, count: int | None, seeds: int, root_seed: int) -> list[IntArray]:
    """Draw the labelled rows of each seed; with all labels there is one draw, of everything."""
    if count is None:
        return [np.arange(len(labels))]
    # `count` is not part of the stream's name, so that the subsets of a seed are nested.
    return [
        labelled_subset(labels, count, numpy_generator(root_seed, "evaluation", s, "labels"))
        for s in range(seeds)
    ]


def _check_request(
    features_by_name: FeaturePairs,
    train_labels: IntArray,
    test_labels: IntArray,
    seeds: int,
) -> None:
    """Refuse a request before the first probe is trained, naming the feature set at fault."""
    check_labels("train_labels", train_labels, len(train_labels))
    check_labels("test_labels", test_labels, len(test_labels))
    if not features_by_name:
        raise ParameterError("Expected `features_by_name` to name a feature set, got none.")
    if seeds < 1:
        raise ParameterError(f"Expected `seeds` to be at least 1, got {seeds}.")
    for name, (train, test) in features_by_name.items():
        for which, rows, labels in (("train", train, train_labels), ("test", test, test_labels)):
            argument = f"features_by_name[{name!r}] ({which})"
            check_features(argument, rows)
            if len(rows) != len(labels):
                rule = f"Expected `{argument}` to have {len(labels)} rows, one for each label"
                raise DataError(f"{rule}, got {len(rows)}.")
