"""The layout of a CSV file: its encoding, delimiter, and header.

Nobody knows whether the first line is a header or a sample, in a file that has lost its header. So
messages repeat the names that the user has given, and count columns otherwise.
"""

import csv
import gzip
import io
import re
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from orchestra_strategy.data.readers.csv_encoding import check_encoding, decoding, open_text
from orchestra_strategy.data.readers.local_data import reading
from orchestra_strategy.errors import DataError

__all__ = [
    "MOST_BYTES",
    "CsvLayout",
    "column_name",
    "read_layout",
    "require_columns",
]

MOST_BYTES = 2**30
"""Of a table as text, 1 GiB; of a ``.csv.gz`` once it is unpacked."""

_LONGEST_HEADER = 2**20  # characters
_BLOCK = 2**20  # bytes that are unpacked at a time
_DELIMITERS = (",", ";", "\t", "|")
_SEP_LINE = re.compile(r'"?sep=(.)"?\r?\n', re.IGNORECASE)  # what Excel is told the delimiter by


class CsvLayout(NamedTuple):
    """How a file is divided.

    Attributes:
        header: The names of all columns, empty or twice as they may be.
        delimiter: Between cells.
        encoding: Of the text, by Python's name.
        lines_above: Lines before the header that belong to no table.
    """

    header: tuple[str, ...]
    delimiter: str
    encoding: str
    lines_above: int


def read_layout(path: Path, delimiter: str | None, encoding: str | None) -> CsvLayout:
    """Read the header, which may have quoted line breaks, or a line ``sep=;`` above it.

    Args:
        path: ``.csv``, or ``.csv.gz``.
        delimiter: None takes that of the line ``sep=``, or the one of comma, semicolon, tab and bar
            that divides the header into most names.
        encoding: As of :func:`check_encoding`.

    Raises:
        DataError: The file is missing, empty, too long, or in another encoding.
        ParameterError: The encoding is unknown.
    """
    codec = check_encoding(encoding)
    with reading(path, "a CSV file"), decoding(path, codec):
        _check_length(path)
        with open_text(path, codec) as stream:
            text = stream.read(_LONGEST_HEADER)
    sep_line = _SEP_LINE.match(text)
    if sep_line is not None:
        text = text[sep_line.end() :]
        delimiter = delimiter or sep_line[1]
    if not text.strip():
        raise DataError(f"Expected `{path}` to start with the names of its columns, got no line.")
    with reading(path, "a CSV file with a header"):
        found = {d: _first_record(path, text, d) for d in (delimiter or _DELIMITERS)}
    delimiter, header = max(found.items(), key=lambda one: len(one[1]))
    return CsvLayout(tuple(header), delimiter, codec, lines_above=int(sep_line is not None))


def _first_record(path: Path, text: str, delimiter: str) -> list[str]:
    """Return the cells of the first line that is not blank, which may be several lines in quotes.

    Raises:
        DataError: It has no end.
    """
    stream = io.StringIO(text, newline="")
    header = next((record for record in csv.reader(stream, delimiter=delimiter) if record), [])
    if len(text) == _LONGEST_HEADER and not stream.read(1):
        raise DataError(
            f"Expected the header of `{path}` to be shorter than {_LONGEST_HEADER} characters, got "
            "a longer line: its first line must be the header."
        )
    return header


def require_columns(path: Path, header: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuse columns that are not in the header, or in it twice.

    Raises:
        DataError: Naming the first of them, and the place of the nearest name that there is.
    """
    for name in wanted:
        places = [place for place, known in enumerate(header, start=1) if known == name]
        if len(places) > 1:
            raise DataError(
                f"Expected every column of `{path}` that is read to have a name of its own, got "
                f"one name in columns {places[0]} and {places[1]} (its first line must be the "
                "header)."
            )
        if not places:
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
