"""Which virtual users there are, and where each one's data are."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from orchestra_strategy.errors import ParameterError

__all__ = ["Dataloaders", "checked_indices", "loader_by_index"]

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
