"""One door to a party's data on its own disk: the kind is told by the path."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orchestra_strategy.data.readers.cifar_batches import (
    is_cifar_file,
    is_cifar_folder,
    load_cifar_batches,
)
from orchestra_strategy.data.readers.csv_layout import read_layout
from orchestra_strategy.data.readers.csv_table import load_csv
from orchestra_strategy.data.readers.image_folder import load_image_folder
from orchestra_strategy.data.readers.local_data import LocalData
from orchestra_strategy.data.readers.numpy_files import load_npy, load_npz
from orchestra_strategy.errors import DataError, ParameterError, did_you_mean

__all__ = ["READERS", "SUFFIXES", "applicable", "check_options", "lacks_labels", "load_local"]

READERS: dict[str, Callable[..., LocalData]] = {
    "an image folder": load_image_folder,
    "CIFAR batches": load_cifar_batches,
    "a .npy file": load_npy,
    "a .npz file": load_npz,
    "a CSV table": load_csv,
}
"""What reads a path, by kind; its keyword-only arguments are the options of reading."""

SUFFIXES = {
    ".npy": "a .npy file",
    ".npz": "a .npz file",
    ".csv": "a CSV table",
    ".csv.gz": "a CSV table",
}
"""The kind of a file by the end of its name."""


def load_local(path: str | Path, **options: Any) -> LocalData:
    """Read a party's data.

    Args:
        path: A folder of images (one sub-folder per class, or none), a folder of CIFAR's python
            batches or one of them, a ``.npy``, ``.npz``, ``.csv`` or ``.csv.gz`` file; ``~`` is the
            home folder.
        **options: Keywords of the function for its kind: :func:`load_image_folder`,
            :func:`load_cifar_batches`, :func:`load_npz`, :func:`load_csv`.

    Raises:
        ParameterError: The kind has no such option, or it is out of its range.
        DataError: There is nothing, nothing that can be read, or it cannot be trained on.
    """
    path = Path(path).expanduser()
    kind = _kind(path)
    known = _options(kind)
    for name in options:
        if name not in known:
            check_options(options)
            raise ParameterError(
                f"Expected options of {kind}, which is what `{path}` is, got `{name}`: "
                f"{did_you_mean(name, known)}."
            )
    return READERS[kind](path, **options)


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse options that no kind of data has, before anything is read.

    Raises:
        ParameterError: Naming the option and the nearest known one.

    >>> check_options({"image_sise": 32})
    Traceback (most recent call last):
    ...
    orchestra_strategy.errors.ParameterError: Expected ... did you mean `image_size`? Known: ...
    """
    known = {name for kind in READERS for name in _options(kind)}
    for name in options:
        if name not in known:
            raise ParameterError(
                f"Expected an option of `load_local`, got `{name}`: {did_you_mean(name, known)}."
            )


def applicable(options: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """Return those of a training's options of reading that the kind of other data has, too.

    Args:
        options: Of :func:`load_local`, for the data that was trained on.
        path: Other data.

    Raises:
        DataError: There is nothing, or nothing that can be read.
    """
    known = _options(_kind(Path(path).expanduser()))
    return {name: value for name, value in options.items() if name in known}


def lacks_labels(path: str | Path, options: Mapping[str, Any]) -> bool:
    """Whether a table has no column of the name that ``label_column`` of its options is.

    Args:
        path: Any data; other kinds lack nothing.
        options: As :func:`load_local` takes them.

    Raises:
        DataError: There is nothing, or no table that can be read.
    """
    file, column = Path(path).expanduser(), options.get("label_column")
    if column is None or _kind(file) != SUFFIXES[".csv"]:
        return False
    return column not in read_layout(file, options.get("delimiter"), options.get("encoding")).header


def _kind(path: Path) -> str:
    if not path.exists():
        raise DataError(f"Expected data in `{path}`, got no such file or folder (seen from here).")
    if is_cifar_file(path) or is_cifar_folder(path):
        return "CIFAR batches"
    if path.is_dir():
        return "an image folder"
    for suffix, kind in SUFFIXES.items():
        if path.name.lower().endswith(suffix):
            return kind
    raise DataError(
        f"Expected `{path}` to be {', '.join(READERS)} (told by {', '.join(SUFFIXES)}, or by "
        "names such as data_batch_1), got none of these."
    )


def _options(kind: str) -> list[str]:
    parameters = inspect.signature(READERS[kind]).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
