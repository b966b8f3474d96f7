"""The common result of all readers, and the checks that they share.

Messages of the readers may travel to the driver. They name files, columns and row numbers, and
never repeat what a cell or a label holds.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from orchestra_strategy.data.arrays import as_samples
from orchestra_strategy.data.pixels import to_unit_range
from orchestra_strategy.errors import DataError, OrchestraError

__all__ = ["LocalData", "check_class_names", "encode_labels", "reading", "samples_of"]


@dataclass(frozen=True)
class LocalData:
    """One party's data in memory, or mapped into it.

    Attributes:
        samples: (N, F), (N, H, W) or (N, C, H, W), uint8 or float32, read-only.
        labels: (N,) int64, None where the source has none. Training never looks at them.
        class_names: The name of each label, where the source has names.
        feature_names: Of a table, the name of each of the F columns.
        skipped: Files that were left out on request, in order.
        one_hot: Of a table, the column numbers that hold one category together, for each of them.
        notes: What its owner should look at, such as columns that look like ids; they stay at the
            party.

    Raises:
        DataError: The number of labels is not N.
    """

    samples: NDArray[Any]
    labels: NDArray[np.int64] | None = None
    class_names: tuple[str, ...] | None = None
    feature_names: tuple[str, ...] | None = None
    skipped: tuple[str, ...] = ()
    one_hot: tuple[tuple[int, ...], ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse labels that do not belong to the samples."""
        if self.labels is not None and len(self.labels) != len(self.samples):
            raise DataError(
                f"Expected `labels` to be one per sample, got {len(self.labels)} for "
                f"{len(self.samples)} samples."
            )

    def __len__(self) -> int:
        return len(self.samples)


@contextmanager
def reading(path: Path, what: str, remedy: str = "") -> Iterator[None]:
    """Turn what a parser raises on a file that is broken into one sentence that names the file.

    Of an error of the system its reason is told, of others the kind alone: parsers repeat what they
    stumbled over, which is the party's.

    Args:
        path: The file.
        what: What it should be.
        remedy: The end of the sentence.

    Raises:
        DataError: Instead of whatever came.
    """
    try:
        yield
    except (OrchestraError, MemoryError):
        raise
    except Exception as error:  # parsers name no end to what they raise on broken bytes
        told = getattr(error, "strerror", None)
        got = type(error).__name__ + (f": {told}" if told else "")
        raise DataError(f"Expected `{path}` to be {what}, got {got}{remedy}.") from None


def samples_of(
    array: Any,
    path: Path,
    what: str = "the array",
    value_range: tuple[float, float] | None = None,
) -> NDArray[Any]:
    """Return ``array`` as :func:`~orchestra_strategy.data.as_samples` does, or name the file.

    Args:
        array: As the file has it.
        path: The file.
        what: The array in it, for messages.
        value_range: Of images, what is black and white; see
            :func:`~orchestra_strategy.data.pixels.to_unit_range`.

    Raises:
        DataError: It cannot be trained on.
    """
    try:
        return as_samples(array if value_range is None else to_unit_range(array, value_range))
    except DataError as error:
        raise DataError(f"{what[0].upper()}{what[1:]} in `{path}` is refused: {error}") from error


def check_class_names(class_names: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the option ``class_names`` as a tuple.

    Raises:
        DataError: It is no sequence of different names.
    """
    if class_names is None:
        return None
    names = () if isinstance(class_names, str) else tuple(class_names)
    if not names or len(set(names)) != len(names) or not all(isinstance(n, str) for n in names):
        raise DataError(
            f"Expected `class_names` to be a list of different names, got {class_names!r}."
        )
    return names


def encode_labels(
    values: ArrayLike, class_names: Sequence[str] | None, what: str
) -> tuple[NDArray[np.int64], tuple[str, ...] | None]:
    """Return labels as whole numbers, and the names behind them where they were names.

    Args:
        values: (N,) or (N, 1) whole numbers or names.
        class_names: All classes, in the order of their numbers; None sorts the names that occur.
        what: Where the labels are from, for messages.

    Returns:
        (N,) int64 labels, and the class names or None.

    Raises:
        DataError: They are neither, or not among ``class_names``; the row is named.

    >>> encode_labels(["dog", "cat"], None, "the labels")
    (array([1, 0]), ('cat', 'dog'))
    """
    names = check_class_names(class_names)
    array = np.asarray(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "biufOU":
        raise DataError(
            f"Expected {what} to be (N,) whole numbers or names, got shape {array.shape} and dtype "
            f"{array.dtype}."
        )
    if array.dtype.kind in "OU":
        found = [str(value) for value in array]
        names = names or tuple(sorted(set(found)))
        codes = {name: code for code, name in enumerate(names)}
        labels = np.array([codes.get(name, -1) for name in found], np.int64)
    else:
        with np.errstate(invalid="ignore"):  # of NaN, which the comparison finds
            labels = array.astype(np.int64)
        _require_rows(labels == array, f"Expected {what} to be whole numbers or names")
    if names is not None:
        inside = (labels >= 0) & (labels < len(names))
        _require_rows(inside, f"Expected {what} to be among the {len(names)} `class_names`")
    return labels, names


def _require_rows(good: NDArray[np.bool_], rule: str) -> None:
    if not good.all():
        first = int(np.argmin(good)) + 1
        raise DataError(f"{rule}, got {int((~good).sum())} that are not, the first in row {first}.")
