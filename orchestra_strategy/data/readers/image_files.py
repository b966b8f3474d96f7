"""The files of an image folder, in their order, with their classes."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from orchestra_strategy.data.readers.local_data import reading
from orchestra_strategy.errors import DataError, ParameterError, did_you_mean

__all__ = ["SUFFIXES", "ImageFile", "list_images", "refuse_outside"]

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""What counts as an image, in small or capital letters."""

_LITTER = frozenset({"Thumbs.db", "desktop.ini", "__MACOSX"})


class ImageFile(NamedTuple):
    """A file by its path below the folder, with ``/``, and the number of its class (0 if none)."""

    name: str
    label: int


def list_images(
    root: Path, class_names: tuple[str, ...] | None, limit: int | None
) -> tuple[list[ImageFile], tuple[str, ...] | None]:
    """Return the images of a folder in the order of class and name, and the class names.

    Args:
        root: The folder.
        class_names: All classes; a class without a folder is one that this party lacks. None takes
            the sub-folders.
        limit: The most images of a class; None is all.

    Raises:
        ParameterError: ``class_names`` for a folder without sub-folders.
        DataError: No images, an empty class, an unknown class, or a file that is no image.
    """
    entries = _entries(root, root)
    folders = [entry.name for entry in entries if entry.is_dir()]
    files = [entry.name for entry in entries if not entry.is_dir()]
    if folders and files:
        raise DataError(
            f"Expected `{root}` to have either images or one folder per class, got both: folder "
            f"`{folders[0]}` and file `{files[0]}`."
        )
    if not folders:
        if class_names is not None:
            raise ParameterError(
                f"Expected no `class_names` for images without class folders, got {class_names!r} "
                f"for `{root}`."
            )
        return _images(root, "", 0, limit), None
    names = class_names or tuple(folders)
    for folder in folders:
        if folder not in names:
            raise DataError(
                f"Expected the folders in `{root}` to be among `class_names`, got `{folder}`: "
                f"{did_you_mean(folder, names)}."
            )
    present = [(label, name) for label, name in enumerate(names) if name in folders]
    return [file for label, name in present for file in _images(root, name, label, limit)], names


def _entries(root: Path, folder: Path) -> list[Path]:
    """Return what is in a folder, by name, without hidden files and what systems leave behind.

    Raises:
        DataError: The folder cannot be read, or has a link that leads out of ``root``.
    """
    with reading(folder, "a folder that can be read"):
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    entries = [e for e in entries if not e.name.startswith(".") and e.name not in _LITTER]
    for entry in entries:
        refuse_outside(root, entry)
    return entries


def refuse_outside(root: Path, entry: Path) -> None:
    """Refuse an entry that a link takes out of the folder that was given.

    Raises:
        DataError: Naming the entry; where it leads to is not told.
    """
    # Python's own resolve() gives up on links in a circle; this one ends.
    target = Path(os.path.realpath(entry))
    if not target.is_relative_to(os.path.realpath(root)):
        raise DataError(
            f"Expected everything in `{root}` to lie in it, got `{entry.relative_to(root)}`, a "
            "link that leads elsewhere: copy what it leads to, or remove it."
        )


def _images(root: Path, name: str, label: int, limit: int | None) -> list[ImageFile]:
    """Return the images right in one folder."""
    entries = _entries(root, root / name)
    _refuse_others(root / name, entries)
    if not entries:
        whose = f"class `{name}`" if name else "the folder"
        remedy = ": remove its folder if there are none" if name else ""
        raise DataError(f"Expected {whose} in `{root}` to have an image, got none{remedy}.")
    return [ImageFile(e.relative_to(root).as_posix(), label) for e in entries[:limit]]


def _refuse_others(folder: Path, entries: Sequence[Path]) -> None:
    for entry in entries:
        if entry.is_dir():
            raise DataError(
                f"Expected class folder `{folder}` to have images alone, got folder `{entry.name}`."
            )
        if not entry.is_file():  # a pipe would be waited for, a link in a circle has no content
            raise DataError(
                f"Expected image folder `{folder}` to have files, got `{entry.name}`, which is "
                "none, or a link to none: remove it."
            )
        if entry.suffix.lower() not in SUFFIXES:
            raise DataError(
                f"Expected image folder `{folder}` to have images alone ({', '.join(SUFFIXES)}), "
                f"got `{entry.name}`: convert it, or move it elsewhere."
            )
