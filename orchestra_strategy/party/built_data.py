"""Samples from SecretFlow's ``dataset_builder``: the batches of one epoch, put together."""

from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestra_strategy.data.readers.local_data import LocalData, encode_labels
from orchestra_strategy.errors import DataError, ParameterError

__all__ = ["data_from_builder"]


def data_from_builder(builder: Callable[..., Any], path: str, stage: str = "train") -> LocalData:
    """Call a builder at its party, and collect what its batches hold.

    A party draws its own batches, in an order that follows from its seed. So what a data loader
    does to batches (order, augmentation) is done once, and not again in each epoch.

    Args:
        builder: ``f(path, stage=...)``, which returns batches and how many of them make an epoch. A
            batch is ``x``, ``(x,)`` or ``(x, y)``, of tensors or arrays.
        path: As given to ``fit``.
        stage: ``"train"`` or ``"eval"``.

    Raises:
        ParameterError: It returns something else, or weights of samples.
        DataError: There are fewer batches than it says, or none.
    """
    made = builder(path, stage=stage)
    if not isinstance(made, tuple | list) or len(made) != 2 or not isinstance(made[1], int):
        raise ParameterError(
            "Expected `dataset_builder` to return batches and how many of them make an epoch, "
            f"`(dataset, steps_per_epoch)`, got {type(made).__name__}."
        )
    batches, steps = made
    parts = [_parts(batch) for batch in islice(iter(batches), steps)]
    if not parts or len(parts) < steps:
        raise DataError(
            f"Expected `dataset_builder` to give `steps_per_epoch` = {steps} batches, at least 1, "
            f"got {len(parts)}."
        )
    with_labels = {len(part) for part in parts}
    if len(with_labels) != 1:
        raise DataError("Expected all batches of `dataset_builder` to have labels, or none.")
    samples, *labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    if not labels:
        return LocalData(samples)
    return LocalData(samples, encode_labels(labels[0], None, "the labels")[0])


def _parts(batch: Any) -> list[npt.NDArray[Any]]:
    parts = list(batch) if isinstance(batch, tuple | list) else [batch]
    if len(parts) > 2:
        raise ParameterError(
            f"Expected a batch of `dataset_builder` to be (x,) or (x, y), got {len(parts)} things: "
            "samples are not weighted here; leave `sample_weight` out."
        )
    return [np.asarray(part) for part in parts]
