"""The store of what virtual users keep between rounds, at the party: in memory, then in files.

What does not fit into memory has a file for each user. Their folder goes with the object that made
it. One whose process was killed stays behind in the folder for temporary files, until the same
person makes the next store on that machine, which removes it.
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

__all__ = ["MEMORY_LIMIT", "UserStore"]

MEMORY_LIMIT = 256 * 2**20
"""Bytes that users' states may take in memory; the states of 1,000 users of Orchestra's default
memory (128 rows of 512 floats) fit, and a party's worker itself has several times as much."""

_PREFIX = "orchestra-users-"
_NAME = re.compile(_PREFIX + r"(\d+)-\w+")
_LOCK = "lock"


class UserStore:
    """Keeps tensors by user, so that memory grows with the users up to a limit, and no further.

    States that no longer fit lie in a private folder. Both ways give the same bits.

    Args:
        in_memory: Bytes of tensors that may be kept in memory; 0 puts all into files.

    >>> store = UserStore()
    >>> store.save(3, {"rows": torch.ones(2)})
    >>> store.load(3)["rows"].tolist(), store.load(4)
    ([1.0, 1.0], None)
    """

    def __init__(self, in_memory: int = MEMORY_LIMIT) -> None:
        self._limit = in_memory
        self._kept: dict[int, dict[str, Any]] = {}
        self._bytes = 0
        _remove_abandoned(Path(tempfile.gettempdir()))
        # mkdtemp makes it readable by its owner alone; it is removed with this object.
        self._folder = tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-")
        lock = os.open(Path(self._folder.name) / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)  # until this process ends, however it does
        weakref.finalize(self, os.close, lock)

    def _path(self, user: int) -> Path:
        return Path(self._folder.name) / f"{user}.pt"

    def save(self, user: int, state: dict[str, Any]) -> None:
        """Replace what user number ``user`` keeps; the tensors are not copied, nor changed."""
        self._bytes -= _size(self._kept.pop(user, {}))
        size = _size(state)
        if self._bytes + size > self._limit:
            torch.save(state, self._path(user))
            return
        self._path(user).unlink(missing_ok=True)
        self._kept[user] = state
        self._bytes += size

    def load(self, user: int) -> dict[str, Any] | None:
        """Return what the user keeps, or None if it has not saved anything; to be read alone."""
        if user in self._kept:
            return self._kept[user]
        path = self._path(user)
        if not path.exists():
            return None
        state: dict[str, Any] = torch.load(path, weights_only=True)
        return state

    def state_dict(self) -> dict[int, dict[str, Any]]:
        """Return what all users keep, by user; it is all in memory at once."""
        in_files = [int(path.stem) for path in Path(self._folder.name).glob("*.pt")]
        return {user: self.load(user) or {} for user in sorted([*self._kept, *in_files])}

    def load_state_dict(self, state: Mapping[int, dict[str, Any]]) -> None:
        """Take the state of :meth:`state_dict`."""
        for user, kept in state.items():
            self.save(user, kept)


def _size(state: Mapping[str, Any]) -> int:
    """Return the bytes of a state's tensors."""
    return sum(t.numel() * t.element_size() for t in state.values() if isinstance(t, torch.Tensor))


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
