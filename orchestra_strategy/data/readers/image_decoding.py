"""An image as bytes, decoded within limits and made into pixels of one form."""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from orchestra_strategy.data.option_checks import as_count
from orchestra_strategy.data.readers.local_data import reading
from orchestra_strategy.errors import DataError, ParameterError

__all__ = [
    "MODES",
    "MOST_BYTES",
    "MOST_PIXELS",
    "CorruptError",
    "check_mode",
    "check_size",
    "decode",
    "pixels_of",
    "refuse_deep",
]

MODES = ("RGB", "L")
"""What images are converted to, in Pillow's words: colours, or grey."""

# Pillow tells formats by content, whatever the name, and starts a program to read some of them.
_FORMATS = ("BMP", "DIB", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

MOST_PIXELS = 2**26
"""Of an image, 67 million: 256 MiB once decoded, and more than cameras have."""

MOST_BYTES = 2**28
"""Of an image's file, 256 MiB."""

_DEEP = ("I", "F")  # Pillow's modes of more than 8 bits start with these


class CorruptError(DataError):
    """An image cannot be decoded: the one fault that can be skipped."""


class _TooLargeError(DataError):
    """An image that is not decoded, since it would take too much memory; never skipped."""


def check_mode(mode: Any) -> None:
    """Refuse a mode that images are not converted to.

    Raises:
        ParameterError: It is neither of :data:`MODES`, nor None.
    """
    if mode not in (*MODES, None):
        raise ParameterError(f"Expected `mode` to be 'RGB' or 'L', got {mode!r}.")


def check_size(image_size: Any) -> tuple[int, int] | None:
    """Return (H, W) of the option ``image_size``, a side or both.

    Raises:
        ParameterError: It is something else.
    """
    if image_size is None:
        return None
    sides = image_size if isinstance(image_size, (tuple, list)) else (image_size, image_size)
    if len(sides) != 2:
        raise ParameterError(f"Expected `image_size` to be a side or (H, W), got {image_size!r}.")
    return as_count("image_size", sides[0]), as_count("image_size", sides[1])


def decode(file: Path, content: bytes, remedy: str = "") -> Image.Image:
    """Return a decoded image of at most 8 bits per channel, turned upright.

    Args:
        file: What it is called in messages.
        content: The file's bytes.
        remedy: The end of the sentence about a corrupt one.

    Raises:
        DataError: It is beyond the limits, or has several images.
        CorruptError: It is no image, or a broken one.
    """
    if len(content) > MOST_BYTES:
        raise DataError(
            f"Expected `{file}` to have at most {MOST_BYTES} bytes, got {len(content)}."
        )
    try:
        with reading(file, "an image", remedy):
            image = _open(file, content)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
    except _TooLargeError:
        raise
    except DataError as error:
        raise CorruptError(*error.args) from None
    if getattr(image, "n_frames", 1) > 1:
        raise DataError(f"Expected `{file}` to be one image, got a series of them; take it apart.")
    return image


def refuse_deep(image: Image.Image, name: str) -> None:
    """Refuse an image of more than 8 bits per channel, which converting would cut.

    Raises:
        DataError: It is one.
    """
    if image.mode.startswith(_DEEP):
        raise DataError(
            f"Expected images of 8 bits per channel, got `{name}` of mode {image.mode}: scale its "
            "values to 0..255 yourself, or save the images as floats in [0, 1] in a .npy file."
        )


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


def pixels_of(image: Image.Image, mode: str, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """Return (C, H, W) uint8, C = 3 or 1, scaled until it covers the size, and cropped.

    Args:
        image: A decoded one.
        mode: One of :data:`MODES`.
        size: (H, W); None takes it as it is.
    """
    converted = image if image.mode == mode else image.convert(mode)
    if size is not None and (converted.height, converted.width) != size:
        converted = ImageOps.fit(converted, size[::-1], method=Image.Resampling.BICUBIC)
    pixels: NDArray[np.uint8] = np.asarray(converted)
    return pixels[np.newaxis] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
