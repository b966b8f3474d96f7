"""Images in a folder: one sub-folder per class, or all in the folder itself, without labels."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from orchestra_strategy.data.option_checks import as_count
from orchestra_strategy.data.readers import image_decoding
from orchestra_strategy.data.readers.image_decoding import (
    MODES,
    CorruptError,
    check_mode,
    check_size,
    decode,
    pixels_of,
    refuse_deep,
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

_CORRUPT = "; remove it, or leave corrupt images out by `skip_corrupt=True`"


class _Form(NamedTuple):
    """What every image must be like: Pillow's mode, (H, W) before resizing, and the example."""

    mode: str
    size: tuple[int, int]
    example: str

    def __str__(self) -> str:
        return f"{self.mode} {self.size[0]}x{self.size[1]} (`{self.example}`)"


def load_image_folder(
    path: str | Path,
    *,
    mode: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    class_names: Sequence[str] | None = None,
    max_per_class: int | None = None,
    skip_corrupt: bool = False,
) -> LocalData:
    """Read all images of a folder as uint8, in the order of class and file name.

    Files of other kinds are refused, since they may be images in a form that is not read; hidden
    files are passed over. A camera's note how to turn the image (EXIF) is followed.

    Args:
        path: The folder; its sub-folders are the classes. Without sub-folders there are no labels.
        mode: ``"RGB"`` or ``"L"`` (grey) converts every image. None takes the first image's, and
            refuses others.
        image_size: Side, or (H, W): images are scaled until they cover it and cropped around the
            centre. None takes them as they are, and refuses different sizes.
        class_names: All classes, in the order of their numbers, for parties of which some lack
            some; None takes the sub-folders by name.
        max_per_class: Read only so many of each class (or in all, without classes), first by name.
        skip_corrupt: Leave out images that cannot be decoded. They are listed in ``skipped``.

    Returns:
        (N, C, H, W) uint8, C = 3 or 1; labels and class names where there are sub-folders.

    Raises:
        ParameterError: An option is out of its range.
        DataError: The folder or a class is empty, or an image is corrupt, or unlike the first, or
            beyond :data:`MOST_PIXELS`; or a link leads out of the folder.
    """
    root, size = Path(path), check_size(image_size)
    check_mode(mode)
    limit = None if max_per_class is None else as_count("max_per_class", max_per_class)
    files, names = list_images(root, check_class_names(class_names), limit)
    samples, kept, skipped = _read_all(files, root, mode, size, skip_corrupt)
    _check_nothing_lost(files, kept, names, root)
    if skipped:
        _log.warning("Skipped %d corrupt images of %d.", len(skipped), len(files))
    labels = None if names is None else np.array([file.label for file in kept], np.int64)
    return LocalData(samples_of(samples, root), labels, names, skipped=tuple(skipped))


def _read_all(
    files: Sequence[ImageFile],
    root: Path,
    mode: str | None,
    size: tuple[int, int] | None,
    skip_corrupt: bool,
) -> tuple[NDArray[np.uint8], list[ImageFile], list[str]]:
    """Return pixels (N, C, H, W), the files they are of, and the names of skipped ones."""
    samples = np.empty((0, 1, 1, 1), np.uint8)
    kept: list[ImageFile] = []
    skipped: list[str] = []
    form: _Form | None = None
    for file in files:
        try:
            image = _decode(root / file.name)
        except CorruptError:
            if not skip_corrupt:
                raise
            skipped.append(file.name)
            continue
        form = _check_form(image, file.name, form, mode, size)
        pixels = pixels_of(image, mode or form.mode, size)
        if not kept:
            # All at once: a list of arrays that is stacked at the end takes twice the memory.
            samples = np.empty((len(files), *pixels.shape), np.uint8)
        samples[len(kept)] = pixels
        kept.append(file)
    return samples[: len(kept)], kept, skipped


def _decode(file: Path) -> Image.Image:
    """Return a decoded image, turned upright.

    Raises:
        DataError: The file cannot be read, is beyond the limits, or has several images.
        CorruptError: It is no image, or a broken one.
    """
    with reading(file, "a file that can be read"):
        if (length := file.stat().st_size) > image_decoding.MOST_BYTES:
            raise DataError(
                f"Expected `{file}` to have at most {image_decoding.MOST_BYTES} bytes, got "
                f"{length}."
            )
        content = file.read_bytes()
    return decode(file, content, _CORRUPT)


def _check_form(
    image: Image.Image,
    name: str,
    form: _Form | None,
    mode: str | None,
    size: tuple[int, int] | None,
) -> _Form:
    """Return the form of the first image; refuse one that differs in what is not converted."""
    got = _Form(mode or image.mode, size or (image.height, image.width), name)
    refuse_deep(image, name)
    if got.mode not in MODES:
        raise DataError(
            f"Expected RGB or grey images, got `{name}` of mode {image.mode}: say which it shall "
            "become by `mode='RGB'` or `mode='L'`."
        )
    if form is None:
        return got
    if got[:2] != form[:2]:
        raise DataError(
            f"Expected all images to be like the first, {form}, got {got}: convert them by "
            f"`mode='RGB'` (or 'L') and `image_size={min(form.size)}`."
        )
    return form


def _check_nothing_lost(
    files: Sequence[ImageFile], kept: Sequence[ImageFile], names: Sequence[str] | None, root: Path
) -> None:
    """Refuse a class of which every image was corrupt."""
    lost = sorted({file.label for file in files} - {file.label for file in kept})
    if lost:
        whose = "the folder" if names is None else f"class `{names[lost[0]]}`"
        raise DataError(f"Expected {whose} in `{root}` to have an image, got corrupt ones alone.")
