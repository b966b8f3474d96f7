"""A party's table or images, read at that party from the platform's storage.

Messages travel to the other parties: they name columns and count rows, and repeat no cell.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestra_strategy.component.forms import Samples
from orchestra_strategy.data.readers.image_decoding import (
    MOST_BYTES,
    decode,
    pixels_of,
    refuse_deep,
)
from orchestra_strategy.data.readers.image_files import refuse_outside
from orchestra_strategy.data.readers.local_data import LocalData, reading, samples_of
from orchestra_strategy.errors import DataError
from orchestra_strategy.host_component import StorageType, read_arrow

__all__ = ["ImageColumn", "NumberColumns", "Scales", "read_party_table"]

Scales = Mapping[str, tuple[float, float]]
"""Column -> what is subtracted from it, and what it is divided by."""


@dataclass(frozen=True)
class NumberColumns:
    """Columns of numbers, one row a sample.

    Attributes:
        storage: The platform's.
        part: SecretFlow's description of the party's table.
        columns: Their names, in order.
        standardise: Whether a column is scaled by its mean and standard deviation at this party.
    """

    storage: Any
    part: Any
    columns: Sequence[str]
    standardise: bool = True

    def __call__(self, scales: Scales | None = None) -> LocalData:
        """Read them.

        Args:
            scales: Of every column; by default those of :meth:`scales`.

        Raises:
            DataError: The file is broken, or a cell is empty or no finite number.
        """
        numbers = self._numbers()
        of = self._scales_of(numbers) if scales is None else scales
        shift, width = (np.array([of[name][i] for name in self.columns]) for i in (0, 1))
        samples = ((numbers - shift) / width).astype(np.float32)
        return LocalData(
            samples_of(samples, Path(self.part.uri), "the scaled table"),
            feature_names=tuple(self.columns),
        )

    def scales(self) -> dict[str, tuple[float, float]]:
        """Return the scale of each column over this party's rows."""
        return self._scales_of(self._numbers())

    def _scales_of(self, numbers: NDArray[np.float64]) -> dict[str, tuple[float, float]]:
        if not self.standardise:
            return dict.fromkeys(self.columns, (0.0, 1.0))
        found = {}
        for name, column in zip(self.columns, numbers.T, strict=True):
            # Compared as they are: rounding gives a constant column a deviation above zero.
            constant = column.min() == column.max()
            width = 1.0 if constant else float(column.std())
            found[name] = (float(column[0] if constant else column.mean()), width)
        return found

    def _numbers(self) -> NDArray[np.float64]:
        """Return (N, F), all finite."""
        table = read_party_table(self.storage, self.part)
        numbers = np.empty((table.num_rows, len(self.columns)))
        for place, name in enumerate(self.columns):
            column = table.column(name)
            if column.null_count:
                raise DataError(
                    f"Expected column `{name}` to have no empty cell, got {column.null_count} of "
                    f"{table.num_rows}: fill them first, for example by SecretFlow's `fillna`."
                )
            numbers[:, place] = column.to_numpy(zero_copy_only=False)
            bad = int((~np.isfinite(numbers[:, place])).sum())
            if bad:
                raise DataError(
                    f"Expected column `{name}` to have finite numbers, got {bad} of "
                    f"{table.num_rows} that are NaN or infinite: mend or remove these rows."
                )
        return numbers


@dataclass(frozen=True)
class ImageColumn:
    """Images whose paths stand in a column, one row a sample.

    Attributes:
        storage: The platform's; the paths are relative to it.
        part: SecretFlow's description of the party's table.
        samples: The name of the column, and what images are converted to.
        root: The folder of a storage on disk, which links must not lead out of.
    """

    storage: Any
    part: Any
    samples: Samples
    root: str

    def __call__(self) -> LocalData:
        """Read them.

        Raises:
            DataError: A path leads out of the storage, or to no image.
        """
        names = (
            read_party_table(self.storage, self.part).column(self.samples.image_column).to_pylist()
        )
        side = self.samples.image_size
        images = np.empty((len(names), self.samples.channels, side, side), np.uint8)
        for row, name in enumerate(names, start=1):
            images[row - 1] = self._pixels(name, row)
        return LocalData(samples_of(images, Path(self.part.uri)))

    def _pixels(self, name: str | None, row: int) -> NDArray[np.uint8]:
        title = Path(f"row {row}")
        path = PurePosixPath(name or "")
        if not name or path.is_absolute() or ".." in path.parts:
            raise DataError(
                f"Expected column `{self.samples.image_column}` to have paths below the storage's "
                f"folder, got another text in row {row}."
            )
        if self.storage.get_type() == StorageType.LOCAL_FS:
            try:
                refuse_outside(Path(self.root), Path(self.root, path))
            except DataError:
                raise DataError(
                    f"Expected the path in row {row} to lie in the storage's folder, got a link "
                    "that leads elsewhere: copy what it leads to."
                ) from None
        found = reading(title, "the path of an image in the storage")
        with found, self.storage.get_reader(str(path)) as stream:
            content = stream.read(MOST_BYTES + 1)
        image = decode(title, content)
        refuse_deep(image, str(title))
        side = self.samples.image_size
        return pixels_of(image, self.samples.mode, (side, side))


def read_party_table(storage: Any, part: Any) -> Any:
    """Return a party's part of a table, a pyarrow Table of at least one row.

    Raises:
        DataError: It cannot be read, or is empty.
    """
    remedy = ": look for empty cells and texts among numbers, or note what stands for no value"
    what = "a table with the columns and types that the platform has noted"
    with reading(Path(part.uri), what, remedy):
        table = read_arrow(storage, part)
    if table.num_rows == 0:
        raise DataError(f"Expected `{part.uri}` to have at least one row, got none.")
    return table
