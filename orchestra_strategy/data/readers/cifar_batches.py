"""CIFAR-10 and CIFAR-100 in their original form, the "python version": pickled batches.

A pickle can run any program when it is opened by Python. These are opened by a reader that knows
arrays of numbers, containers, numbers and strings, and has no way to call anything.

References:
    A. Krizhevsky: "Learning Multiple Layers of Features from Tiny Images", 2009,
    https://www.cs.toronto.edu/~kriz/cifar.html
"""

import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from orchestra_strategy.data.readers.image_files import refuse_outside
from orchestra_strategy.data.readers.local_data import LocalData, encode_labels, reading, samples_of
from orchestra_strategy.data.readers.pickled_arrays import PickledArray
from orchestra_strategy.data.readers.plain_pickle import read_plain_pickle
from orchestra_strategy.errors import DataError, ParameterError

__all__ = ["is_cifar_file", "is_cifar_folder", "load_cifar_batches"]

_TRAIN = re.compile(r"data_batch_\d+|train")
_TEST = re.compile(r"test_batch|test")
_META = ("batches.meta", "meta")
_NAMES = {"labels": "label_names", "fine": "fine_label_names", "coarse": "coarse_label_names"}
_ROW = 3 * 32 * 32
_MOST_LABELS = 2**31


def is_cifar_file(path: Path) -> bool:
    """Whether a file has the name of a batch: ``data_batch_1``, ``test_batch``, ``train``, ..."""
    return path.is_file() and bool(_TRAIN.fullmatch(path.name) or _TEST.fullmatch(path.name))


def is_cifar_folder(path: Path) -> bool:
    """Whether a folder has such files (image folders have folders of these names)."""
    return path.is_dir() and any(is_cifar_file(entry) for entry in path.iterdir())


def load_cifar_batches(
    path: str | Path,
    *,
    split: Literal["train", "test"] | None = None,
    label_kind: Literal["fine", "coarse"] = "fine",
) -> LocalData:
    """Read the batches of a folder, or a single one.

    Args:
        path: The folder (``cifar-10-batches-py``, ``cifar-100-python``) or one of its batches.
        split: Of a folder, which batches; None means ``"train"``.
        label_kind: Of CIFAR-100, its 100 classes or its 20 superclasses.

    Returns:
        (N, 3, 32, 32) uint8, labels, and class names where the folder has a ``meta`` file.

    Raises:
        ParameterError: An option has an unknown value, or ``split`` is given for a single batch.
        DataError: There is no such batch, or it is broken, or refers to anything but plain data.
    """
    path = Path(path)
    _check_options(path, split, label_kind)
    folder = path if path.is_dir() else path.parent
    pattern = _TEST if split == "test" else _TRAIN
    files = [path]
    if path.is_dir():
        # By number, not by letter, so that a tenth batch does not come before the second.
        files = sorted(
            (f for f in path.iterdir() if is_cifar_file(f) and pattern.fullmatch(f.name)),
            key=lambda file: (len(file.name), file.name),
        )
    if not files:
        raise DataError(f"Expected `{path}` to have CIFAR batches of the {split} split, got none.")
    images, labels = [], []
    for file in files:
        if file != path:  # a batch that was given by its name may be a link
            refuse_outside(folder, file)
        kind, rows, values = _read_batch(file, label_kind)
        images.append(rows.reshape(-1, 3, 32, 32))
        labels.append(values)
    # A single batch is not copied: the parts of a federation are often of that size.
    samples = images[0] if len(images) == 1 else np.concatenate(images)
    names = _class_names(folder, _NAMES[kind])
    numbers, names = encode_labels(np.concatenate(labels), names, f"the labels in `{path}`")
    return LocalData(samples_of(samples, path), numbers, names)


def _check_options(path: Path, split: str | None, label_kind: str) -> None:
    if split not in ("train", "test", None):
        raise ParameterError(f"Expected `split` to be 'train' or 'test', got {split!r}.")
    if label_kind not in ("fine", "coarse"):
        raise ParameterError(f"Expected `label_kind` to be 'fine' or 'coarse', got {label_kind!r}.")
    if split is not None and path.is_file():
        raise ParameterError(f"Expected no `split` for a single batch, got {split!r} for `{path}`.")


def _read_batch(file: Path, label_kind: str) -> tuple[str, NDArray[np.uint8], NDArray[np.int64]]:
    """Return which labels there were, (N, 3072) uint8 pixels, and (N,) labels."""
    content = _unpickle(file)
    kind = "labels" if "labels" in content else label_kind
    data = content.get("data")
    rows = data.array if isinstance(data, PickledArray) else None
    labels = content.get("labels" if kind == "labels" else f"{kind}_labels")
    if not (rows is not None and rows.dtype == np.uint8 and rows.ndim == 2):
        raise DataError(f"Expected `{file}` to hold `data`, a uint8 array (N, {_ROW}), got none.")
    if rows.shape[1] != _ROW or len(rows) == 0:
        raise DataError(f"Expected `data` in `{file}` to be (N, {_ROW}), got {rows.shape}.")
    if not isinstance(labels, list) or len(labels) != len(rows):
        raise DataError(f"Expected `{file}` to hold a list of {len(rows)} labels, got another.")
    # Looked at one by one: numpy would walk through lists in lists, however many there are.
    if not all(type(label) is int and 0 <= label < _MOST_LABELS for label in labels):
        raise DataError(
            f"Expected the labels in `{file}` to be whole numbers from 0 on, below {_MOST_LABELS}, "
            "got others."
        )
    return kind, rows, encode_labels(labels, None, f"the labels in `{file}`")[0]


def _class_names(folder: Path, key: str) -> tuple[str, ...] | None:
    for name in _META:
        if (folder / name).is_file():
            refuse_outside(folder, folder / name)
            found = _unpickle(folder / name).get(key)
            if isinstance(found, list):
                if not all(isinstance(n, str | bytes) for n in found):
                    raise DataError(f"Expected `{folder / name}` to list names, got other values.")
                return tuple(_text(n) for n in found)
    return None


def _unpickle(file: Path) -> dict[str, Any]:
    """Return the dictionary in a file, its keys as strings (Python 2 wrote them as bytes)."""
    with reading(file, "a CIFAR batch"):
        content = read_plain_pickle(file)
        if not isinstance(content, dict):
            raise DataError(f"Expected `{file}` to hold a dictionary, got another type.")
        return {_text(key): value for key, value in content.items()}


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
