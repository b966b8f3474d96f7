"""Files that are the old one or the new one, never a part."""

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

__all__ = ["PathLike", "private_folder", "remove_leftovers", "write_bytes", "write_private"]

PathLike = str | os.PathLike[str]


def write_bytes(path: PathLike, content: bytes, mode: int = 0o666) -> None:
    """Write ``content`` so that ``path`` holds the old file or the new one, never a part.

    Args:
        path: The file; missing folders are made.
        content: Its whole content.
        mode: Its permissions, before the process's mask.

    Raises:
        OSError: The file cannot be written; ``path`` is not touched.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
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
    """Write what holds samples: for its owner alone, in a folder that is, too, if it is new.

    Raises:
        OSError: The file cannot be written.
    """
    folder = Path(path).parent
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
    write_bytes(path, content, mode=0o600)


def private_folder(path: Path) -> None:
    """Make a folder that its owner alone may use, or refuse one that others could have prepared.

    Args:
        path: The folder; those above it are made, too.

    Raises:
        PermissionError: It is a link or no folder, belongs to somebody else, or others can write in
            it: they could replace what a party keeps there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    wrong = None
    if not stat.S_ISDIR(found.st_mode):
        wrong = "a link" if stat.S_ISLNK(found.st_mode) else "a file"
    elif found.st_uid != os.geteuid():
        wrong = "a folder of another user"
    elif found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        wrong = f"a folder with permissions {stat.S_IMODE(found.st_mode):04o}"
    if wrong:
        raise PermissionError(
            f"Expected `{path}` to be a folder that its owner alone can write in, got {wrong}; "
            "remove it, set its permissions to 0700, or give another folder."
        )


def remove_leftovers(path: PathLike) -> None:
    """Remove what writers of ``path`` left beside it that were killed before they were done."""
    target = Path(path)
    for temporary in target.parent.glob(f".{target.name}.*.tmp"):
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut: the name lives in the folder, not in the file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
