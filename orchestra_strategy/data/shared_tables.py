"""Tables of several parties brought to the same columns, by names of categories and by sums.

The first party gathers: it sees each party's names and sums, the others see the union of names,
means and deviations. How often a name occurs is never told. What leaves is in the manifest.
"""

import inspect
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestra_strategy import host
from orchestra_strategy.data.readers.csv_options import check_csv_options
from orchestra_strategy.data.readers.csv_survey import column_sums, names_in, squares, survey_csv
from orchestra_strategy.data.readers.csv_table import load_csv
from orchestra_strategy.data.readers.loading import check_options
from orchestra_strategy.errors import DataError, OrchestraError, ParameterError

__all__ = ["AGREE", "agree_on_tables", "as_one_party", "asks_to_agree", "check_paths"]

AGREE = "agree"
"""The value of the options ``categories`` and ``standardise`` that has the parties agree."""

_OPTIONS = ("categories", "standardise")
_READ_AS = ("delimiter", "decimal", "encoding")


def asks_to_agree(options: Mapping[str, Any]) -> bool:
    """Whether options of reading leave something for the parties to agree on."""
    return any(options.get(name) == AGREE for name in _OPTIONS)


def check_paths(paths: Mapping[Any, Any]) -> None:
    """Refuse what is no mapping from PYU to a path.

    Raises:
        DataError: Naming the device.
    """
    if not paths:
        raise DataError("Expected `paths` to have at least one device, got none.")
    for device, path in paths.items():
        if not isinstance(device, host.PYU):
            raise DataError(f"Expected the keys of `paths` to be PYUs, got {device!r}.")
        if not isinstance(path, (str, os.PathLike)):
            raise DataError(
                f"Expected the path of party `{device.party}` to be a string or a Path, got "
                f"{type(path).__name__}."
            )


def agree_on_tables(
    paths: Mapping[Any, str | os.PathLike[str]], *, timeout_s: float = 1800.0, **options: Any
) -> dict[str, Any]:
    """Let parties agree on the names of categories, and on mean and deviation of numbers.

    Columns that hold anything but numbers at any party are categories.

    Args:
        paths: PYU -> a CSV table, as that party sees it.
        timeout_s: The longest wait for all parties, in local mode.
        **options: Those of :func:`~.readers.csv_table.load_csv`, with ``columns``, and with
            ``"agree"`` for ``categories``, ``standardise`` or both.

    Returns:
        The options with what was agreed on in place of ``"agree"``, for every reading of such
        tables; :func:`~.readers.csv_options.one_hot_columns` takes its ``columns`` and
        ``categories``.

    Raises:
        DataError: A party's table cannot be read, or a column has too many names, or a party fewer
            than four rows; all parties' problems in one message.
        HostError: Some party is not ready in time.
        ParameterError: An option is unknown or out of its range.
    """
    check_paths(paths)
    check_options(options)
    columns = _checked_columns(options)
    gathering = _Gathering(list(paths), timeout_s)
    read_as = {name: options[name] for name in _READ_AS if name in options}
    surveys, kinds = gathering.ask(
        {d: (_survey, os.fspath(path), columns, read_as) for d, path in paths.items()}
    )
    agreed = dict(options)
    texts = [c for c in columns if any(c not in numbers for numbers in kinds)]
    if options.get("categories") == AGREE:
        found, _ = gathering.ask({d: (_names, surveys[d], texts) for d in paths})
        agreed["categories"] = gathering.combined(_union, found)
    if options.get("standardise") == AGREE:
        given = agreed.get("categories") or {}
        numeric = [c for c in columns if c not in given and c not in texts]
        agreed["standardise"] = _scales(gathering, surveys, numeric)
    return agreed


def as_one_party(path: str | os.PathLike[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of reading as if a party had agreed with itself: to try its own table.

    Args:
        path: A CSV table of this machine.
        options: As of :func:`agree_on_tables`; without ``"agree"`` they are returned as they are.

    Raises:
        DataError: The table cannot be read, has a column with too many names, or too few rows.
        ParameterError: An option is unknown or out of its range.
    """
    if not asks_to_agree(options):
        return dict(options)
    columns = _checked_columns(options)
    read_as = {name: options[name] for name in _READ_AS if name in options}
    survey = survey_csv(os.fspath(path), columns, **read_as)
    alone = dict(options)
    if options.get("categories") == AGREE:
        alone["categories"] = names_in(survey, [c for c in columns if c not in survey.numbers])
    if options.get("standardise") == AGREE:
        alone["standardise"] = "party"
    return alone


def _checked_columns(options: Mapping[str, Any]) -> list[str]:
    """Return the columns to agree on, after all options have been looked at."""
    known = inspect.signature(load_csv).parameters
    strange = [name for name in options if name not in known]
    if strange:
        raise ParameterError(f"Expected options of a CSV table with '{AGREE}', got `{strange[0]}`.")
    values = {n: p.default for n, p in known.items() if p.kind is p.KEYWORD_ONLY} | dict(options)
    categories = {} if values["categories"] == AGREE else dict(values["categories"] or {})
    standardise = "party" if values["standardise"] == AGREE else values["standardise"]
    names = ("columns", "label_column", "class_names", "delimiter", "decimal")
    first, second, third, *marks = (values[name] for name in names)
    check_csv_options(first, second, third, categories, standardise, *marks)
    if not values["columns"]:
        raise ParameterError(
            f"Expected `columns` to name those on which parties shall agree by '{AGREE}', got "
            f"{values['columns']!r}: the names in every other column would be seen, too."
        )
    return list(values["columns"])


class _Gathering:
    """Questions to all parties, whose answers the first of them combines.

    Args:
        devices: The parties.
        timeout_s: The longest wait for an answer.
    """

    def __init__(self, devices: list[Any], timeout_s: float) -> None:
        self.devices, self.timeout_s = devices, timeout_s

    def ask(self, calls: Mapping[Any, tuple[Any, ...]]) -> tuple[dict[Any, Any], list[list[str]]]:
        """Call a function of each party's own; its answer stays there.

        Returns:
            PYU -> the answer, and what each party tells of it: names of columns that were given.

        Raises:
            DataError: All parties' problems.
        """
        answers = {d: d(_guarded, num_returns=2)(*call) for d, call in calls.items()}
        reports = host.reveal_within(
            {d.party: report for d, (_, report) in answers.items()},
            self.timeout_s,
            "the tables of all parties to be read",
        )
        failed = {party: report["error"] for party, report in reports.items() if report["error"]}
        if failed:
            listed = "; ".join(f"party `{party}`: {error}" for party, error in failed.items())
            raise DataError(
                f"The tables of {len(failed)} of {len(reports)} parties cannot be agreed on: "
                f"{listed}."
            )
        told = [report["told"] for report in reports.values()]
        return {d: answer for d, (answer, _) in answers.items()}, told

    def combined(self, function: Callable[..., Any], answers: Mapping[Any, Any]) -> Any:
        """Return what the first party makes of all answers; nobody else sees them."""
        first = self.devices[0]
        return host.reveal(first(function)([answers[d].to(first) for d in self.devices]))


def _guarded(function: Callable[..., Any], *arguments: Any) -> tuple[Any, dict[str, Any]]:
    """Answer at a party; an error raised here would leave the others waiting in cluster mode."""
    try:
        answer, told = function(*arguments)
    except OrchestraError as error:
        return None, {"error": str(error).rstrip("."), "told": []}
    except Exception as error:  # its words are not ours, and may show a cell
        return None, {"error": type(error).__name__, "told": []}
    return answer, {"error": "", "told": told}


def _survey(path: str, columns: Sequence[str], read_as: Mapping[str, Any]) -> tuple[Any, list[str]]:
    survey = survey_csv(path, columns, **read_as)
    return survey, list(survey.numbers)


def _names(survey: Any, columns: Sequence[str]) -> tuple[Any, list[str]]:
    return names_in(survey, columns), []


def _sums(survey: Any, columns: Sequence[str]) -> tuple[Any, list[str]]:
    return column_sums(survey, columns), []


def _squares(survey: Any, means: Mapping[str, float]) -> tuple[Any, list[str]]:
    return squares(survey, means), []


def _scales(
    gathering: _Gathering, surveys: Mapping[Any, Any], columns: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """Return mean and deviation over all parties' rows, of a second pass for its precision."""
    sums, _ = gathering.ask({d: (_sums, survey, columns) for d, survey in surveys.items()})
    totals = gathering.combined(_totals, sums)
    means = {column: total / n for column, (n, total) in totals.items()}
    parts, _ = gathering.ask({d: (_squares, survey, means) for d, survey in surveys.items()})
    summed = gathering.combined(_added, parts)
    deviations = {c: math.sqrt(summed[c] / totals[c][0]) for c in columns}
    # Rounding gives a constant column a deviation above zero.
    return {c: (means[c], d if d > 1e-12 * abs(means[c]) else 1.0) for c, d in deviations.items()}


def _union(answers: Sequence[Mapping[str, Sequence[str]]]) -> dict[str, list[str]]:
    """Return every party's names, sorted, for each column."""
    return {c: sorted({name for names in answers for name in names[c]}) for c in answers[0]}


def _totals(answers: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, list[float]]:
    return {c: [math.fsum(a[c][i] for a in answers) for i in (0, 1)] for c in answers[0]}


def _added(answers: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {column: math.fsum(a[column] for a in answers) for column in answers[0]}
