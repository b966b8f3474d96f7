"""The store of what virtual users keep between rounds: one file per user, at the party.

A folder goes with the object that made it. One whose process was killed stays behind in the folder
for temporary files, until the same person makes the next store on that machine, which removes it.
"""

import fcntl
import os
import re
import shutil
import stat
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

__all__ = ["UserStore"]

_PREFIX = "orchestra-users-"
_NAME = re.compile(_PREFIX + r"(\d+)-\w+")
_LOCK = "lock"


class UserStore:
    """Keeps tensors by user in a private folder, so that memory does not grow with the users.

    >>> store = UserStore()
    >>> store.save(3, {"rows": torch.ones(2)})
    >>> store.load(3)["rows"].tolist(), store.load(4)
    ([1.0, 1.0], None)
    """

    def __init__(self) -> None:
        _remove_abandoned(Path(tempfile.gettempdir()))
        # mkdtemp makes it readable by its owner alone; it is removed with this object.
        self._folder = tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-")
        lock = os.open(Path(self._folder.name) / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)  # until this process ends, however it does
        weakref.finalize(self, os.close, lock)

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


def _remove_abandoned(where: Path) -> None:
    """Remove this user's folders whose process is gone; whatever else is there, and in use, stays.

    The lock is looked at too, since containers that share a folder do not know each other's
    processes. Who holds it is the only one to remove.
    """
    for folder in where.glob(f"{_PREFIX}*"):
        match = _NAME.fullmatch(folder.name)
        if match is None or _is_running(int(match[1])) or not _is_own_folder(folder):
            continue
        try:
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:  # somebody else has just removed it
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # in use
            pass
        finally:
            os.close(lock)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's; or no number that a process can have
        return True
    return True


def _is_own_folder(path: Path) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
