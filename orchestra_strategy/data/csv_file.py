"""A CSV file as text: its delimiter, its header, and the columns that are wanted of it."""

import csv
import gzip
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import pandas as pd

from orchestra_strategy.data.local_data import reading
from orchestra_strategy.errors import DataError, did_you_mean

__all__ = ["read_columns", "read_header", "require_columns"]

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
    with reading(path, "a CSV file in UTF-8"), _open(path) as stream:
        line = next((line for line in stream if line.strip()), "")
    if not line:
        raise DataError(f"Expected `{path}` to start with the names of its columns, got no line.")
    if delimiter is None:
        delimiter = max(_DELIMITERS, key=line.count)
    header = next(csv.reader([line], delimiter=delimiter))
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(
            f"Expected every column of `{path}` to have a name of its own, got `{twice[0]}` more "
            "than once (its first line must be the header)."
        )
    return header, delimiter


def require_columns(path: Path, header: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuse columns that are not in the header.

    Raises:
        DataError: Naming the first of them and the nearest name that there is.
    """
    for name in wanted:
        if name not in header:
            raise DataError(
                f"Expected `{path}` to have the column `{name}`, got none: "
                f"{did_you_mean(str(name), header)}."
            )


def read_columns(
    path: Path,
    header: Sequence[str],
    delimiter: str,
    wanted: Sequence[str],
    as_text: Sequence[str],
) -> Mapping[str, Any]:
    """Read some columns, each a pandas Series without a missing value.

    Args:
        path: The file.
        header: All its columns.
        delimiter: Between cells.
        wanted: The columns to read.
        as_text: Those to leave as text although they may look like numbers.

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
                f"Expected column `{name}` of `{path}` to have no empty or NaN cell, got "
                f"{int(missing.sum())} of {len(table)}, the first in row {missing.argmax() + 1}: "
                "fill or remove these rows, or leave the column out by `columns`."
            )
    columns: Mapping[str, Any] = table
    return columns


def _open(path: Path) -> TextIO:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding=_ENCODING, newline="")
    return path.open(encoding=_ENCODING, newline="")
