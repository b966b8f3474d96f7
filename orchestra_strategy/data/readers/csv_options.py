"""The options of a CSV table, checked before a file is opened."""

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestra_strategy.data.readers.csv_layout import column_name
from orchestra_strategy.errors import DataError, ParameterError

__all__ = ["Scales", "check_csv_options", "check_features", "one_hot_columns"]

Scales = Mapping[str, tuple[float, float]]
"""Column -> mean and standard deviation."""


def check_csv_options(
    columns: Any,
    label_column: Any,
    class_names: Any,
    categories: Any,
    standardise: Any,
    delimiter: Any,
    decimal: Any,
) -> None:
    """Refuse options of ``load_csv`` before a file is opened.

    Raises:
        ParameterError: Naming the first bad option.
    """
    if columns is not None and (isinstance(columns, str) or len(set(columns)) != len(columns)):
        raise ParameterError(
            f"Expected `columns` to be a list of different names, got {columns!r}."
        )
    if columns is not None and label_column in columns:
        raise ParameterError(
            f"Expected `label_column` not to be in `columns`, got {label_column!r}."
        )
    if class_names is not None and label_column is None:
        raise ParameterError("Expected `class_names` with a `label_column`, got none.")
    if delimiter is not None and (not isinstance(delimiter, str) or len(delimiter) != 1):
        raise ParameterError(f"Expected `delimiter` to be one character, got {delimiter!r}.")
    if decimal not in (".", ","):
        raise ParameterError(f"Expected `decimal` to be '.' or ',', got {decimal!r}.")
    if decimal == delimiter:
        raise ParameterError(
            f"Expected `decimal` to be another mark than `delimiter`, got {decimal!r} for both."
        )
    if isinstance(categories, str) or standardise == "agree":
        raise ParameterError(
            "Expected `categories` to be {column: [...]} and `standardise` to be known where one "
            "party reads its table; 'agree' is for several, in `fed_from_paths`, the trainer's "
            "`data_options`, or `agree_on_tables`."
        )
    for name, values in categories.items():
        if isinstance(values, str) or not values or len(set(values)) != len(values):
            raise ParameterError(
                f"Expected `categories` of `{name}` to be a list of different values, got "
                f"{values!r}."
            )
        if 0 < sum(isinstance(value, str) for value in values) < len(values):
            raise ParameterError(
                f"Expected `categories` of `{name}` to be all texts or all numbers, got {values!r}."
            )
    if isinstance(standardise, Mapping):
        for name, scale in standardise.items():
            _check_scale(name, scale)
    elif standardise not in ("party", "none"):
        raise ParameterError(
            "Expected `standardise` to be 'party', 'none' or {column: (mean, standard deviation)}, "
            f"got {standardise!r}."
        )


def _check_scale(name: str, scale: Any) -> None:
    numbers = isinstance(scale, (tuple, list)) and len(scale) == 2
    if not (numbers and all(math.isfinite(value) for value in scale) and scale[1] > 0):
        raise ParameterError(
            f"Expected `standardise` of `{name}` to be (mean, standard deviation above 0), got "
            f"{scale!r}."
        )


def check_features(
    path: Path,
    header: Sequence[str],
    features: Sequence[str],
    categories: Mapping[str, Any],
    standardise: str | Scales,
    given: Collection[str],
) -> None:
    """Refuse options that do not fit the features of this file.

    Raises:
        DataError: There are no features, or one without a name, or a category is of none.
        ParameterError: Naming the option and the column.
    """
    if not features:
        raise DataError(f"Expected `{path}` to have at least one feature column, got none.")
    if "" in features:
        raise DataError(
            f"Expected every column of `{path}` to have a name, got none in column "
            f"{header.index('') + 1}: if it is a row index, leave it out by `columns`."
        )
    strange = [name for name in categories if name not in features]
    if strange:
        raise ParameterError(
            f"Expected `categories` of feature columns, got `{strange[0]}`, which is none."
        )
    if isinstance(standardise, Mapping):
        for name in features:
            if name not in categories and name not in standardise:
                raise ParameterError(
                    "Expected `standardise` to have every numeric column, got none for "
                    f"{column_name(header, name, given)} of `{path}`."
                )


def one_hot_columns(
    columns: Sequence[str], categories: Mapping[str, Sequence[Any]]
) -> tuple[tuple[int, ...], ...]:
    """Return where a table's categories are, for ``one_hot`` of views ``table``.

    Args:
        columns: The feature columns in order, as for
            :func:`~orchestra_strategy.data.readers.csv_table.load_csv`.
        categories: Column -> all its values.

    Returns:
        For each column with categories, the numbers of the columns of zeros and ones made of it.

    >>> one_hot_columns(["age", "colour"], {"colour": ["red", "green"]})
    ((1, 2),)
    """
    groups: list[tuple[int, ...]] = []
    first = 0
    for name in columns:
        width = len(categories.get(name, (name,)))
        if name in categories:
            groups.append(tuple(range(first, first + width)))
        first += width
    return tuple(groups)
