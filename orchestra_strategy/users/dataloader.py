"""Each user's own data loader, over its part of one data set."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler, Subset

from orchestra_strategy.data.option_checks import as_count
from orchestra_strategy.data.partition import iid_partition
from orchestra_strategy.errors import DataError, ParameterError, did_you_mean
from orchestra_strategy.rng import torch_generator
from orchestra_strategy.users.named_data import named_dataset
from orchestra_strategy.users.settings import flag, required, setting

__all__ = [
    "PARTITIONS",
    "Dataloaders",
    "checked_indices",
    "construct_dataloader",
    "dataloaders_of",
    "loader_by_index",
    "user_indices",
]

Indices = npt.NDArray[np.int64]


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


def construct_dataloader(
    cfg_data: Any, cfg_impl: Any, user_idx: int, *, dataset: Any = None
) -> DataLoader[Any]:
    """Return the data loader of one user; different users' samples are disjoint.

    Args:
        cfg_data: By attribute, the data: either ``dataset``, a map-style torch data set of dicts,
            ``(x, y)`` or ``(x,)`` (``targets`` or ``labels`` in it are used if they are there), or
            the arrays ``inputs`` (or ``input_ids``) and perhaps ``labels``, a row per sample; or
            the ``name`` of a data set, see
            :func:`~orchestra_strategy.users.named_data.named_dataset`. And ``default_clients``, the
            number of users; ``batch_size``; ``partition``, see
            :func:`~orchestra_strategy.users.dataloader.user_indices` (``"random"``); ``seed`` (0).
        cfg_impl: By attribute, all optional: ``shuffle`` (False: stored order), ``threads`` (0
            worker processes), ``pin_memory`` (False), ``sample_with_replacement`` (False) of a
            shuffle.
        user_idx: From 0 to ``default_clients`` - 1.
        dataset: The data, in place of what ``cfg_data`` says of them.

    Raises:
        ParameterError: An entry is missing or out of its range, the user's index among them.
        DataError: There are no data, or they do not suit the partition.
    """
    return dataloaders_of(cfg_data, cfg_impl, dataset)(user_idx)


def dataloaders_of(
    cfg_data: Any, cfg_impl: Any, dataset: Any = None
) -> Callable[[int], DataLoader[Any]]:
    """Return the way from a user's index to its data loader; the data are split once for all."""
    dataset, labels = _dataset(cfg_data, dataset)
    users = as_count("default_clients", required(cfg_data, "cfg_data", "default_clients", "users"))
    size = as_count("batch_size", required(cfg_data, "cfg_data", "batch_size", "samples per batch"))
    seed = as_count("seed", setting(cfg_data, "seed", 0), minimum=0)
    partition = setting(cfg_data, "partition", "random")
    workers = as_count("threads", setting(cfg_impl, "threads", 0), minimum=0)
    parts = user_indices(partition, labels, len(dataset), users, seed)

    def of(user_idx: int) -> DataLoader[Any]:
        if not 0 <= user_idx < users:
            raise ParameterError(
                f"Expected `user_idx` to be in 0..{users - 1} (`default_clients` = {users}), got "
                f"{user_idx}."
            )
        part = Subset(dataset, parts[user_idx].tolist())
        generator = torch_generator(seed, f"user{user_idx}", 0, "order")
        repeated = flag(cfg_impl, "sample_with_replacement")
        shuffled = RandomSampler(part, replacement=repeated, generator=generator)
        return DataLoader(
            part,
            batch_size=size,
            sampler=shuffled if flag(cfg_impl, "shuffle") else None,
            num_workers=workers,
            pin_memory=flag(cfg_impl, "pin_memory"),
            # Given even without a shuffle: a loader without one draws from the global generator.
            generator=generator,
        )

    return of


def _dataset(cfg_data: Any, dataset: Any) -> tuple[Dataset[Any], Indices | None]:
    """Return the data and, if there are any, their labels (N,)."""
    dataset = setting(cfg_data, "dataset") if dataset is None else dataset
    arrays = {name: setting(cfg_data, name) for name in ("inputs", "input_ids", "labels")}
    if dataset is None and arrays["inputs"] is None and arrays["input_ids"] is None:
        if setting(cfg_data, "name") is None:
            raise DataError(
                "Expected `cfg_data` to hold the data as `dataset`, `inputs` or `input_ids`, got "
                "none."
            )
        dataset = named_dataset(cfg_data)
    if dataset is not None:
        if not isinstance(dataset, Sized):
            raise DataError(
                "Expected `cfg_data.dataset` to be a map-style data set with a length, got "
                f"{type(dataset).__name__}."
            )
        given = getattr(dataset, "targets", None)
        labels = given if given is not None else getattr(dataset, "labels", None)
        return dataset, None if labels is None else np.asarray(labels)  # type: ignore[return-value]
    found = {name: torch.as_tensor(a) for name, a in arrays.items() if a is not None}
    labels = found["labels"].numpy() if "labels" in found else None
    return _Arrays(found), labels if labels is None or labels.ndim == 1 else None


def _none(labels: Indices | None, size: int, users: int, seed: int) -> list[Indices]:
    if users != 1:
        raise ParameterError(
            f"Expected `partition` 'none' with `default_clients` = 1, got {users}: users would "
            "share their samples. Use 'random', or 'balanced' for equal classes."
        )
    return [np.arange(size)]


def _random(labels: Indices | None, size: int, users: int, seed: int) -> list[Indices]:
    return list(iid_partition(size, users, seed))


def _mixup(labels: Indices | None, size: int, users: int, seed: int) -> list[Indices]:
    return [np.arange(user, size, users) for user in range(users)]


def _balanced(labels: Indices | None, size: int, users: int, seed: int) -> list[Indices]:
    labels = _needed(labels, "balanced")
    of_class = [np.flatnonzero(labels == name) for name in np.unique(labels)]
    # First a block of each class, class by class, as in the field's reference, so that a user's
    # first samples are the same there. It drops the rest. Here that is dealt round: a class's
    # samples differ by at most one between users, and so do the totals.
    most = size // len(of_class) // users
    blocks = [min(most, len(rows) // users) for rows in of_class]
    rest = np.concatenate([rows[n * users :] for rows, n in zip(of_class, blocks, strict=True)])
    return [
        np.concatenate(
            [rows[user * n :][:n] for rows, n in zip(of_class, blocks, strict=True)]
            + [rest[user::users]]
        )
        for user in range(users)
    ]


def _unique_class(labels: Indices | None, size: int, users: int, seed: int) -> list[Indices]:
    labels = _needed(labels, "unique-class")
    classes = np.unique(labels)
    if users > len(classes):
        raise ParameterError(
            "Expected `default_clients` to be at most the number of classes for `partition` "
            f"'unique-class', got {users} > {len(classes)}."
        )
    return [np.flatnonzero(labels == classes[user]) for user in range(users)]


def _needed(labels: Indices | None, partition: str) -> Indices:
    if labels is None:
        raise DataError(
            f"Expected labels for `partition` {partition!r}, got unlabelled data; use 'random'."
        )
    return labels


PARTITIONS: dict[str, Callable[[Indices | None, int, int, int], list[Indices]]] = {
    "balanced": _balanced,
    "unique-class": _unique_class,
    "mixup": _mixup,
    "random": _random,
    "none": _none,
}


def user_indices(
    partition: Any, labels: Indices | None, size: int, users: int, seed: int
) -> list[Indices]:
    """Split ``range(size)`` between users.

    Args:
        partition: ``"balanced"``: every class dealt evenly, class by class; ``"unique-class"``:
            user i has all of the i-th class, nobody the classes beyond the last user;
            ``"mixup"``: every ``users``-th sample, in stored order; ``"random"``: equal parts of a
            seeded shuffle; ``"none"``: all of it, for a single user.
        labels: Classes, shape (size,), or None.
        size: Number of samples.
        users: Number of users.
        seed: For ``"random"``.

    Returns:
        One index array per user, disjoint.

    Raises:
        ParameterError: An unknown partition, or one that does not go with the number of users.
        DataError: Labels are needed, or there are fewer samples than users.

    >>> user_indices("balanced", np.array([0, 0, 1, 1]), 4, 2, seed=0)
    [array([0, 2]), array([1, 3])]
    """
    if partition not in PARTITIONS:
        raise ParameterError(
            f"Expected `partition` to be a known one, got {partition!r}; "
            f"{did_you_mean(str(partition), PARTITIONS)}."
        )
    if size < users:
        raise DataError(f"Expected at least one sample per user, got {size} for {users} users.")
    return PARTITIONS[partition](labels, size, users, seed)


Dataloaders = Sequence[Iterable[Any]] | Mapping[int, Iterable[Any]] | Callable[[int], Iterable[Any]]


def checked_indices(user_indices: Iterable[int]) -> list[int]:
    """Return the users' indices as a list.

    Raises:
        ParameterError: There are none, or one comes twice.
    """
    indices = [int(idx) for idx in user_indices]
    if not indices:
        raise ParameterError(
            f"Expected `user_indices` to hold at least one user, got {user_indices!r}."
        )
    twice = sorted(idx for idx, times in Counter(indices).items() if times > 1)
    if twice:
        raise ParameterError(f"Expected each of `user_indices` once, got {twice} more often.")
    return indices


def loader_by_index(
    dataloaders: Dataloaders, user_indices: Sequence[int]
) -> Callable[[int], Iterable[Any]]:
    """Return the way from a user's index to its data loader.

    Args:
        dataloaders: A list in the order of ``user_indices``, a mapping, or the way itself.
        user_indices: The users.

    Raises:
        ParameterError: A user has none.
    """
    if isinstance(dataloaders, Mapping):
        missing = [idx for idx in user_indices if idx not in dataloaders]
        if missing:
            raise ParameterError(f"Expected `dataloaders` for all users, got none for {missing}.")
        return dataloaders.__getitem__
    if isinstance(dataloaders, Sequence):
        if len(dataloaders) != len(user_indices):
            raise ParameterError(
                "Expected `dataloaders` to have one entry per user of `user_indices`, got "
                f"{len(dataloaders)} for {len(user_indices)} users."
            )
        return dict(zip(user_indices, dataloaders, strict=True)).__getitem__
    if not callable(dataloaders):
        raise ParameterError(
            "Expected `dataloaders` to be a list, a mapping or a callable from user index to data "
            f"loader, got {type(dataloaders).__name__}."
        )
    return dataloaders
