"""Semi-supervised evaluation: the whole network fine-tuned with few labels, 1 % and 10 % of them.

The second protocol of the Orchestra paper (https://arxiv.org/abs/2205.11506), after T. Chen et al.,
"A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020, section 6. A
probe measures what the features hold; this measures what they are worth as a start.
"""

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from orchestra_strategy.algorithms.model import network_of
from orchestra_strategy.errors import ParameterError
from orchestra_strategy.evaluation.array_checks import (
    Array,
    as_numpy,
    check_labels,
    check_two_classes,
)
from orchestra_strategy.evaluation.features import extract_features
from orchestra_strategy.evaluation.fine_tuning import FineTuning, new_head, train_network
from orchestra_strategy.evaluation.protocol import ProbeResult
from orchestra_strategy.evaluation.splits import check_disjoint, check_fraction, labelled_fraction
from orchestra_strategy.rng import derive_seed, numpy_generator
from orchestra_strategy.threads import torch_threads

__all__ = ["fine_tune", "semi_supervised_protocol"]


def fine_tune(
    model: nn.Module,
    train_x: Array,
    train_y: Array,
    test_x: Array,
    test_y: Array,
    fraction: float,
    settings: FineTuning | None = None,
    seed: int = 0,
    device: "torch.device | str" = "cpu",
    allow_duplicates: bool = False,
) -> float:
    """Train a copy of the whole network and a linear head on few labels; return its test accuracy.

    The rows of a seed are nested: those of 1 % are among those of 10 %. BatchNorm trains too. All
    parameters are trained, frozen ones included; the model that was given stays as it is.

    Args:
        model: Maps a batch (B, ...) to features (B, d), trained or untrained; see
            :func:`extract_features`.
        train_x: Samples, shape (n, ...), uint8 or floating; see
            :func:`~orchestra_strategy.data.to_model_input`.
        train_y: Their classes, shape (n,), integer, at least two; only a fraction is looked at.
        test_x: Shape (m, ...), none of its rows in ``train_x``.
        test_y: Shape (m,), integer.
        fraction: Of the rows of each class, in (0, 1]; at least one row of each is taken.
        settings: See :class:`FineTuning`.
        seed: Gives the labelled rows, the head, the order, and what is random inside the model;
            the global generators are not touched.
        device: Where it is trained.
        allow_duplicates: See :func:`check_disjoint`.

    Returns:
        The fraction of test rows classified correctly.

    Raises:
        DataError: Train and test overlap, or samples or labels cannot be used.
        ModelError: The model does not return features (B, d), or has diverged.
        ParameterError: A setting is out of its range.
    """
    check_labels("train_y", train_y, len(train_x))
    check_labels("test_y", test_y, len(test_x))
    check_two_classes("train_y", train_y)
    check_disjoint(train_x, test_x, allow_duplicates)
    settings = settings or FineTuning()
    rows = labelled_fraction(train_y, fraction, numpy_generator(seed, "fine-tuning", 0, "labels"))
    classes, targets = np.unique(as_numpy(train_y)[rows], return_inverse=True)
    samples = torch.from_numpy(np.array(as_numpy(train_x)[rows], order="C"))
    network = copy.deepcopy(network_of(model)).requires_grad_(True)
    with torch_threads(settings.torch_threads):
        width = extract_features(network, samples[:1]).shape[1]  # in eval mode: statistics stay
        network = nn.Sequential(network, new_head(width, len(classes), seed)).to(device)
        train_network(network, samples, torch.from_numpy(targets.astype(np.int64)), settings, seed)
        logits = extract_features(network, test_x, device=device)
    return float(np.mean(classes[logits.argmax(axis=1)] == as_numpy(test_y)))


def semi_supervised_protocol(
    models: Mapping[str, nn.Module],
    train_x: Array,
    train_y: Array,
    test_x: Array,
    test_y: Array,
    fractions: Sequence[float] = (0.01, 0.1),
    settings: FineTuning | None = None,
    seeds: int = 3,
    root_seed: int = 0,
    device: "torch.device | str" = "cpu",
    allow_duplicates: bool = False,
) -> dict[str, dict[str, ProbeResult]]:
    """Fine-tune each model with each fraction of the labels, with the same rows for all of them.

    Args:
        models: Name -> model; have ``"untrained"`` among them, the control.
        train_x: See :func:`fine_tune`, as for the next three.
        train_y: Shape (n,).
        test_x: Shape (m, ...).
        test_y: Shape (m,).
        fractions: Of the labels of each class, in (0, 1].
        settings: See :class:`FineTuning`.
        seeds: How often each is repeated, with other rows and another head.
        root_seed: The experiment's seed.
        device: Where they are trained.
        allow_duplicates: See :func:`check_disjoint`.

    Returns:
        Name -> results by ``"1%"``, ``"10%"`` (as asked for), for
        :func:`~orchestra_strategy.evaluation.report.results_table`.

    Raises:
        DataError: As :func:`fine_tune`.
        ModelError: As :func:`fine_tune`.
        ParameterError: No model, no fraction, or a setting out of its range.
    """
    if not models or not fractions or seeds < 1:
        raise ParameterError(
            "Expected `models`, `fractions` and `seeds` to ask for at least one run, got "
            f"{len(models)}, {len(fractions)} and {seeds}."
        )
    for fraction in fractions:
        check_fraction(fraction)
    drawn = [derive_seed(root_seed, "fine-tuning", s, "repetition") for s in range(seeds)]
    data = (train_x, train_y, test_x, test_y)
    return {
        name: {
            f"{100 * fraction:g}%": ProbeResult.from_values(
                [
                    fine_tune(model, *data, fraction, settings, s, device, allow_duplicates)
                    for s in drawn
                ]
            )
            for fraction in fractions
        }
        for name, model in models.items()
    }
