"""Samples and labels as ``fit``, ``evaluate`` and ``predict`` take them, at their parties."""

import logging
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from orchestra_strategy import host
from orchestra_strategy.data.arrays import describe_samples
from orchestra_strategy.data.readers.csv_options import one_hot_columns
from orchestra_strategy.data.sources import fed_labelled_from_paths, fed_labelled_from_readers
from orchestra_strategy.errors import DataError
from orchestra_strategy.party.built_data import data_from_builder
from orchestra_strategy.runtime.checks import federated_values

__all__ = [
    "federated_pair",
    "has_paths",
    "shape_of_samples",
    "validation_pair",
    "views_of_tables",
]

_log = logging.getLogger(__name__)


def federated_pair(
    x: Any,
    y: Any = None,
    dataset_builder: Mapping[Any, Callable[..., Any]] | None = None,
    stage: str = "train",
    labelled: bool = False,
) -> tuple[Any, Any | None]:
    """Return FedNdarrays of samples and labels.

    Args:
        x: FedNdarray, HDataFrame, ``{PYU: array}`` or ``{PYU: path}``.
        y: Labels in the same form; the name of a column where ``x`` has paths of tables; or None.
        dataset_builder: ``{PYU: f}``, which read the paths in ``x``; labels then come from it.
        stage: What a builder is told: ``"train"`` or ``"eval"``.
        labelled: Whether labels are needed: those that paths have (folders of classes, ``y`` of a
            .npz file) are read then without asking.

    Returns:
        Samples, and labels or None.

    Raises:
        DataError: It is anything else, a party cannot read its data, or labels are needed and there
            are none.
        ParameterError: A builder gives something else than batches.
    """
    if dataset_builder is not None:
        x, y = _built(x, y, dataset_builder, stage)
    elif y is None and labelled and has_paths(x):
        x, y = fed_labelled_from_paths(x)
    elif isinstance(y, str):
        x, y = _with_label_column(x, y)
    else:
        x, y = federated_values(x), None if y is None else federated_values(y)
    if labelled and y is None:
        raise DataError(
            "Expected labels `y` for a strategy that learns from them, got none; give `fit(x, y)`, "
            "in the form of `x`, the name of a column where `x` has paths of tables, or paths of "
            "data with labels."
        )
    return x, y


def _with_label_column(x: Any, y: str) -> tuple[Any, Any | None]:
    if not has_paths(x):
        raise DataError(
            f"Expected `y` to name a column only with {{PYU: path}} of tables, got {y!r} with "
            f"{type(x).__name__}; give labels in the form of `x`."
        )
    return fed_labelled_from_paths(x, label_column=y)


def validation_pair(
    validation_data: Any, dataset_builder: Mapping[Any, Callable[..., Any]] | None = None
) -> tuple[Any, Any] | None:
    """Return samples and labels of ``validation_data``, in the form that FLModel's ``fit`` takes.

    Args:
        validation_data: ``(x, y)``, ``(x, None)``, or ``x`` alone, each as in
            :func:`federated_pair`; or None.
        dataset_builder: As in :func:`federated_pair`.

    Raises:
        DataError: It is anything else.
        ParameterError: As in :func:`federated_pair`.
    """
    if validation_data is None:
        return None
    pair = validation_data if isinstance(validation_data, tuple | list) else (validation_data, None)
    if len(pair) != 2:
        raise DataError(
            f"Expected `validation_data` to be (x, y) or x, got {len(pair)} things: samples are "
            "not weighted here."
        )
    x, y = federated_pair(pair[0], pair[1], dataset_builder, stage="eval")
    return x, x if y is None else y


def shape_of_samples(federated: Any) -> tuple[int, ...]:
    """Return the shape of one sample at the first party of a FedNdarray.

    The others' are compared with it before training.

    Raises:
        DataError: Its samples are no array, or there is no party.
    """
    for device, samples in federated.partitions.items():
        report = host.reveal(device(describe_samples)(samples, None, False))
        return tuple(report["sample_shape"])
    raise DataError("Expected data of at least one party, got none.")


def has_paths(x: Any) -> bool:
    """Whether samples are given as a mapping to paths."""
    return isinstance(x, Mapping) and all(isinstance(v, str | os.PathLike) for v in x.values())


def views_of_tables(
    parameters: Mapping[str, Any], data_options: Mapping[str, Any]
) -> dict[str, Any]:
    """Tell views ``table`` which columns hold one category together, where nobody has said it.

    Args:
        parameters: The strategy's, as they are given.
        data_options: How the parties read their tables, with what they have agreed on.

    Returns:
        ``view_options`` to use; nothing, where those of the parameters are complete. Where names of
        columns are not known here, a warning says what to give.
    """
    options = parameters.get("view_options", {})
    categories = data_options.get("categories")
    if parameters.get("views") != "table" or "one_hot" in options or not categories:
        return {}
    if not data_options.get("columns"):
        _log.warning(
            "Expected `columns` beside `categories` in `data_options`, for views `table` to "
            "replace the columns of one category together, got none: they are replaced one by "
            "one. Name them, or give `view_options={'one_hot': ...}`."
        )
        return {}
    one_hot = one_hot_columns(data_options["columns"], categories)
    return {"view_options": {**options, "one_hot": one_hot}}


def _built(x: Any, y: Any, builders: Mapping[Any, Any], stage: str) -> tuple[Any, Any | None]:
    if not has_paths(x) or not x or not isinstance(builders, Mapping) or set(builders) != set(x):
        raise DataError(
            "Expected `x` to be {PYU: path} with `dataset_builder={PYU: f}`, the same PYUs, got "
            f"{type(x).__name__} and {type(builders).__name__}; without a builder, batches are "
            "made of the samples."
        )
    if y is not None:
        raise DataError(
            f"Expected no `y` with `dataset_builder`, whose batches have the labels, got "
            f"{type(y).__name__}."
        )
    paths = {device: os.fspath(path) for device, path in x.items()}
    return fed_labelled_from_readers(
        {d: partial(data_from_builder, builders[d], path, stage) for d, path in paths.items()}
    )
