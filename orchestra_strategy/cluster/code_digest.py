"""Digests of code: parties that train together must run the same."""

import hashlib
import inspect
from pathlib import Path

__all__ = ["digest_of_class", "digest_of_files"]

_SHOWN = 12  # characters


def digest_of_files(folder: Path) -> str:
    """Return the first characters of a SHA-256 of all Python files below a folder.

    Args:
        folder: A package's.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(repr(path.relative_to(folder).as_posix()).encode())
        digest.update(_lines(path.read_bytes()))
    return digest.hexdigest()[:_SHOWN]


def digest_of_class(cls: type) -> str:
    """Return the same of the file that defines a class; a sentence where there is no file."""
    try:
        path = inspect.getsourcefile(cls)
    except TypeError:  # made in C, or by hand
        path = None
    if path is None:
        return "no source file"
    return hashlib.sha256(_lines(Path(path).read_bytes())).hexdigest()[:_SHOWN]


def _lines(content: bytes) -> bytes:
    # A checkout on another system may end lines in another way.
    return content.replace(b"\r\n", b"\n")
