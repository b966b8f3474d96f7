"""Files that are the old one or the new one, never a part."""

import os
import secrets
from pathlib import Path

__all__ = ["PathLike", "write_text"]

PathLike = str | os.PathLike[str]


def write_text(path: PathLike, text: str) -> None:
    """Write ``text`` as UTF-8 so that ``path`` holds the old file or the new one, never a part.

    Args:
        path: The file; missing folders are made.
        text: Its whole content.

    Raises:
        OSError: The file cannot be written; ``path`` is not touched.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, because a rename is atomic only within one file system.
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut: the name lives in the folder, not in the file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
