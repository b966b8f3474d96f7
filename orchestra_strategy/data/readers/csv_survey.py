"""A party's part in agreeing on the columns of tables: its names of categories, and its sums."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestra_strategy.data.readers.csv_file import NO_NUMBER, read_columns
from orchestra_strategy.data.readers.csv_kinds import LONG_NUMBER
from orchestra_strategy.data.readers.csv_layout import column_name, read_layout, require_columns
from orchestra_strategy.errors import DataError

__all__ = [
    "FEWEST_ROWS",
    "MOST_NAMES",
    "Survey",
    "column_sums",
    "names_in",
    "squares",
    "survey_csv",
]

MOST_NAMES = 1000
"""Of a column's categories at a party; more of them are free text, or ids."""

FEWEST_ROWS = 4
"""Of which a party may give away names and sums."""

_FEW = 20  # up to so many rows, all names may differ


class Survey(NamedTuple):
    """Columns of a party's table; it stays at the party.

    Attributes:
        path: The file.
        names: Column -> the names in it; None where they are too many.
        numbers: Column -> its numbers (N,), of the columns that hold nothing else.
    """

    path: str
    names: dict[str, tuple[str, ...] | None]
    numbers: dict[str, NDArray[np.float64]]


def survey_csv(
    path: str,
    columns: Sequence[str],
    delimiter: str | None = None,
    decimal: str = ".",
    encoding: str | None = None,
) -> Survey:
    """Read columns as text, and tell those of numbers from those of names.

    Args:
        path: ``.csv`` or ``.csv.gz``.
        columns: Those to look at.
        delimiter: As of :func:`~.csv_table.load_csv`, as are the next two.
        decimal: The mark before the fraction of a number.
        encoding: Of the text.

    Raises:
        DataError: The file cannot be read, lacks a column, has empty cells, or so few rows that
            names and sums would tell of one.
        ParameterError: The encoding is unknown.
    """
    file = Path(path).expanduser()
    layout = read_layout(file, delimiter, encoding)
    require_columns(file, layout.header, columns)
    texts: dict[str, Sequence[str]] = dict.fromkeys(columns, ())
    cells = read_columns(file, layout, columns, texts, columns, decimal)
    if len(cells.rows) < FEWEST_ROWS:
        raise DataError(
            f"Expected `{path}` to have at least {FEWEST_ROWS} rows, for names and sums not to "
            f"tell of one, got {len(cells.rows)}."
        )
    names: dict[str, tuple[str, ...] | None] = {}
    numbers: dict[str, NDArray[np.float64]] = {}
    for column, values in cells.columns.items():
        found = _numbers(values, decimal)
        if found is not None:
            numbers[column] = found
        names[column] = _names(values)
    return Survey(path, names, numbers)


def _numbers(cells: Any, decimal: str) -> NDArray[np.float64] | None:
    """Return the numbers of a column of texts; None if there is anything else."""
    present = cells[~cells.isin(NO_NUMBER)]
    if present.str.fullmatch(LONG_NUMBER).any() or not len(present):
        return None
    if decimal == ",":
        present = present.str.replace(",", ".", regex=False)
    numbers: NDArray[np.float64] = pd.to_numeric(present, errors="coerce").to_numpy(np.float64)
    return numbers if np.isfinite(numbers).all() else None


def _names(cells: Any) -> tuple[str, ...] | None:
    names = cells.unique()
    ids = len(names) == len(cells) > _FEW
    return None if ids or len(names) > MOST_NAMES else tuple(sorted(names))


def names_in(survey: Survey, columns: Sequence[str]) -> dict[str, list[str]]:
    """Return the names in some columns, without how often they occur.

    Raises:
        DataError: A column has too many; no name is told.
    """
    listed: dict[str, list[str]] = {}
    for column in columns:
        names = survey.names[column]
        if names is None:
            raise DataError(
                f"Expected {column_name(columns, column, columns)} of `{survey.path}` to have at "
                f"most {MOST_NAMES} names, some of them in several rows, to agree on, got free "
                "text or ids: leave it out by `columns`, or list its values by `categories`."
            )
        listed[column] = list(names)
    return listed


def column_sums(survey: Survey, columns: Sequence[str]) -> dict[str, list[float]]:
    """Return for each column its number of cells and their sum."""
    numbers = survey.numbers
    return {column: [len(numbers[column]), float(numbers[column].sum())] for column in columns}


def squares(survey: Survey, means: Mapping[str, float]) -> dict[str, float]:
    """Return for each column the sum of squared deviations from a mean."""
    return {c: float(((survey.numbers[c] - mean) ** 2).sum()) for c, mean in means.items()}
