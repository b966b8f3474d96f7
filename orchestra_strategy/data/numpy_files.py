"""Samples from ``.npy`` and ``.npz`` files, without ever running what a file may carry."""

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from orchestra_strategy.data.local_data import LocalData, encode_labels, reading, samples_of
from orchestra_strategy.errors import DataError, did_you_mean

__all__ = ["load_npy", "load_npz"]

_NO_OBJECTS = "; object arrays are refused, since reading them can run code: save plain numbers"
_DEFAULT_LABELS = "y"
_FORMAT: Any = np.lib.format  # without types

MOST_BYTES = 2**31
"""Of an array in a ``.npz`` file, which is read as a whole, and may be packed a thousand to one."""


def load_npy(path: str | Path) -> LocalData:
    """Map a ``.npy`` file into memory; uint8 and float32 are read from disk as they are used.

    Other dtypes become float32 in memory.

    Args:
        path: A file of one (N, F), (N, H, W) or (N, C, H, W) array.

    Returns:
        The samples, without labels.

    Raises:
        DataError: The file is missing or broken, or cannot be trained on.
    """
    path = Path(path)
    with reading(path, "a .npy file of plain numbers", _NO_OBJECTS):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    return LocalData(samples_of(array, path))


def load_npz(
    path: str | Path, *, samples_key: str = "x", labels_key: str | None = None
) -> LocalData:
    """Read samples, and labels where there are any, from a ``.npz`` file.

    Its members cannot be mapped: they are read whole. Save large data as ``.npy``.

    Args:
        path: A file written by ``numpy.savez``.
        samples_key: Name of the array of samples.
        labels_key: Name of the (N,) array of labels; None means ``"y"``, if there is one.

    Raises:
        DataError: The file is missing or broken, lacks a name, or cannot be trained on.
    """
    path = Path(path)
    with reading(path, "a .npz file of plain numbers", _NO_OBJECTS):
        # Handed a path, numpy takes whatever lies there; the extension promises an archive.
        with zipfile.ZipFile(path) as archive:
            _check_sizes(path, archive)
        with np.load(path, allow_pickle=False) as archive:
            samples = samples_of(_member(archive, samples_key, path), path, f"`{samples_key}`")
            if labels_key is None and _DEFAULT_LABELS not in archive.files:
                return LocalData(samples)
            labels_key = labels_key or _DEFAULT_LABELS
            what = f"`{labels_key}` in `{path}`"
            labels, names = encode_labels(_member(archive, labels_key, path), None, what)
    return LocalData(samples, labels, names)


def _check_sizes(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuse members that ask for more memory than they may, before any is read.

    Raises:
        DataError: A member is too large, comes twice, or its header asks for more than it holds.
    """
    names = archive.namelist()
    if len(set(names)) < len(names):
        raise DataError(f"Expected every member of `{path}` once, got one twice.")
    for info in archive.infolist():
        with archive.open(info) as member:
            version = _FORMAT.read_magic(member)
            read = {
                (1, 0): _FORMAT.read_array_header_1_0,
                (2, 0): _FORMAT.read_array_header_2_0,
            }[version]
            shape, _, dtype = read(member)
        asked = math.prod(shape) * dtype.itemsize
        if asked > MOST_BYTES:
            raise DataError(
                f"Expected arrays of at most {MOST_BYTES} bytes in `{path}`, got one of {asked}: "
                "save it as .npy, which is not read as a whole."
            )
        if min(shape, default=0) < 0 or (dtype.itemsize and asked > info.file_size):
            raise DataError(
                f"Expected the arrays in `{path}` to be as large as they say, got one of {asked} "
                f"bytes in {info.file_size}: save it anew."
            )


def _member(archive: Any, key: str, path: Path) -> Any:
    if key not in archive.files:
        raise DataError(
            f"Expected `{path}` to have an array named `{key}`, got none: "
            f"{did_you_mean(key, archive.files)}. Name yours by `samples_key` and `labels_key`."
        )
    return archive[key]
