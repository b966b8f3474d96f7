"""Files that are the old one or the new one, never a part."""

import os
import secrets
from pathlib import Path

__all__ = ["PathLike", "remove_leftovers", "write_bytes"]

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
