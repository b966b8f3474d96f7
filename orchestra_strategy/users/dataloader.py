"""Each user's own data loader, over its part of one data set."""

from collections.abc import Callable, Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from orchestra_strategy.errors import DataError, ParameterError
from orchestra_strategy.rng import torch_generator
from orchestra_strategy.users.partition import Indices, user_indices
from orchestra_strategy.users.reading import count, flag, required, setting

__all__ = ["construct_dataloader", "dataloaders_of"]


class _Arrays(Dataset[dict[str, Tensor]]):
    """Named arrays with a row per sample, as a data set of dictionaries."""

    def __init__(self, arrays: dict[str, Tensor]) -> None:
        rows = {name: len(a) for name, a in arrays.items()}
        if len(set(rows.values())) != 1:
            raise DataError(f"Expected all arrays of `cfg_data` to have the same rows, got {rows}.")
        self.arrays = arrays

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: a[index] for name, a in self.arrays.items()}


def construct_dataloader(cfg_data: Any, cfg_impl: Any, user_idx: int) -> DataLoader[Any]:
    """Return the data loader of one user; different users' samples are disjoint.

    Args:
        cfg_data: By attribute, the data: either ``dataset``, a map-style torch data set of dicts,
            ``(x, y)`` or ``(x,)`` (``targets`` or ``labels`` in it are used if they are there), or
            the arrays ``inputs`` (or ``input_ids``) and perhaps ``labels``, a row per sample. And
            ``default_clients``, the number of users; ``batch_size``; ``partition``, see
            :func:`~orchestra_strategy.users.partition.user_indices` (``"random"``); ``seed`` (0).
        cfg_impl: By attribute, all optional: ``shuffle`` (False: stored order), ``threads`` (0
            worker processes), ``pin_memory`` (False).
        user_idx: From 0 to ``default_clients`` - 1.

    Raises:
        ParameterError: An entry is missing or out of its range, the user's index among them.
        DataError: There are no data, or they do not suit the partition.
    """
    return dataloaders_of(cfg_data, cfg_impl)(user_idx)


def dataloaders_of(cfg_data: Any, cfg_impl: Any) -> Callable[[int], DataLoader[Any]]:
    """Return the way from a user's index to its data loader; the data are split once for all."""
    dataset, labels = _dataset(cfg_data)
    users = count("default_clients", required(cfg_data, "cfg_data", "default_clients", "users"))
    size = count("batch_size", required(cfg_data, "cfg_data", "batch_size", "samples per batch"))
    seed = count("seed", setting(cfg_data, "seed", 0), least=0)
    partition = setting(cfg_data, "partition", "random")
    workers = count("threads", setting(cfg_impl, "threads", 0), least=0)
    parts = user_indices(partition, labels, len(dataset), users, seed)  # type: ignore[arg-type]

    def of(user_idx: int) -> DataLoader[Any]:
        if not 0 <= user_idx < users:
            raise ParameterError(
                f"Expected `user_idx` to be in 0..{users - 1} (`default_clients` = {users}), got "
                f"{user_idx}."
            )
        return DataLoader(
            Subset(dataset, parts[user_idx].tolist()),
            batch_size=size,
            shuffle=flag(cfg_impl, "shuffle"),
            num_workers=workers,
            pin_memory=flag(cfg_impl, "pin_memory"),
            # Given even without a shuffle: a loader without one draws from the global generator.
            generator=torch_generator(seed, f"user{user_idx}", 0, "order"),
        )

    return of


def _dataset(cfg_data: Any) -> tuple[Dataset[Any], Indices | None]:
    """Return the data and, if there are any, their labels (N,)."""
    dataset = setting(cfg_data, "dataset")
    if dataset is not None:
        if not isinstance(dataset, Sized):
            raise DataError(
                "Expected `cfg_data.dataset` to be a map-style data set with a length, got "
                f"{type(dataset).__name__}."
            )
        given = getattr(dataset, "targets", None)
        labels = given if given is not None else getattr(dataset, "labels", None)
        return dataset, None if labels is None else np.asarray(labels)  # type: ignore[return-value]
    names = ("inputs", "input_ids", "labels")
    arrays = {name: setting(cfg_data, name) for name in names}
    found = {name: torch.as_tensor(a) for name, a in arrays.items() if a is not None}
    if not found.keys() & {"inputs", "input_ids"}:
        raise DataError(
            "Expected `cfg_data` to hold the data as `dataset`, `inputs` or `input_ids`, got none."
        )
    labels = found["labels"].numpy() if "labels" in found else None
    return _Arrays(found), labels if labels is None or labels.ndim == 1 else None
