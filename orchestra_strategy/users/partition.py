"""Which samples of a data set belong to which user: disjoint, and the same whoever asks."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestra_strategy.data.partition import iid_partition
from orchestra_strategy.errors import DataError, ParameterError, did_you_mean

__all__ = ["PARTITIONS", "user_indices"]

Indices = npt.NDArray[np.int64]


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
    by_class = np.argsort(_needed(labels, "balanced"), kind="stable")
    # Dealt round: a class's samples differ by at most one between users, and so do the totals.
    return [np.sort(by_class[user::users]) for user in range(users)]


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
        partition: ``"balanced"``: every class dealt evenly; ``"unique-class"``: user i has all of
            the i-th class, nobody the classes beyond the last user; ``"mixup"``: every
            ``users``-th sample, in stored order; ``"random"``: equal parts of a seeded shuffle;
            ``"none"``: all of it, for a single user.
        labels: Classes, shape (size,), or None.
        size: Number of samples.
        users: Number of users.
        seed: For ``"random"``.

    Returns:
        One sorted index array per user, disjoint.

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
