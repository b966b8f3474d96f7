"""The kind of a column, such as dates or ids, for the sentence that refuses it or warns of it.

Values are looked at by their form alone, and none is ever repeated.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LONG_NUMBER", "kind_of_numbers", "kind_of_text"]

LONG_NUMBER = r"\s*[+-]?\d{16,}\s*"
"""A whole number that float64 cannot hold: the number of an account, not a measure."""

_DAY = r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2}))"
_FORMS = {
    "dates": _DAY + r"([T ].*)?",
    "times": r"\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?",
    "ids of more than 15 digits": LONG_NUMBER,
    "numbers with a decimal comma: give `decimal=','`": r"\s*[+-]?(\d{1,3}([. ]\d{3})*|\d*),\d+\s*",
    "numbers with a mark at the thousands": r"\s*[+-]?\d{1,3}([ .,']\d{3})+([.,]\d+)?\s*",
    "numbers with a unit": r"\s*[$€£¥]?\s*[+-]?\d+([.,]\d+)?\s*[%$€£¥]?\s*",
}
_LOOKED_AT = 10_000  # cells
_FEWEST_TEXTS, _FEWEST_NUMBERS = 20, 100  # from which on it says something that all differ


def kind_of_text(cells: Any) -> str:
    """Return what cells that are no numbers seem to be, or nothing.

    Args:
        cells: A pandas Series of those cells alone, as text.

    >>> import pandas as pd
    >>> kind_of_text(pd.Series(["2004-03-10", "2004-03-11"])), kind_of_text(pd.Series(["7 %"]))
    ('dates', 'numbers with a unit')
    """
    looked_at = cells.iloc[:_LOOKED_AT].astype(str)
    for kind, form in _FORMS.items():
        if looked_at.str.fullmatch(form).all():
            return kind
    return "ids, no two alike" if len(cells) >= _FEWEST_TEXTS and cells.is_unique else ""


def kind_of_numbers(values: NDArray[np.float64]) -> str:
    """Return what numbers seem to be that are no measure, or nothing.

    >>> kind_of_numbers(np.arange(100.0)), kind_of_numbers(np.full(100, 20040310.0))
    ('the numbers of the rows', 'dates (yyyymmdd)')
    """
    if len(values) < _FEWEST_NUMBERS or not (values == np.round(values)).all():
        return ""
    low, high = values.min(), values.max()
    if low >= 19_000_101 and high <= 21_001_231:
        month, day = values // 100 % 100, values % 100
        if ((month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)).all():
            return "dates (yyyymmdd)"
    if len(np.unique(values)) < len(values):
        return ""
    if high - low == len(values) - 1:
        return "the numbers of the rows"
    return "ids" if low >= 10_000 else ""
