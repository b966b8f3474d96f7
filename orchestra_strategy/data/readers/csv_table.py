"""Tables from CSV files: numeric columns scaled, categorical ones as one column per category."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestra_strategy.data.readers.csv_file import (
    column_name,
    read_columns,
    read_header,
    require_columns,
)
from orchestra_strategy.data.readers.csv_options import (
    Scales,
    check_csv_options,
    check_features,
    one_hot_columns,
)
from orchestra_strategy.data.readers.local_data import LocalData, encode_labels, samples_of
from orchestra_strategy.errors import DataError

__all__ = ["load_csv"]


def load_csv(
    path: str | Path,
    *,
    columns: Sequence[str] | None = None,
    label_column: str | None = None,
    class_names: Sequence[str] | None = None,
    categories: Mapping[str, Sequence[Any]] | None = None,
    standardise: str | Scales = "party",
    delimiter: str | None = None,
) -> LocalData:
    """Read a table with a header of up to 1 GiB. Rows are counted from 1 below it in messages.

    Parties must come to the same columns, so categories are given and never taken from a party's
    own rows.

    Args:
        path: ``.csv`` or ``.csv.gz``, in UTF-8.
        columns: The feature columns in order; None takes all but the label.
        label_column: The column of labels, whole numbers or names.
        class_names: All classes in the order of their numbers, where labels are names.
        categories: Column -> all its values, in order. Such a column becomes one of zeros and ones
            per value.
        standardise: ``"party"`` subtracts from every numeric column its mean over this party's rows
            and divides by its standard deviation: what sets the parties apart in level and width is
            lost. ``{column: (mean, standard deviation)}``, the same at all parties, keeps it.
            ``"none"`` leaves the numbers as they are.
        delimiter: Between cells; None tells comma, semicolon, tab and bar apart by the header.

    Returns:
        (N, F) float32 with feature names and the places of categories; labels where there is a
        label column.

    Raises:
        ParameterError: Options are out of range or contradict each other.
        DataError: The file is missing or broken, lacks a column, or has cells that are empty, no
            finite number, or no known category.
    """
    path, categories = Path(path), dict(categories or {})
    check_csv_options(columns, label_column, class_names, categories, standardise, delimiter)
    header, delimiter = read_header(path, delimiter)
    features = [c for c in header if c != label_column] if columns is None else list(columns)
    labelled = [] if label_column is None else [label_column]
    require_columns(path, header, [*features, *labelled, *categories])
    given = {*(columns or ()), *labelled, *categories}
    check_features(path, header, features, categories, standardise, given)
    texts = [c for c, values in categories.items() if all(isinstance(v, str) for v in values)]
    if class_names is not None:
        texts += labelled
    table = read_columns(path, header, delimiter, [*features, *labelled], texts, given)
    titles = {name: column_name(header, name, given) for name in features}
    samples, names = _encode(path, table, titles, categories, standardise)
    one_hot = one_hot_columns(features, categories)
    if label_column is None:
        return LocalData(samples, feature_names=names, one_hot=one_hot)
    what = f"column `{label_column}` of `{path}`"
    labels, classes = encode_labels(table[label_column].to_numpy(), class_names, what)
    return LocalData(samples, labels, classes, names, one_hot=one_hot)


def _encode(
    path: Path,
    table: Mapping[str, Any],
    titles: Mapping[str, str],
    categories: Mapping[str, Sequence[Any]],
    standardise: str | Scales,
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Return (N, F) numbers and F names; written column by column into one array.

    ``titles`` has, for each feature, how messages call it.
    """
    features = list(titles)
    _refuse_text(path, table, {n: t for n, t in titles.items() if n not in categories})
    widths = [len(categories.get(name, "1")) for name in features]
    samples = np.zeros((len(table[features[0]]), sum(widths)), np.float32)
    names: list[str] = []
    for name, width in zip(features, widths, strict=True):
        part = samples[:, len(names) : len(names) + width]
        if name in categories:
            codes = _codes(path, name, table[name], categories[name])
            part[np.arange(len(codes)), codes] = 1
            names += [f"{name}={value}" for value in categories[name]]
        else:
            part[:, 0] = _scaled(name, _numbers(path, titles[name], table[name]), standardise)
            names.append(name)
    return samples_of(samples, path, "the scaled table"), tuple(names)


def _codes(path: Path, name: str, column: Any, values: Sequence[Any]) -> NDArray[np.int64]:
    """Return each cell's position among the categories."""
    found = pd.Categorical(column, categories=list(values))
    codes: NDArray[np.int64] = found.codes.astype(np.int64)
    _refuse_rows(codes < 0, f"Expected column `{name}` of `{path}` to hold its `categories` alone")
    return codes


def _numbers(path: Path, title: str, column: Any) -> NDArray[np.float64]:
    """Return a column of finite numbers."""
    numbers: NDArray[np.float64] = pd.to_numeric(column).to_numpy(dtype=np.float64)
    _refuse_rows(~np.isfinite(numbers), f"Expected {title} of `{path}` to be finite")
    return numbers


def _refuse_text(path: Path, table: Mapping[str, Any], numeric: Mapping[str, str]) -> None:
    """Refuse all columns at once that hold text and have no categories."""
    marks = {name: pd.to_numeric(table[name], errors="coerce").isna() for name in numeric}
    texts = [name for name, marked in marks.items() if marked.any()]
    if texts:
        first = texts[0]
        bad = marks[first].to_numpy()
        raise DataError(
            f"Expected numbers in {', '.join(numeric[name] for name in texts)} of `{path}`, got "
            f"text (in {numeric[first]} in {int(bad.sum())} cells of {len(bad)}, the first in row "
            f"{int(bad.argmax()) + 1}): list the values by `categories={{name: [...]}}`, the same "
            "at all parties, or leave columns out by `columns`."
        )


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


def _refuse_rows(bad: NDArray[np.bool_], rule: str) -> None:
    if bad.any():
        raise DataError(
            f"{rule}, got {int(bad.sum())} cells of {len(bad)} that do not, the first in row "
            f"{int(bad.argmax()) + 1}: mend or remove these rows."
        )
