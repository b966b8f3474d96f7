"""Samples from ``.npy`` and ``.npz`` files, without ever running what a file may carry."""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestra_strategy.data.pixels import check_value_range
from orchestra_strategy.data.readers.local_data import LocalData, encode_labels, reading, samples_of
from orchestra_strategy.data.readers.numpy_header import MOST_BYTES, read_header
from orchestra_strategy.errors import DataError, did_you_mean

__all__ = ["load_npy", "load_npz"]

_SUFFIX = ".npy"
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # those by which numpy writes
_DEFAULT_LABELS = "y"


def load_npy(path: str | Path, *, value_range: tuple[float, float] | None = None) -> LocalData:
    """Map a ``.npy`` file into memory; uint8 and float32 are read from disk as they are used.

    Other dtypes become float32 in memory, where they may have 2 GiB.

    Args:
        path: A file of one (N, F), (N, H, W) or (N, C, H, W) array.
        value_range: Of images that are neither uint8 nor in [0, 1], the values of black and white;
            what is beyond counts as the nearer one, as in a window of a CT image.

    Returns:
        The samples, without labels.

    Raises:
        ParameterError: ``value_range`` is no range.
        DataError: The file is missing or broken, or cannot be trained on.
    """
    path, window = Path(path), check_value_range(value_range)
    with reading(path, "a .npy file of plain numbers"):
        with path.open("rb") as stream:
            header = read_header(stream, os.fstat(stream.fileno()).st_size, f"`{path}`")
        if window or header.fortran or header.dtype not in (np.uint8, np.float32):
            # What is copied is as large as its float32 form, however little of it is on the disk.
            _check_size(header.size * 4, f"`{path}`", "save it as uint8 or float32, in C order")
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    return LocalData(samples_of(array, path, value_range=window))


def load_npz(
    path: str | Path,
    *,
    samples_key: str = "x",
    labels_key: str | None = None,
    value_range: tuple[float, float] | None = None,
) -> LocalData:
    """Read samples, and labels where there are any, from a ``.npz`` file.

    Its members cannot be mapped: they are read whole, and may have 2 GiB each
    (:data:`~orchestra_strategy.data.readers.numpy_header.MOST_BYTES`). Save large data as ``.npy``.

    Args:
        path: A file written by ``numpy.savez``.
        samples_key: Name of the array of samples.
        labels_key: Name of the (N,) array of labels; None means ``"y"``, if there is one.
        value_range: As of :func:`load_npy`.

    Raises:
        ParameterError: ``value_range`` is no range.
        DataError: The file is missing or broken, lacks a name, or cannot be trained on.
    """
    path, window = Path(path), check_value_range(value_range)
    with reading(path, "a .npz file of plain numbers"), zipfile.ZipFile(path) as archive:
        names = [member.filename for member in archive.infolist()]
        if len(set(names)) != len(names):
            raise DataError(f"Expected `{path}` to have every array once, got one twice.")
        array = _member(archive, samples_key, path)
        samples = samples_of(array, path, f"`{samples_key}`", window)
        if labels_key is None and f"{_DEFAULT_LABELS}{_SUFFIX}" not in names:
            return LocalData(samples)
        labels_key = labels_key or _DEFAULT_LABELS
        what = f"`{labels_key}` in `{path}`"
        labels, classes = encode_labels(_member(archive, labels_key, path), None, what)
    return LocalData(samples, labels, classes)


def _member(archive: zipfile.ZipFile, key: str, path: Path) -> NDArray[Any]:
    """Read an array, after its header has been found to fit its length and the limit."""
    known = [n[: -len(_SUFFIX)] for n in archive.namelist() if n.endswith(_SUFFIX)]
    if key not in known:
        raise DataError(
            f"Expected `{path}` to have an array named `{key}`, got none: "
            f"{did_you_mean(key, known)}. Name yours by `samples_key` and `labels_key`."
        )
    member = archive.getinfo(key + _SUFFIX)
    what = f"`{key}` in `{path}`"
    if member.compress_type not in _METHODS:
        raise DataError(f"Expected {what} to be compressed as numpy does, got another method.")
    _check_size(member.file_size, what, "save it as a .npy file, which is mapped")
    with archive.open(member) as stream:
        header = read_header(stream, member.file_size, what)
        content = stream.read()
    if header.size * header.dtype.itemsize != len(content):
        raise DataError(f"Expected {what} to be as long as the archive says, got {len(content)}.")
    # Zero bytes have no buffer; as_samples and encode_labels refuse what is empty.
    array = np.frombuffer(content, header.dtype) if content else np.empty(0, header.dtype)
    return array.reshape(header.shape, order="F" if header.fortran else "C")


def _check_size(count: int, what: str, remedy: str) -> None:
    if count > MOST_BYTES:
        raise DataError(
            f"Expected {what} to need at most {MOST_BYTES} bytes of memory, got {count}: {remedy}, "
            "or divide it."
        )
