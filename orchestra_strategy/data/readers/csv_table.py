"""Tables from CSV files: numeric columns scaled, categorical ones as one column per category."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestra_strategy.data.readers.csv_file import Cells, read_columns
from orchestra_strategy.data.readers.csv_kinds import LONG_NUMBER, kind_of_numbers, kind_of_text
from orchestra_strategy.data.readers.csv_layout import column_name, read_layout, require_columns
from orchestra_strategy.data.readers.csv_options import (
    Scales,
    check_csv_options,
    check_features,
    one_hot_columns,
)
from orchestra_strategy.data.readers.local_data import LocalData, encode_labels, samples_of
from orchestra_strategy.errors import DataError

__all__ = ["load_csv"]

_log = logging.getLogger(__name__)


def load_csv(
    path: str | Path,
    *,
    columns: Sequence[str] | None = None,
    label_column: str | None = None,
    class_names: Sequence[str] | None = None,
    categories: Mapping[str, Sequence[Any]] | None = None,
    standardise: str | Scales = "party",
    delimiter: str | None = None,
    decimal: str = ".",
    encoding: str | None = None,
) -> LocalData:
    """Read a table with a header of up to 1 GiB. Rows are counted from 1 below it in messages.

    Parties must come to the same columns, so categories are given and never taken from a party's
    own rows. Rows without a single cell are passed over.

    Args:
        path: ``.csv`` or ``.csv.gz``.
        columns: The feature columns in order; None takes all but the label.
        label_column: The column of labels, whole numbers or names.
        class_names: All classes in the order of their numbers, where labels are names.
        categories: Column -> all its values, in order. Such a column becomes one of zeros and ones
            per value. Where they are texts, NA, null and the like are names as others are.
        standardise: ``"party"`` subtracts from every numeric column its mean over this party's rows
            and divides by its standard deviation: what sets the parties apart in level and width is
            lost. ``{column: (mean, standard deviation)}``, the same at all parties, keeps it.
            ``"none"`` leaves the numbers as they are.
        delimiter: Between cells; None tells comma, semicolon, tab and bar apart by the header, or
            takes that of a line ``sep=;`` above it.
        decimal: The mark before the fraction of a number, ``"."`` or ``","``.
        encoding: Of the text, by Python's name; None is UTF-8, with or without a mark.

    Returns:
        (N, F) float32 with feature names and the places of categories; labels where there is a
        label column; in ``notes`` and in the log, columns that look like ids or dates.

    Raises:
        ParameterError: Options are out of range or contradict each other.
        DataError: The file is missing or broken, lacks a column, or has cells that are empty, no
            finite number, or no known category.
    """
    path, categories = Path(path), categories or {}
    check_csv_options(
        columns, label_column, class_names, categories, standardise, delimiter, decimal
    )
    layout = read_layout(path, delimiter, encoding)
    header = layout.header
    features = [c for c in header if c != label_column] if columns is None else list(columns)
    labelled = [] if label_column is None else [label_column]
    given = {*(columns or ()), *labelled, *categories}
    require_columns(path, header, [*(columns or ()), *labelled, *categories])
    check_features(path, header, features, categories, standardise, given)
    require_columns(path, header, features)
    names_of = {c: values for c, values in categories.items() if isinstance(values[0], str)}
    if label_column is not None and class_names is not None:
        names_of[label_column] = class_names
    cells = read_columns(path, layout, [*features, *labelled], names_of, given, decimal)
    table = _Table(path, cells, {name: column_name(header, name, given) for name in features})
    samples, names = table.encoded(categories, standardise)
    for note in table.notes:
        _log.warning("In `%s`: %s.", path, note)
    one_hot = one_hot_columns(features, categories)
    labels, classes = None, None
    if label_column is not None:
        what = f"column `{label_column}` of `{path}`"
        labels, classes = encode_labels(cells.columns[label_column].to_numpy(), class_names, what)
    return LocalData(samples, labels, classes, names, one_hot=one_hot, notes=tuple(table.notes))


class _Table:
    """The cells of a file, on their way to numbers.

    Args:
        path: The file.
        cells: Its columns.
        titles: For each feature in order, how messages call it.
    """

    def __init__(self, path: Path, cells: Cells, titles: Mapping[str, str]) -> None:
        self.path, self.titles = path, titles
        self.columns, self.rows = cells.columns, cells.rows
        self.notes: list[str] = []
        if cells.empty_rows:
            self.notes.append(f"passed over {cells.empty_rows} rows without a cell")

    def encoded(
        self, categories: Mapping[str, Sequence[Any]], standardise: str | Scales
    ) -> tuple[NDArray[np.float32], tuple[str, ...]]:
        """Return (N, F) numbers and F names; written column by column into one array."""
        self._refuse_text([name for name in self.titles if name not in categories])
        widths = [len(categories.get(name, "1")) for name in self.titles]
        samples = np.zeros((len(self.rows), sum(widths)), np.float32)
        names: list[str] = []
        for name, width in zip(self.titles, widths, strict=True):
            part = samples[:, len(names) : len(names) + width]
            if name in categories:
                codes = self._codes(name, categories[name])
                part[np.arange(len(codes)), codes] = 1
                names += [f"{name}={value}" for value in categories[name]]
            else:
                part[:, 0] = _scaled(name, self._numbers(name), standardise)
                names.append(name)
        return samples_of(samples, self.path, "the scaled table"), tuple(names)

    def _codes(self, name: str, values: Sequence[Any]) -> NDArray[np.int64]:
        """Return each cell's position among the categories."""
        found = pd.Categorical(self.columns[name], categories=list(values))
        codes: NDArray[np.int64] = found.codes.astype(np.int64)
        rule = f"Expected column `{name}` of `{self.path}` to hold its `categories` alone"
        self._refuse_rows(codes < 0, rule)
        return codes

    def _numbers(self, name: str) -> NDArray[np.float64]:
        """Return a column of finite numbers."""
        numbers: NDArray[np.float64] = pd.to_numeric(self.columns[name]).to_numpy(np.float64)
        title = self.titles[name]
        self._refuse_rows(~np.isfinite(numbers), f"Expected {title} of `{self.path}` to be finite")
        kind = kind_of_numbers(numbers)
        if kind:
            self.notes.append(f"{title} looks like {kind}: leave it out by `columns`")
        return numbers

    def _refuse_text(self, numeric: Sequence[str]) -> None:
        """Refuse all columns at once that hold text and have no categories."""
        marks = {name: _no_numbers(self.columns[name]) for name in numeric}
        texts = {
            name: kind_of_text(self.columns[name][marked])
            for name, marked in marks.items()
            if marked.any()
        }
        if not texts:
            return
        first = next(iter(texts))
        bad = marks[first]
        listed = ", ".join(
            self.titles[name] + (f" (looks like {kind})" if kind else "")
            for name, kind in texts.items()
        )
        raise DataError(
            f"Expected numbers in {listed} of `{self.path}`, got text (in {self.titles[first]} in "
            f"{int(bad.sum())} cells of {len(bad)}, the first in row {self.rows[bad][0]}): list "
            "the values by `categories={name: [...]}`, the same at all parties, let several "
            "parties agree on them (`categories='agree'`), or leave columns out by `columns`."
        )

    def _refuse_rows(self, bad: NDArray[np.bool_], rule: str) -> None:
        if bad.any():
            raise DataError(
                f"{rule}, got {int(bad.sum())} cells of {len(bad)} that do not, the first in row "
                f"{self.rows[bad][0]}: mend or remove these rows."
            )


def _no_numbers(column: Any) -> NDArray[np.bool_]:
    """Return which cells of a column are no numbers that float64 can hold."""
    if column.dtype.kind in "iu":
        long: NDArray[np.bool_] = ((column >= 10**15) | (column <= -(10**15))).to_numpy()
        return long
    if column.dtype != object:
        return np.zeros(len(column), bool)
    texts = column.astype(str)
    bad = pd.to_numeric(texts, errors="coerce").isna() | texts.str.fullmatch(LONG_NUMBER)
    marked: NDArray[np.bool_] = bad.to_numpy()
    return marked


def _scaled(name: str, numbers: NDArray[np.float64], standardise: str | Scales) -> Any:
    if standardise == "none":
        return numbers
    if isinstance(standardise, Mapping):
        mean, deviation = standardise[name]
    else:
        mean, deviation = numbers.mean(), numbers.std()
        # Compared as they are: rounding gives a constant column a deviation above zero.
        if numbers.min() == numbers.max():
            mean, deviation = numbers[0], 1.0
    return (numbers - mean) / deviation
