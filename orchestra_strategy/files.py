"""Files that are the old one or the new one, never a part; and what only their owner may open."""

import contextlib
import json
import os
import secrets
import stat
from pathlib import Path
from typing import Any

from orchestra_strategy.errors import CheckpointError

__all__ = [
    "PRIVATE",
    "PathLike",
    "parse_json",
    "private_folder",
    "remove_leftovers",
    "rename",
    "write_bytes",
    "write_private",
]

PathLike = str | os.PathLike[str]

PRIVATE = 0o600
"""Permissions of a file that its owner alone may open: it holds samples, or what comes of them."""

_LONGEST_JSON = 2**24  # 16 MiB


def write_bytes(path: PathLike, content: bytes, mode: int = 0o666) -> None:
    """Write ``content`` so that ``path`` holds the old file or the new one, never a part.

    Args:
        path: The file; missing folders are made, the last one for its owner alone where the file
            is :data:`PRIVATE`.
        content: Its whole content.
        mode: Its permissions, before the process's mask.

    Raises:
        OSError: The file cannot be written; ``path`` is not touched.
    """
    target = Path(path)
    folder_mode = 0o700 if mode == PRIVATE else 0o777
    target.parent.mkdir(mode=folder_mode, parents=True, exist_ok=True)
    # In the same folder, because a rename is atomic only within one file system.
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)


def write_private(path: PathLike, content: bytes) -> None:
    """Write what may show samples: for its owner alone, in a folder that is, too, if it is new.

    Raises:
        OSError: The file cannot be written.
    """
    write_bytes(path, content, PRIVATE)


def rename(path: PathLike, target: PathLike) -> None:
    """Give a file another name in its folder, for good: a power cut does not undo it.

    Raises:
        OSError: The file is not there, or cannot be renamed.
    """
    os.replace(path, target)
    _sync_folder(Path(target).parent)


def remove_leftovers(folder: PathLike, names: str) -> None:
    """Remove what writers of such files left that were killed before they were done.

    Args:
        folder: Nobody else may be writing in it.
        names: A pattern of the files' names, as the shell's.
    """
    for temporary in Path(folder).glob(f".{names}.*.tmp"):
        temporary.unlink(missing_ok=True)


def private_folder(path: PathLike) -> Path:
    """Return a folder that nobody else can write in; it is made, for its owner alone, if missing.

    Raises:
        CheckpointError: It is a link, no folder, another user's, or open to others for writing.
        OSError: It cannot be made.
    """
    folder = Path(path)
    with contextlib.suppress(FileExistsError):  # whatever it is, it is looked at below
        folder.mkdir(mode=0o700, parents=True)
    found = folder.lstat()  # of the link itself, where it is one
    if stat.S_ISLNK(found.st_mode):
        got = "a link, which may lead anywhere; remove it, or give the folder that it leads to"
    elif not stat.S_ISDIR(found.st_mode):
        got = "another kind of file; remove it"
    elif found.st_uid != os.geteuid():
        got = f"one of user {found.st_uid}; remove it, or take another place"
    elif found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        got = (
            f"permissions {stat.S_IMODE(found.st_mode):04o}; look at what is in it, and close it "
            "by `chmod 700`"
        )
    else:
        return folder
    raise CheckpointError(
        f"Expected `{folder}` to be a folder that this user alone can write in, got {got}."
    )


def parse_json(content: bytes, longest: int = _LONGEST_JSON) -> Any:
    """Return what a file's JSON says.

    Args:
        content: UTF-8.
        longest: The most bytes that it may have.

    Raises:
        ValueError: It is longer, nested too deep, or no JSON. The message does not repeat it.
    """
    if len(content) > longest:
        raise ValueError(f"more than {longest} bytes")
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("values that are nested too deep") from None
    except ValueError as error:
        place = f", at byte {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise ValueError(f"no JSON{place}") from None


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut: the name lives in the folder, not in the file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
