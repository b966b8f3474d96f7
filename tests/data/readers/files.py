"""Small files of every kind of data that a party may have."""

import pickle

import numpy as np
from PIL import Image


def write_image(path, size=(6, 5), mode="RGB", seed=0):
    """Save a random image of (W, H) ``size`` and return its pixels (C, H, W)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0]) + ((3,) if mode == "RGB" else ())
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels, mode).save(path)
    return pixels.transpose(2, 0, 1) if mode == "RGB" else pixels[np.newaxis]


def write_classes(root, counts, **kwargs):
    """One sub-folder per class with so many PNGs; returns all pixels, (N, C, H, W)."""
    return np.stack(
        [
            write_image(root / name / f"{i}.png", seed=100 * c + i, **kwargs)
            for c, (name, count) in enumerate(sorted(counts.items()))
            for i in range(count)
        ]
    )


def write_cifar_batch(path, rows, seed=0, keys=("labels",), protocol=2):
    """A batch as CIFAR's authors pickled it: keys are bytes, labels are lists."""
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 256, (rows, 3 * 32 * 32), dtype=np.uint8)
    labels = {key.encode(): rng.integers(0, 10, rows).tolist() for key in keys}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps({b"data": data, **labels}, protocol=protocol))
    return data.reshape(-1, 3, 32, 32), labels
