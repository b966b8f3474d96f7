"""An image as bytes, decoded within limits and made into pixels of one form."""

import io
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from orchestra_strategy.data.option_checks import as_count
from orchestra_strategy.data.pixels import to_unit_range
from orchestra_strategy.errors import DataError, ParameterError

__all__ = [
    "MODES",
    "MOST_BYTES",
    "MOST_PIXELS",
    "UNREADABLE_EXIF",
    "CorruptError",
    "ImageError",
    "SeriesError",
    "TooLargeError",
    "check_mode",
    "check_size",
    "decode",
    "is_deep",
    "pixels_of",
    "refuse_deep",
    "refuse_long",
]

MODES = ("RGB", "L")
"""What images are converted to, in Pillow's words: colours, or grey."""

# Pillow tells formats by content, whatever the name, and starts a program to read some of them.
_FORMATS = ("BMP", "DIB", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

MOST_PIXELS = 2**26
"""Of an image, 67 million: 256 MiB once decoded, and more than cameras have."""

MOST_BYTES = 2**28
"""Of an image's file, 256 MiB."""

UNREADABLE_EXIF = "unreadable EXIF"
"""Key in the ``info`` of an image that is taken as it lies, since what its EXIF says is broken."""

# What Pillow itself passes over where it looks into EXIF data for the resolution.
_EXIF_ERRORS = (struct.error, KeyError, SyntaxError, TypeError, ValueError, OSError)

# Number in the EXIF data -> what turns the image upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(DataError):
    """An image that is not read.

    Attributes:
        reason: In a few words, for a list of many images.
    """

    reason = ""

    @classmethod
    def of(cls, sentence: str, reason: str) -> "ImageError":
        """Return the error; its reason is no argument, so that it can be pickled."""
        error = cls(sentence)
        error.reason = reason
        return error


class CorruptError(ImageError):
    """An image cannot be decoded: the one fault that can be skipped."""


class TooLargeError(ImageError):
    """An image that is not decoded, since it would take too much memory; never skipped."""


class SeriesError(ImageError):
    """A file of several images, such as the pages of a scan."""


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
    """Return a decoded image, turned upright; of a camera's MPO file the main picture.

    Args:
        file: What it is called in messages.
        content: The file's bytes.
        remedy: The end of the sentence about a corrupt one.

    Returns:
        The image. Where its EXIF data cannot be read it is as it lies, and its ``info`` has
        :data:`UNREADABLE_EXIF`.

    Raises:
        TooLargeError: It is beyond the limits.
        SeriesError: It has several images.
        CorruptError: It is no image, or a broken one.
    """
    refuse_long(file, len(content))
    try:
        image = _open(file, content)
        # The others of an MPO file are previews and depth maps of the first.
        frames = 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))
        image.load()
    except (TooLargeError, MemoryError):
        raise
    except Exception as error:  # decoders name no end to what they raise on broken bytes
        reason = type(error).__name__
        sentence = f"Expected `{file}` to be an image, got {reason}{remedy}."
        raise CorruptError.of(sentence, reason) from None
    if frames > 1:
        sentence = f"Expected `{file}` to be one image, got a series of them; take it apart."
        raise SeriesError.of(sentence, str(frames))
    return _upright(image)


def refuse_long(file: Path, length: int) -> None:
    """Refuse a file that is beyond :data:`MOST_BYTES`, before it is read.

    Raises:
        TooLargeError: It is.
    """
    if length > MOST_BYTES:
        sentence = f"Expected `{file}` to have at most {MOST_BYTES} bytes, got {length}."
        raise TooLargeError.of(sentence, f"{length} bytes")


def _upright(image: Image.Image) -> Image.Image:
    """Return an image turned as its EXIF data say.

    Only the note itself is read: Pillow's own function writes all of the data anew, and fails on
    what other programs have written by their own rules.
    """
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _EXIF_ERRORS:
        image.info[UNREADABLE_EXIF] = True
        return image
    return image if turn is None else image.transpose(turn)


def is_deep(image: Image.Image) -> bool:
    """Whether an image has more than 8 bits per channel, or floats."""
    return image.mode.startswith(("I", "F"))  # as Pillow's modes of these do


def refuse_deep(image: Image.Image, name: str) -> None:
    """Refuse an image of more than 8 bits per channel, which converting would cut.

    Raises:
        DataError: It is one.
    """
    if is_deep(image):
        raise DataError(
            f"Expected images of 8 bits per channel, got `{name}` of mode {image.mode}: scale its "
            "values to 0..255 yourself, or read a folder of such images with `value_range`."
        )


def _open(file: Path, content: bytes) -> Image.Image:
    """Return an image that is not decoded yet, and is small enough to be.

    Raises:
        TooLargeError: It has too many pixels.
    """
    got = f"over {MOST_PIXELS}"
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
    sentence = (
        f"Expected `{file}` to have at most {MOST_PIXELS} pixels, got {got}: scale it down, or "
        "remove it."
    )
    raise TooLargeError.of(sentence, f"{got} pixels")


def pixels_of(
    image: Image.Image,
    mode: str,
    size: tuple[int, int] | None,
    value_range: tuple[float, float] | None = None,
) -> NDArray[Any]:
    """Return (C, H, W), C = 3 or 1, scaled until it covers the size, and cropped.

    What is transparent becomes white: the colours behind it are what a program has left there.

    Args:
        image: A decoded one; not deep, unless there is a ``value_range``.
        mode: One of :data:`MODES`.
        size: (H, W); None takes it as it is.
        value_range: The values of black and white; None takes 0 and 255.

    Returns:
        uint8; with ``value_range`` float32 in [0, 1].
    """
    converted = image
    if not is_deep(image):
        converted = _on_white(image)
        converted = converted if converted.mode == mode else converted.convert(mode)
    if value_range is None:
        pixels: NDArray[Any] = np.asarray(_fitted(converted, size))
        return pixels[np.newaxis] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    values = np.asarray(converted)
    channels = values[np.newaxis] if values.ndim == 2 else values.transpose(2, 0, 1)
    scaled = [Image.fromarray(c) for c in to_unit_range(channels, value_range)]
    # Resizing overshoots at edges.
    pixels = np.stack([np.clip(np.asarray(_fitted(c, size)), 0, 1) for c in scaled])
    return np.repeat(pixels, 3, axis=0) if len(pixels) == 1 and mode == "RGB" else pixels


def _on_white(image: Image.Image) -> Image.Image:
    """Return an image without transparency."""
    if not image.has_transparency_data:
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def _fitted(image: Image.Image, size: tuple[int, int] | None) -> Image.Image:
    """Return an image of (H, W) ``size``."""
    if size is None or (image.height, image.width) == size:
        return image
    return ImageOps.fit(image, size[::-1], method=Image.Resampling.BICUBIC)
