"""CIFAR images of the parties, of the labelled bank and of the test, disjoint by construction."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.settings import Experiment
from orchestra_strategy.data import dirichlet_equal_parts
from orchestra_strategy.errors import DataError
from orchestra_strategy.rng import numpy_generator

__all__ = ["Images", "Split", "block_means", "make_split", "read_cifar"]

_KEPT_OUT = "experiment"  # the name of the streams that draw bank and test


@dataclass(frozen=True)
class Images:
    """Samples (n, 3, H, W) uint8 with classes (n,)."""

    x: npt.NDArray[np.uint8]
    y: npt.NDArray[np.int64]

    def at(self, rows: npt.NDArray[np.int64]) -> "Images":
        """Return the images at ``rows``."""
        return Images(self.x[rows], self.y[rows])


@dataclass(frozen=True)
class Split:
    """What the parties train on, what probes learn on, and what they are measured on.

    Attributes:
        parties: Each party's images; its virtual users' one after the other.
        bank: Labelled images that no party has.
        test: Images of the test set, or held out of the training set.
        class_names: Names by class.
    """

    parties: tuple[Images, ...]
    bank: Images
    test: Images
    class_names: tuple[str, ...]


def block_means(x: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.float32]:
    """Return images (n, c, H, W) made smaller, (n, c, side, side), as means of square blocks."""
    block = x.shape[-1] // side
    blocks = x.reshape(*x.shape[:2], side, block, side, block)
    means: npt.NDArray[np.float32] = blocks.mean((3, 5), dtype=np.float32)
    return means


def read_cifar(folder: str | Path) -> tuple[Images, Images, tuple[str, ...]]:
    """Read train and test set from image folders (``train/``, ``test/``) or python batches.

    Args:
        folder: Where they lie.

    Returns:
        Train set, test set, class names.

    Raises:
        DataError: There is neither, or they cannot be read.
    """
    from orchestra_strategy.data.readers.loading import load_local

    folder = Path(folder)
    parts: list[Any] = []
    for split in ("train", "test"):
        where, options = (
            (folder / split, {}) if (folder / split).is_dir() else (folder, {"split": split})
        )
        loaded = load_local(where, **options)
        if loaded.labels is None or loaded.samples.ndim != 4:
            raise DataError(f"Expected labelled colour images in `{where}`, got none.")
        parts.append(loaded)
    train, test = (Images(part.samples, np.asarray(part.labels)) for part in parts)
    return train, test, tuple(parts[0].class_names or map(str, range(int(train.y.max()) + 1)))


def make_split(
    train: Images, test: Images, class_names: tuple[str, ...], setting: Experiment, seed: int
) -> Split:
    """Draw users, bank and test.

    Raises:
        DataError: There are too few images.
    """
    users = setting.parties * setting.users_per_party
    parts = dirichlet_equal_parts(train.y, users, setting.samples_per_user, setting.alpha, seed)
    per_party = [
        np.concatenate(parts[i : i + setting.users_per_party])
        for i in range(0, users, setting.users_per_party)
    ]
    left = np.setdiff1d(np.arange(len(train.y)), np.concatenate(parts))
    bank = left[_balanced(train.y[left], setting.bank_size, seed, "bank")]
    chosen = np.arange(len(test.y))
    if setting.held_out:
        # Without the test set, for choices: training images that neither parties nor probes have.
        test, chosen = train, np.setdiff1d(left, bank)
    if setting.test_size is not None:
        chosen = chosen[_balanced(test.y[chosen], setting.test_size, seed, "test")]
    return Split(
        tuple(train.at(rows) for rows in per_party), train.at(bank), test.at(chosen), class_names
    )


def _balanced(
    labels: npt.NDArray[np.int64], size: int, seed: int, purpose: str
) -> npt.NDArray[np.int64]:
    """Draw ``size`` rows, as many of each class."""
    classes = np.unique(labels)
    each = size // len(classes)
    generator = numpy_generator(seed, _KEPT_OUT, 0, purpose)
    chosen = []
    for c in classes:
        rows = np.flatnonzero(labels == c)
        if len(rows) < each:
            raise DataError(
                f"Expected {each} images of class {c} for the {purpose}, got {len(rows)}: lower "
                f"`{purpose}_size` or `samples_per_user`."
            )
        chosen.append(generator.permutation(rows)[:each])
    return np.sort(np.concatenate(chosen))
