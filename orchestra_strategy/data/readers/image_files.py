"""The files of an image folder, in their order, with their classes."""

import os
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from orchestra_strategy.data.readers.folder_problems import SUFFIXES, FolderProblems, Problem
from orchestra_strategy.data.readers.local_data import reading
from orchestra_strategy.errors import DataError, ParameterError

__all__ = ["ImageFile", "list_images", "refuse_outside"]

_LITTER = frozenset({"Thumbs.db", "desktop.ini", "__MACOSX"})


class ImageFile(NamedTuple):
    """A file by its path below the folder, with ``/``, and the number of its class (0 if none)."""

    name: str
    label: int


def list_images(
    root: Path,
    class_names: tuple[str, ...] | None,
    limit: int | None,
    problems: FolderProblems,
) -> tuple[list[ImageFile], tuple[str, ...] | None]:
    """Return the images of a folder in the order of class and name, and the class names.

    Args:
        root: The folder.
        class_names: All classes; a class without a folder is one that this party lacks. None takes
            the sub-folders.
        limit: The most images of a class; None is all.
        problems: Takes what does not belong there; it is not among the images.

    Raises:
        ParameterError: ``class_names`` for a folder without sub-folders.
        DataError: The folder cannot be read, is empty, or has images beside folders.
    """
    entries = _entries(root, root, problems)
    folders = [entry.name for entry in entries if entry.is_dir()]
    files = [entry.name for entry in entries if not entry.is_dir()]
    if folders and files:
        raise DataError(
            f"Expected `{root}` to have either images or one folder per class, got both: "
            f"{len(folders)} folders such as `{folders[0]}` and {len(files)} files such as "
            f"`{files[0]}`."
        )
    if not folders:
        if class_names is not None:
            raise ParameterError(
                f"Expected no `class_names` for images without class folders, got {class_names!r} "
                f"for `{root}`."
            )
        found = _images(root, "", 0, limit, problems)
        if not found and not problems.found:
            raise DataError(f"Expected the folder `{root}` to have an image, got none.")
        return found, None
    names = class_names or tuple(folders)
    for folder in folders:
        if folder not in names:
            nearest = get_close_matches(folder, names, n=1)
            hint = f"is `{nearest[0]}` meant?" if nearest else ""
            problems.add(Problem.UNKNOWN, folder, hint)
    images: list[ImageFile] = []
    for label, name in enumerate(names):
        if name in folders:
            images += _images(root, name, label, limit, problems)
    return images, names


def _entries(root: Path, folder: Path, problems: FolderProblems) -> list[Path]:
    """Return what is in a folder, by name, without hidden files and what systems leave behind.

    Links that lead out of ``root`` are noted and left out.

    Raises:
        DataError: The folder cannot be read.
    """
    with reading(folder, "a folder that can be read"):
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    entries = [e for e in entries if not e.name.startswith(".") and e.name not in _LITTER]
    inside = [entry for entry in entries if _leads_into(root, entry)]
    for entry in entries:
        if entry not in inside:
            problems.add(Problem.OUTSIDE, entry.relative_to(root).as_posix())
    return inside


def refuse_outside(root: Path, entry: Path) -> None:
    """Refuse an entry that a link takes out of the folder that was given.

    Raises:
        DataError: Naming the entry; where it leads to is not told.
    """
    if not _leads_into(root, entry):
        raise DataError(
            f"Expected everything in `{root}` to lie in it, got `{entry.relative_to(root)}`, a "
            "link that leads elsewhere: copy what it leads to, or remove it."
        )


def _leads_into(root: Path, entry: Path) -> bool:
    # Python's own resolve() gives up on links in a circle; this one ends.
    return Path(os.path.realpath(entry)).is_relative_to(os.path.realpath(root))


def _images(
    root: Path, name: str, label: int, limit: int | None, problems: FolderProblems
) -> list[ImageFile]:
    """Return the images right in one folder."""
    entries = _entries(root, root / name, problems)
    if name and not entries:
        problems.add(Problem.EMPTY, name)
    images: list[ImageFile] = []
    for entry in entries:
        below = entry.relative_to(root).as_posix()
        problem = _problem_of(entry)
        if problem is None:
            images.append(ImageFile(below, label))
        else:
            problems.add(problem, below)
    return images[:limit]


def _problem_of(entry: Path) -> Problem | None:
    if entry.is_dir():
        return Problem.NESTED
    if not entry.is_file():  # a pipe would be waited for, a link in a circle has no content
        return Problem.NO_FILE
    return None if entry.suffix.lower() in SUFFIXES else Problem.OTHER
