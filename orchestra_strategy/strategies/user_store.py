"""What virtual users keep between rounds: one file per user, at the party, gone with the worker."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

__all__ = ["UserStore"]


class UserStore:
    """Keeps tensors by user in a private folder, so that memory does not grow with the users.

    >>> store = UserStore()
    >>> store.save(3, {"rows": torch.ones(2)})
    >>> store.load(3)["rows"].tolist(), store.load(4)
    ([1.0, 1.0], None)
    """

    def __init__(self) -> None:
        # mkdtemp makes it readable by its owner alone; it is removed with this object.
        self._folder = tempfile.TemporaryDirectory(prefix="orchestra-users-")

    def _path(self, user: int) -> Path:
        return Path(self._folder.name) / f"{user}.pt"

    def save(self, user: int, state: dict[str, Any]) -> None:
        """Replace what user number ``user`` keeps."""
        torch.save(state, self._path(user))

    def load(self, user: int) -> dict[str, Any] | None:
        """Return what the user keeps, or None if it has not saved anything."""
        path = self._path(user)
        if not path.exists():
            return None
        state: dict[str, Any] = torch.load(path, weights_only=True)
        return state

    def state_dict(self) -> dict[int, dict[str, Any]]:
        """Return what all users keep, by user; it is all in memory at once."""
        users = sorted(int(path.stem) for path in Path(self._folder.name).glob("*.pt"))
        return {user: self.load(user) or {} for user in users}

    def load_state_dict(self, state: Mapping[int, dict[str, Any]]) -> None:
        """Take the state of :meth:`state_dict`."""
        for user, kept in state.items():
            self.save(user, kept)
