"""Images of a random process, to start an encoder from without anybody's data.

Dead leaves: shapes of random place, size, direction and colour that cover each other, whose sizes
follow a power law as those of objects in photos do (A. Lee, D. Mumford, J. Huang, "Occlusion
Models for Natural Images", IJCV 2001, https://doi.org/10.1023/A:1011109015675). That encoders
trained on such images alone are worth something for real ones: M. Baradad et al., "Learning to See
by Looking at Noise", NeurIPS 2021, https://arxiv.org/abs/2106.05963; that they are a start for
private training: X. Tang et al., "Differentially Private Image Classification by Learning Priors
from Random Processes", NeurIPS 2023, https://arxiv.org/abs/2306.06076.
"""

import numpy as np
import numpy.typing as npt

from orchestra_strategy.data.option_checks import as_count
from orchestra_strategy.rng import numpy_generator

__all__ = ["dead_leaves"]

_LEAVES = 60
_CHUNK = 500  # images at a time
_SMALLEST, _LARGEST = 0.1, 0.8  # half axes in sides of the image
_CHROMA = 0.15  # standard deviation of a colour's channels around its brightness
_GRAIN = 0.03  # standard deviation of noise on each pixel
_SHADE = 0.3  # how much a leaf's brightness changes across the image

Array = npt.NDArray[np.float32]


def dead_leaves(count: int, size: int = 32, channels: int = 3, seed: int = 0) -> Array:
    """Return images of ellipses and rectangles that cover each other.

    Args:
        count: How many.
        size: Their side in pixels.
        channels: 3 for colours, 1 for grey.
        seed: The same images for the same seed, on every machine.

    Returns:
        (count, channels, size, size) float32 in [0, 1]; (count, size, size) with one channel.

    >>> dead_leaves(2, size=8, channels=1).shape, dead_leaves(2, size=8).shape
    ((2, 8, 8), (2, 3, 8, 8))
    """
    as_count("count", count)
    as_count("size", size)
    as_count("channels", channels)
    chunks = []
    for number, start in enumerate(range(0, count, _CHUNK)):
        generator = numpy_generator(seed, "random process", number, "dead leaves")
        chunks.append(_some(min(_CHUNK, count - start), size, channels, generator))
    images = np.concatenate(chunks)
    return images[:, 0] if channels == 1 else images


def _some(count: int, size: int, channels: int, rng: np.random.Generator) -> Array:
    rows, columns = np.mgrid[:size, :size].astype(np.float32) / size
    images = np.full((count, channels, size, size), 0.5, np.float32)
    # Few colours for each image, so that leaves of one image go together.
    palette = rng.random((count, 5, 1), np.float32)
    palette = palette + _CHROMA * rng.standard_normal((count, 5, channels), np.float32)
    for _ in range(_LEAVES):
        inside, along = _leaf(count, rows, columns, rng)
        chosen = palette[np.arange(count), rng.integers(0, 5, count)]
        colour = np.clip(chosen + 0.1 * rng.standard_normal(chosen.shape, np.float32), 0, 1)
        shade = _SHADE * rng.standard_normal((count, 1, 1), np.float32) * along
        painted = colour[:, :, None, None] + shade[:, None]
        images = np.where(inside[:, None], painted, images)
    images += _GRAIN * rng.standard_normal(images.shape, np.float32)
    return np.clip(images, 0.0, 1.0).astype(np.float32)


def _leaf(
    count: int, rows: Array, columns: Array, rng: np.random.Generator
) -> tuple[npt.NDArray[np.bool_], Array]:
    """Return where one leaf of each image is, and the place along its axis, both (count, H, W)."""

    def each(low: float, high: float) -> Array:
        return rng.uniform(low, high, (count, 1, 1)).astype(np.float32)

    # A density of r^-3 between the two ends, by its inverse distribution function.
    small, large = _SMALLEST**-2, _LARGEST**-2
    half = (large + each(0.0, 1.0) * (small - large)) ** -0.5
    angle, flat = each(0.0, float(np.pi)), each(0.4, 1.0)
    y, x = rows - each(0.0, 1.0), columns - each(0.0, 1.0)
    along = (np.cos(angle) * x + np.sin(angle) * y) / half
    across = (np.cos(angle) * y - np.sin(angle) * x) / (half * flat)
    ellipse = along**2 + across**2 <= 1.0
    rectangle = np.maximum(np.abs(along), np.abs(across)) <= 1.0
    inside = np.where(each(0.0, 1.0) < 0.5, ellipse, rectangle)
    return inside, np.clip(along, -1.0, 1.0)
