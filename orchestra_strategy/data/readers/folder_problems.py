"""All that is wrong with a folder of images, by kind, for one message."""

from collections import Counter
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from orchestra_strategy.data.readers.image_decoding import (
    MODES,
    MOST_BYTES,
    MOST_PIXELS,
    is_deep,
)
from orchestra_strategy.errors import DataError

__all__ = ["SUFFIXES", "FolderProblems", "Form", "Problem"]

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".mpo", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""What counts as an image, in small or capital letters."""

_EXAMPLES = 3  # of each kind that are named


class Problem(Enum):
    """A kind of problem: in words for one and for several, and what to do."""

    CORRUPT = (
        "image is corrupt",
        "images are corrupt",
        "remove them, or leave corrupt images out by `skip_corrupt=True`",
    )
    LARGE = (
        "image is sound but beyond the limits",
        "images are sound but beyond the limits",
        f"at most {MOST_PIXELS} pixels and {MOST_BYTES} bytes; scale them down, or remove them",
    )
    SERIES = ("file is a series of images", "files are series of images", "take them apart")
    DEEP = (
        "image has more than 8 bits per channel",
        "images have more than 8 bits per channel",
        "say what is black and white by `value_range`, such as (0, 65535)",
    )
    SHALLOW = (
        "image has 8 bits per channel",
        "images have 8 bits per channel",
        "give a `value_range` within (0, 255), or keep images of more bits apart from them",
    )
    OTHER = (
        "file is no image by its name",
        "files are no images by their names",
        f"known are {', '.join(SUFFIXES)}; convert them, or move them elsewhere",
    )
    NO_FILE = (
        "entry is no file, or a link to none",
        "entries are no files, or links to none",
        "remove them",
    )
    NESTED = ("folder is in a class", "folders are in classes", "move them elsewhere")
    OUTSIDE = (
        "link leads out of the folder",
        "links lead out of the folder",
        "copy what they lead to, or remove them",
    )
    UNKNOWN = (
        "folder is not among `class_names`",
        "folders are not among `class_names`",
        "name all classes, or move them elsewhere",
    )
    EMPTY = (
        "class has no image",
        "classes have no images",
        "remove their folders if there are none",
    )


class Form(NamedTuple):
    """The form that the options give to every image of a folder; None takes the images' own.

    Attributes:
        mode: ``"RGB"`` or ``"L"``.
        size: (H, W).
        value_range: The values of black and white.
    """

    mode: str | None
    size: tuple[int, int] | None
    value_range: tuple[float, float] | None

    def depth_problem(self, image: Image.Image) -> Problem | None:
        """Return the kind of problem that an image's number of bits is; None if it is none."""
        if self.value_range is None:
            return Problem.DEEP if is_deep(image) else None
        low, high = self.value_range
        return Problem.SHALLOW if not is_deep(image) and (low < 0 or high > 255) else None


class FolderProblems:
    """Names of files by what is wrong with them, and how often each mode and size occurs.

    Args:
        root: The folder.
        form: What is asked for by options.
    """

    def __init__(self, root: Path, form: Form) -> None:
        self.root, self.form = root, form
        self._names: dict[Problem, list[str]] = {}
        self._modes: Counter[str] = Counter()
        self._sizes: Counter[tuple[int, int]] = Counter()
        self._first: dict[object, str] = {}

    def add(self, problem: Problem, name: str, reason: str = "") -> None:
        """Note a file, folder or class by its name below the root."""
        told = f"`{name}`" + (f", {reason}" if reason else "")
        self._names.setdefault(problem, []).append(told)

    def note_form(self, image: Image.Image, name: str) -> None:
        """Note what an image is like; unlike ones are told of at the end."""
        problem = self.form.depth_problem(image)
        if problem is not None:
            self.add(problem, name)
            return
        mode, size = "L" if is_deep(image) else image.mode, (image.height, image.width)
        self._modes[mode] += 1
        self._sizes[size] += 1
        self._first.setdefault(mode, name)
        self._first.setdefault(size, name)

    @property
    def found(self) -> bool:
        """Whether there is anything to tell of."""
        return bool(self._names) or self._unlike_modes or self._unlike_sizes

    @property
    def _unlike_modes(self) -> bool:
        known = self._modes.keys() <= set(MODES)
        return self.form.mode is None and bool(self._modes) and (len(self._modes) > 1 or not known)

    @property
    def _unlike_sizes(self) -> bool:
        return self.form.size is None and len(self._sizes) > 1

    def raise_found(self) -> None:
        """Raise all that was noted.

        Raises:
            DataError: Something was; kinds of problems with their numbers, examples and remedies.
        """
        told = [
            f"{len(names)} {problem.value[len(names) > 1]} ({_listed(names)}): {problem.value[2]}"
            for problem, names in self._names.items()
        ]
        if self._unlike_modes:
            remedy = "give `mode='RGB'` or `mode='L'`; what is transparent becomes white"
            which = (
                f"{len(self._modes)} modes"
                if len(self._modes) > 1
                else "a mode that is neither RGB nor L"
            )
            told.append(f"{which}, {self._counts(self._modes)}: {remedy}")
        if self._unlike_sizes:
            smallest = min(min(size) for size in self._sizes)
            remedy = f"give `image_size`, such as {smallest}: they are scaled to cover it, then cut"
            told.append(f"{len(self._sizes)} sizes, {self._counts(self._sizes)}: {remedy}")
        if told:
            raise DataError(
                f"Expected all images in `{self.root}` to be whole and alike, got "
                f"{'; '.join(told)}."
            )

    def _counts(self, counter: "Counter[str] | Counter[tuple[int, int]]") -> str:
        """Return the commonest ones with their numbers, each with an example."""
        listed = [
            f"{count} of {one if isinstance(one, str) else f'{one[0]}x{one[1]}'} "
            f"(`{self._first[one]}`)"
            for one, count in counter.most_common(_EXAMPLES)
        ]
        more = len(counter) - len(listed)
        return ", ".join(listed) + (f" and {more} more" if more else "")


def _listed(names: list[str]) -> str:
    more = "; ..." if len(names) > _EXAMPLES else ""
    return "; ".join(names[:_EXAMPLES]) + more
