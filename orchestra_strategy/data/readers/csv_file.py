"""A CSV file as text: its delimiter, its header, and the columns that are wanted of it.

Nobody knows whether the first line is a header or a sample, in a file that has lost its header. So
messages repeat the names that the user has given, and count columns otherwise.
"""

import csv
import gzip
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TextIO

import pandas as pd

from orchestra_strategy.data.readers.local_data import reading
from orchestra_strategy.errors import DataError

__all__ = ["MOST_BYTES", "column_name", "read_columns", "read_header", "require_columns"]

MOST_BYTES = 2**30
"""Of a table as text, 1 GiB; of a ``.csv.gz`` once it is unpacked."""

_LONGEST_HEADER = 2**20  # characters
_BLOCK = 2**20  # bytes that are unpacked at a time
_DELIMITERS = (",", ";", "\t", "|")
_UNEQUAL = re.compile(r"Expected \d+ fields in line \d+, saw \d+")
_ENCODING = "utf-8-sig"  # UTF-8, with or without the mark that spreadsheets put in front


def read_header(path: Path, delimiter: str | None) -> tuple[list[str], str]:
    """Return the names of the columns, and the delimiter.

    Args:
        path: ``.csv``, or ``.csv.gz``.
        delimiter: None takes the one of comma, semicolon, tab and bar that the header has most of.

    Raises:
        DataError: The file is missing, empty or too long, or names a column twice.
    """
    with reading(path, "a CSV file in UTF-8"):
        _check_length(path)
        line = _first_line(path)
    if not line:
        raise DataError(f"Expected `{path}` to start with the names of its columns, got no line.")
    if delimiter is None:
        delimiter = max(_DELIMITERS, key=line.count)
    with reading(path, "a CSV file with a header"):
        header = next(csv.reader([line], delimiter=delimiter))
    places: dict[str, int] = {}
    for place, name in enumerate(header, start=1):
        if places.setdefault(name, place) != place:
            raise DataError(
                f"Expected every column of `{path}` to have a name of its own, got one name in "
                f"columns {places[name]} and {place} (its first line must be the header)."
            )
    return header, delimiter


def require_columns(path: Path, header: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuse columns that are not in the header.

    Raises:
        DataError: Naming the first of them, and the place of the nearest name that there is.
    """
    for name in wanted:
        if name not in header:
            nearest = get_close_matches(str(name), header, n=1)
            hint = f" (that of column {header.index(nearest[0]) + 1} is near)" if nearest else ""
            raise DataError(
                f"Expected `{path}` to have the column `{name}`, got none of this name among its "
                f"{len(header)}{hint}: write it as in the first line, which must be the header."
            )


def column_name(header: Sequence[str], name: str, given: Collection[str]) -> str:
    """Return how messages call a column: by its name where the user has given it, else its place.

    >>> column_name(["age", "job"], "job", {"job"}), column_name(["age", "job"], "job", set())
    ('column `job`', 'column 2')
    """
    return f"column `{name}`" if name in given else f"column {header.index(name) + 1}"


def read_columns(
    path: Path,
    header: Sequence[str],
    delimiter: str,
    wanted: Sequence[str],
    as_text: Sequence[str],
    given: Collection[str],
) -> Mapping[str, Any]:
    """Read some columns, each a pandas Series without a missing value.

    Args:
        path: The file.
        header: All its columns.
        delimiter: Between cells.
        wanted: The columns to read.
        as_text: Those to leave as text although they may look like numbers.
        given: Those whose names the user has given.

    Raises:
        DataError: The file is broken, has no rows, or an empty cell; column and row are named.
    """
    with reading(path, "a CSV table"), warnings.catch_warnings():
        # pandas refuses a row with more cells than the header, or cuts it with a warning. With
        # `usecols` it would cut in silence, so all columns are read.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            table = pd.read_csv(
                path,
                sep=delimiter,
                header=0,
                names=list(header),
                index_col=False,
                dtype=dict.fromkeys(as_text, str),
                encoding=_ENCODING,
                low_memory=False,  # in pieces, a column could be text here and numbers there
            )
        except pd.errors.ParserWarning:
            raise DataError(
                f"Expected `{path}` to be a CSV table, got rows with more cells than its header."
            ) from None
        except pd.errors.ParserError as error:
            # Of pandas's text only what is known to be numbers of lines and cells.
            place = _UNEQUAL.search(str(error))
            got = place[0] if place else "a quote that is not closed, or other broken lines"
            raise DataError(f"Expected `{path}` to be a CSV table, got: {got}.") from None
    if len(table) == 0:
        raise DataError(f"Expected `{path}` to have at least one row below its header, got none.")
    for name in wanted:
        missing = table[name].isna().to_numpy()
        if missing.any():
            raise DataError(
                f"Expected {column_name(header, name, given)} of `{path}` to have no empty or NaN "
                f"cell, got {int(missing.sum())} of {len(table)}, the first in row "
                f"{missing.argmax() + 1}: fill or remove these rows, or leave the column "
                "out by `columns`."
            )
    columns: Mapping[str, Any] = table
    return columns


def _check_length(path: Path) -> None:
    """Refuse what would be too long as text, without unpacking more than the limit."""
    length = path.stat().st_size
    if path.suffix.lower() == ".gz":
        length = 0
        with gzip.open(path, "rb") as stream:
            while length <= MOST_BYTES and (block := stream.read(_BLOCK)):
                length += len(block)
    if length > MOST_BYTES:
        raise DataError(
            f"Expected `{path}` to have at most {MOST_BYTES} bytes of text, got more: divide it, "
            "or save its numbers as a .npy file."
        )


def _first_line(path: Path) -> str:
    """Return the first line that is not blank, or nothing."""
    with _open(path) as stream:
        while line := stream.readline(_LONGEST_HEADER):
            if len(line) == _LONGEST_HEADER:
                raise DataError(
                    f"Expected the header of `{path}` to be shorter than {_LONGEST_HEADER} "
                    "characters, got a longer line: its first line must be the header."
                )
            if line.strip():
                return line
    return ""


def _open(path: Path) -> TextIO:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding=_ENCODING, newline="")
    return path.open(encoding=_ENCODING, newline="")
