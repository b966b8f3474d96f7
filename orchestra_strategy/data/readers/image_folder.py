"""Images in a folder: one sub-folder per class, or all in the folder itself, without labels."""

import io
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from orchestra_strategy.data.option_checks import as_count
from orchestra_strategy.data.readers.image_files import ImageFile, list_images
from orchestra_strategy.data.readers.local_data import (
    LocalData,
    check_class_names,
    reading,
    samples_of,
)
from orchestra_strategy.errors import DataError, ParameterError

__all__ = ["MOST_BYTES", "MOST_PIXELS", "load_image_folder"]

_log = logging.getLogger(__name__)

_MODES = ("RGB", "L")

# Pillow tells formats by content, whatever the name, and starts a program to read some of them.
_FORMATS = ("BMP", "DIB", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

MOST_PIXELS = 2**26
"""Of an image, 67 million: 256 MiB once decoded, and more than cameras have."""

MOST_BYTES = 2**28
"""Of an image's file, 256 MiB."""

_DEEP = ("I", "F")  # Pillow's modes of more than 8 bits start with these
_CORRUPT = "; remove it, or leave corrupt images out by `skip_corrupt=True`"


class _CorruptError(DataError):
    """An image cannot be decoded: the one fault that can be skipped."""


class _TooLargeError(DataError):
    """An image that is not decoded, since it would take too much memory; never skipped."""


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
    root, size = Path(path), _check_size(image_size)
    if mode not in (*_MODES, None):
        raise ParameterError(f"Expected `mode` to be 'RGB' or 'L', got {mode!r}.")
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
        except _CorruptError:
            if not skip_corrupt:
                raise
            skipped.append(file.name)
            continue
        form = _check_form(image, file.name, form, mode, size)
        pixels = _pixels(image, mode or form.mode, size)
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
        _CorruptError: It is no image, or a broken one.
    """
    with reading(file, "a file that can be read"):
        if (length := file.stat().st_size) > MOST_BYTES:
            raise DataError(f"Expected `{file}` to have at most {MOST_BYTES} bytes, got {length}.")
        content = file.read_bytes()
    try:
        with reading(file, "an image", _CORRUPT):
            image = _open(file, content)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
    except _TooLargeError:
        raise
    except DataError as error:
        raise _CorruptError(*error.args) from None
    if getattr(image, "n_frames", 1) > 1:
        raise DataError(f"Expected `{file}` to be one image, got a series of them; take it apart.")
    return image


def _open(file: Path, content: bytes) -> Image.Image:
    """Return an image that is not decoded yet, and is small enough to be.

    Raises:
        _TooLargeError: It has too many pixels.
    """
    got = "more"
    try:
        with warnings.catch_warnings():
            # Pillow's own limits are higher than ours, unless somebody has lowered them.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=_FORMATS)
        if image.width * image.height <= MOST_PIXELS:
            return image
        got = f"{image.width}x{image.height}"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        pass  # the sentence below says it in our words
    raise _TooLargeError(
        f"Expected `{file}` to have at most {MOST_PIXELS} pixels, got {got}: scale it down, or "
        "remove it."
    )


def _check_form(
    image: Image.Image,
    name: str,
    form: _Form | None,
    mode: str | None,
    size: tuple[int, int] | None,
) -> _Form:
    """Return the form of the first image; refuse one that differs in what is not converted."""
    got = _Form(mode or image.mode, size or (image.height, image.width), name)
    if image.mode.startswith(_DEEP):
        raise DataError(
            f"Expected images of 8 bits per channel, got `{name}` of mode {image.mode}: scale its "
            "values to 0..255 yourself, or save the images as floats in [0, 1] in a .npy file."
        )
    if got.mode not in _MODES:
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


def _pixels(image: Image.Image, mode: str, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """Return (C, H, W)."""
    converted = image if image.mode == mode else image.convert(mode)
    if size is not None and (converted.height, converted.width) != size:
        converted = ImageOps.fit(converted, size[::-1], method=Image.Resampling.BICUBIC)
    pixels: NDArray[np.uint8] = np.asarray(converted)
    return pixels[np.newaxis] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _check_size(image_size: Any) -> tuple[int, int] | None:
    if image_size is None:
        return None
    sides = image_size if isinstance(image_size, (tuple, list)) else (image_size, image_size)
    if len(sides) != 2:
        raise ParameterError(f"Expected `image_size` to be a side or (H, W), got {image_size!r}.")
    return as_count("image_size", sides[0]), as_count("image_size", sides[1])


def _check_nothing_lost(
    files: Sequence[ImageFile], kept: Sequence[ImageFile], names: Sequence[str] | None, root: Path
) -> None:
    """Refuse a class of which every image was corrupt."""
    lost = sorted({file.label for file in files} - {file.label for file in kept})
    if lost:
        whose = "the folder" if names is None else f"class `{names[lost[0]]}`"
        raise DataError(f"Expected {whose} in `{root}` to have an image, got corrupt ones alone.")
