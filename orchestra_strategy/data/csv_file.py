"""A CSV file as text: its delimiter, its header, and the columns that are wanted of it."""

import csv
import gzip
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import pandas as pd

from orchestra_strategy.data.local_data import reading
from orchestra_strategy.errors import DataError

__all__ = ["column_labels", "read_columns", "read_header", "require_columns"]

_DELIMITERS = (",", ";", "\t", "|")
_ENCODING = "utf-8-sig"  # UTF-8, with or without the mark that spreadsheets put in front


def read_header(path: Path, delimiter: str | None) -> tuple[list[str], str]:
    """Return the names of the columns, and the delimiter.

    Args:
        path: ``.csv``, or ``.csv.gz``.
        delimiter: None takes the one of comma, semicolon, tab and bar that the header has most of.

    Raises:
        DataError: The file is missing or empty, or names a column twice.
    """
    with reading(path, "a CSV file in UTF-8", tell=False), _open(path) as stream:
        line = next((line for line in stream if line.strip()), "")
    if not line:
        raise DataError(f"Expected `{path}` to start with the names of its columns, got no line.")
    if delimiter is None:
        delimiter = max(_DELIMITERS, key=line.count)
    header = next(csv.reader([line], delimiter=delimiter))
    twice = [i for i, name in enumerate(header) if name in header[:i]]
    if twice:
        raise DataError(
            f"Expected every column of `{path}` to have a name of its own, got that of column "
            f"{twice[0] + 1} before it, too (its first line must be the header)."
        )
    return header, delimiter


def column_labels(header: Sequence[str], asked: Collection[str]) -> dict[str, str]:
    """Return how messages call each column.

    By its name only where the caller has used that: of a file without a header the names are cells
    of its first row, and no message may show a cell.

    Args:
        header: The names.
        asked: Those that the caller has used.

    >>> column_labels(["age", "41"], ["age"])
    {'age': '`age`', '41': 'number 2'}
    """
    return {
        name: f"`{name}`" if name in asked else f"number {i}" for i, name in enumerate(header, 1)
    }


def require_columns(path: Path, header: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuse columns that are not in the header.

    Raises:
        DataError: Naming the first of them.
    """
    for name in wanted:
        if name not in header:
            raise DataError(
                f"Expected `{path}` to have the column `{name}`, got {len(header)} others: its "
                "first line must be their names, as they are in `columns` and `label_column`."
            )


def read_columns(
    path: Path,
    header: Sequence[str],
    delimiter: str,
    wanted: Sequence[str],
    as_text: Sequence[str],
    labels: Mapping[str, str],
) -> Mapping[str, Any]:
    """Read some columns, each a pandas Series without a missing value.

    Args:
        path: The file.
        header: All its columns.
        delimiter: Between cells.
        wanted: The columns to read.
        as_text: Those to leave as text although they may look like numbers.
        labels: How messages call them.

    Raises:
        DataError: The file is broken, has no rows, or an empty cell; column and row are named.
    """
    with reading(path, "a CSV table"), warnings.catch_warnings():
        # pandas refuses a row with more cells than the header, or cuts it with a warning. With
        # `usecols` it would cut in silence, so all columns are read.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        table = pd.read_csv(
            path,
            sep=delimiter,
            header=0,
            names=list(header),
            index_col=False,
            dtype=dict.fromkeys(as_text, str),
            encoding=_ENCODING,
            low_memory=False,  # in pieces, a column could be text in one and numbers in another
        )
    if len(table) == 0:
        raise DataError(f"Expected `{path}` to have at least one row below its header, got none.")
    for name in wanted:
        missing = table[name].isna().to_numpy()
        if missing.any():
            raise DataError(
                f"Expected column {labels[name]} of `{path}` to have no empty or NaN cell, got "
                f"{int(missing.sum())} of {len(table)}, the first in row {missing.argmax() + 1}: "
                "fill or remove these rows, or leave the column out by `columns`."
            )
    columns: Mapping[str, Any] = table
    return columns


def _open(path: Path) -> TextIO:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding=_ENCODING, newline="")
    return path.open(encoding=_ENCODING, newline="")
