"""Images in a folder: one sub-folder per class, or all in the folder itself, without labels."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from orchestra_strategy.data.option_checks import as_count
from orchestra_strategy.data.pixels import check_value_range
from orchestra_strategy.data.readers.folder_problems import FolderProblems, Form, Problem
from orchestra_strategy.data.readers.image_decoding import (
    UNREADABLE_EXIF,
    CorruptError,
    ImageError,
    SeriesError,
    TooLargeError,
    check_mode,
    check_size,
    decode,
    is_deep,
    pixels_of,
    refuse_long,
)
from orchestra_strategy.data.readers.image_files import ImageFile, list_images
from orchestra_strategy.data.readers.local_data import (
    LocalData,
    check_class_names,
    reading,
    samples_of,
)
from orchestra_strategy.errors import DataError

__all__ = ["load_image_folder"]

_log = logging.getLogger(__name__)

_KINDS = {
    CorruptError: Problem.CORRUPT,
    TooLargeError: Problem.LARGE,
    SeriesError: Problem.SERIES,
}


def load_image_folder(
    path: str | Path,
    *,
    mode: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    class_names: Sequence[str] | None = None,
    max_per_class: int | None = None,
    skip_corrupt: bool = False,
    value_range: tuple[float, float] | None = None,
) -> LocalData:
    """Read all images of a folder, in the order of class and file name.

    Files of other kinds are refused, since they may be images in a form that is not read; hidden
    files are passed over. A camera's note how to turn the image (EXIF) is followed; of a camera's
    MPO file the main picture is read; what is transparent becomes white.

    Args:
        path: The folder; its sub-folders are the classes. Without sub-folders there are no labels.
        mode: ``"RGB"`` or ``"L"`` (grey) converts every image. None takes the images' own, one of
            these, and refuses a mixture.
        image_size: Side, or (H, W): images are scaled until they cover it and cropped around the
            centre. None takes them as they are, and refuses different sizes.
        class_names: All classes, in the order of their numbers, for parties of which some lack
            some; None takes the sub-folders by name.
        max_per_class: Read only so many of each class (or in all, without classes), first by name.
        skip_corrupt: Leave out images that cannot be decoded. They are listed in ``skipped``.
        value_range: The values of black and white, for images of more than 8 bits (grey ones, such
            as (0, 65535)), or if they are not 0 and 255; what is beyond counts as the nearer one.

    Returns:
        (N, C, H, W) uint8, with ``value_range`` float32 in [0, 1], C = 3 or 1; labels and class
        names where there are sub-folders.

    Raises:
        ParameterError: An option is out of its range.
        DataError: The folder or a class is empty, images are corrupt, unlike each other or beyond
            :data:`~.image_decoding.MOST_PIXELS`, or something else does not belong there; all of it
            in one message, with numbers and a few names of each kind.
    """
    root = Path(path)
    check_mode(mode)
    form = Form(mode, check_size(image_size), check_value_range(value_range))
    limit = None if max_per_class is None else as_count("max_per_class", max_per_class)
    problems = FolderProblems(root, form)
    files, names = list_images(root, check_class_names(class_names), limit, problems)
    samples, kept, skipped = _read_all(files, problems, skip_corrupt)
    problems.raise_found()
    _check_nothing_lost(files, kept, names, root)
    if skipped:
        _log.warning("Skipped %d corrupt images of %d.", len(skipped), len(files))
    labels = None if names is None else np.array([file.label for file in kept], np.int64)
    return LocalData(samples_of(samples, root), labels, names, skipped=tuple(skipped))


def _read_all(
    files: Sequence[ImageFile], problems: FolderProblems, skip_corrupt: bool
) -> tuple[NDArray[Any], list[ImageFile], list[str]]:
    """Return pixels (N, C, H, W), the files they are of, and the names of skipped ones.

    Every file is looked at, so that one message can tell of all problems.
    """
    form = problems.form
    samples: NDArray[Any] = np.empty((0, 1, 1, 1), np.uint8)
    kept: list[ImageFile] = []
    skipped: list[str] = []
    unturned = 0
    for file in files:
        try:
            image = _decoded(problems.root / file.name)
        except ImageError as error:
            if skip_corrupt and isinstance(error, CorruptError):
                skipped.append(file.name)
            else:
                problems.add(_KINDS[type(error)], file.name, error.reason)
            continue
        unturned += UNREADABLE_EXIF in image.info
        problems.note_form(image, file.name)
        if problems.found:
            continue
        mode = form.mode or ("L" if is_deep(image) else image.mode)
        pixels = pixels_of(image, mode, form.size, form.value_range)
        if not kept:
            # All at once: a list of arrays that is stacked at the end takes twice the memory.
            samples = np.empty((len(files), *pixels.shape), pixels.dtype)
        samples[len(kept)] = pixels
        kept.append(file)
    if unturned:
        _log.warning("Of %d images the EXIF data are broken: taken as they lie.", unturned)
    return samples[: len(kept)], kept, skipped


def _decoded(file: Path) -> Image.Image:
    """Return a decoded image, turned upright.

    Raises:
        DataError: As of :func:`~.image_decoding.decode`, or the file cannot be read.
    """
    with reading(file, "a file that can be read"):
        refuse_long(file, file.stat().st_size)
        content = file.read_bytes()
    return decode(file, content)


def _check_nothing_lost(
    files: Sequence[ImageFile], kept: Sequence[ImageFile], names: Sequence[str] | None, root: Path
) -> None:
    """Refuse a class of which every image was corrupt."""
    lost = sorted({file.label for file in files} - {file.label for file in kept})
    if lost:
        whose = "the folder" if names is None else f"class `{names[lost[0]]}`"
        raise DataError(f"Expected {whose} in `{root}` to have an image, got corrupt ones alone.")
