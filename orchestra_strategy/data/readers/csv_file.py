"""The cells of a CSV file, column by column, none of them missing."""

import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestra_strategy.data.readers.csv_encoding import decoding
from orchestra_strategy.data.readers.csv_layout import CsvLayout, column_name
from orchestra_strategy.data.readers.local_data import reading
from orchestra_strategy.errors import DataError

__all__ = ["NO_NUMBER", "Cells", "read_columns"]

_UNEQUAL = re.compile(r"Expected \d+ fields in line \d+, saw \d+")
# Pandas's own, which stand for a missing number; in a column of names they are names.
NO_NUMBER = ["", "#N/A", "N/A", "n/a", "#NA", "NA", "<NA>", "NULL", "null", "NaN", "nan"]
NO_NUMBER += ["-NaN", "-nan", "#N/A N/A", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"]


class Cells(NamedTuple):
    """Columns of a file.

    Attributes:
        columns: Name -> pandas Series without a missing value.
        rows: (N,) the number of each row below the header, from 1.
        empty_rows: How many rows had no cell at all and are left out.
    """

    columns: Mapping[str, Any]
    rows: NDArray[np.int64]
    empty_rows: int


def read_columns(
    path: Path,
    layout: CsvLayout,
    wanted: Sequence[str],
    names_of: Mapping[str, Collection[str]],
    given: Collection[str],
    decimal: str = ".",
) -> Cells:
    """Read some columns.

    Args:
        path: The file.
        layout: How it is divided.
        wanted: The columns to read, each in the header once.
        names_of: Column -> the names that may be in it: it is left as text although it may look
            like numbers, and NA may be one of its names.
        given: Those whose names the user has given.
        decimal: The mark before the fraction of a number.

    Raises:
        DataError: The file is broken, has no rows, or an empty cell; column and row are named.
    """
    table = _read(path, layout, names_of, decimal)
    if len(table) == 0:
        raise DataError(f"Expected `{path}` to have at least one row below its header, got none.")
    rows = np.arange(1, len(table) + 1)
    empty = table.isna().to_numpy().all(axis=1)
    if empty.any() and not empty.all():  # as spreadsheets leave them at the end
        table, rows = table[~empty], rows[~empty]
    columns = {name: table[layout.header.index(name)] for name in wanted}
    for name, column in columns.items():
        missing = column.isna().to_numpy()
        if missing.any():
            title = column_name(layout.header, name, given)
            raise DataError(
                f"Expected {title} of `{path}` to have no empty or NaN cell, got "
                f"{int(missing.sum())} of {len(missing)}, the first in row {rows[missing][0]}: "
                "fill or remove these rows, leave the column out by `columns`, or if NA is a name "
                "there, list all names by `categories` (of labels, by `class_names`)."
            )
    return Cells(columns, rows, int(empty.sum()) if len(rows) < len(empty) else 0)


def _read(
    path: Path, layout: CsvLayout, names_of: Mapping[str, Collection[str]], decimal: str
) -> Any:
    """Return all columns, by their place in the header: names may be there twice."""
    places = {layout.header.index(name): names for name, names in names_of.items()}
    no_cell = {
        place: ([] if "" in places[place] else [""]) if place in places else NO_NUMBER
        for place in range(len(layout.header))
    }
    with reading(path, "a CSV table"), decoding(path, layout.encoding), warnings.catch_warnings():
        # pandas refuses a row with more cells than the header, or cuts it with a warning. With
        # `usecols` it would cut in silence, so all columns are read.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            return pd.read_csv(
                path,
                sep=layout.delimiter,
                skiprows=layout.lines_above,
                header=0,
                names=range(len(layout.header)),
                index_col=False,
                dtype=dict.fromkeys(places, str),
                na_values=no_cell,
                keep_default_na=False,
                decimal=decimal,
                encoding=layout.encoding,
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
