"""Samples and labels as ``fit``, ``evaluate`` and ``predict`` take them, at their parties."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from orchestra_strategy.data.sources import fed_labelled_from_paths, fed_labelled_from_readers
from orchestra_strategy.errors import DataError
from orchestra_strategy.party.built_data import data_from_builder
from orchestra_strategy.runtime.checks import federated_values

__all__ = ["federated_pair", "validation_pair"]


def federated_pair(
    x: Any,
    y: Any = None,
    dataset_builder: Mapping[Any, Callable[..., Any]] | None = None,
    stage: str = "train",
) -> tuple[Any, Any | None]:
    """Return FedNdarrays of samples and labels.

    Args:
        x: FedNdarray, HDataFrame, ``{PYU: array}`` or ``{PYU: path}``.
        y: Labels in the same form; the name of a column where ``x`` has paths of tables; or None.
        dataset_builder: ``{PYU: f}``, which read the paths in ``x``; labels then come from it.
        stage: What a builder is told: ``"train"`` or ``"eval"``.

    Returns:
        Samples, and labels or None.

    Raises:
        DataError: It is anything else, or a party cannot read its data.
        ParameterError: A builder gives something else than batches.
    """
    if dataset_builder is not None:
        return _built(x, y, dataset_builder, stage)
    if not isinstance(y, str):
        return federated_values(x), None if y is None else federated_values(y)
    if not _has_paths(x):
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


def _has_paths(x: Any) -> bool:
    return isinstance(x, Mapping) and all(isinstance(v, str | os.PathLike) for v in x.values())


def _built(x: Any, y: Any, builders: Mapping[Any, Any], stage: str) -> tuple[Any, Any | None]:
    if not _has_paths(x) or not x or not isinstance(builders, Mapping) or set(builders) != set(x):
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
