"""The outcome of an evaluation: a table for people and a JSON file for programs."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from orchestra_strategy.errors import ParameterError
from orchestra_strategy.evaluation.protocol import CONTROLS, MEASURES, ProbeResult
from orchestra_strategy.files import PathLike, write_private

__all__ = ["measures_of", "results_table", "results_to_json", "write_json"]

Results = Mapping[str, Mapping[str, ProbeResult]]
_HEADERS = {"1": "1 label\nper class", "all": "all\nlabels", "knn": "kNN"}


def results_table(results: Results, title: str | None = None, measure: str = "accuracy") -> Table:
    """Lay out the results of the protocol: methods above, the controls they must beat below.

    Args:
        results: What :func:`~orchestra_strategy.evaluation.protocol.probe_protocol` returned.
        title: Above the table; None names the measure.
        measure: ``"accuracy"``, or of two classes ``"auc"`` or ``"ap"``: one to a table, which
            would be too wide with all three.

    Returns:
        A rich table. A method's cell is bold if its mean is above both controls', and marked with
        ``!`` otherwise, so that the mark is also there without colours.
        Above is not yet better: on digits an untrained network of another seed was 1 to 2 points
        above both in some columns, so ask for more than that.

    Raises:
        ParameterError: No results, feature sets that were measured by different probes, or none of
            this measure.

    >>> score = {"knn": ProbeResult.from_values([0.5])}
    >>> results_table({"orchestra": score, "pixels": score}).row_count
    2
    """
    probes = [p for p in _common_probes(results) if (p.partition(" ")[2] or "accuracy") == measure]
    if not probes:
        raise ParameterError(
            f"Expected `measure` to be one that was taken, got {measure!r}; AUC and average "
            "precision are those of two classes."
        )
    controls = [name for name in CONTROLS if name in results]
    methods = [name for name in results if name not in controls]
    best = {p: max((results[c][p].mean for c in controls), default=-1.0) for p in probes}
    title = title or f"{MEASURES[measure]} on the test set, %"
    table = Table(title=title, title_style="bold", title_justify="left")
    table.add_column("features", vertical="bottom", no_wrap=True)
    for probe in probes:
        table.add_column(_header(probe), justify="right", vertical="bottom", no_wrap=True)
    behind = False
    for name in methods:
        beaten = [results[name][p].mean > best[p] for p in probes]
        behind = behind or not all(beaten)
        cells = [_cell(results[name][p], won) for p, won in zip(probes, beaten, strict=True)]
        table.add_row(name, *cells, end_section=name == methods[-1])
    for name in controls:
        table.add_row(name, *(results[name][p].percent() for p in probes), style="dim")
    notes = ["mean ± standard deviation over the label draws"]
    if behind:
        notes.append("! not above both controls: nothing learnt that they lack")
    table.caption = "\n".join(notes)
    table.caption_justify = "left"
    return table


def measures_of(results: Results) -> list[str]:
    """Return what was measured, for ``measure`` of :func:`results_table`.

    >>> score = ProbeResult.from_values([0.5])
    >>> measures_of({"pixels": {"knn": score, "knn auc": score, "knn ap": score}})
    ['accuracy', 'auc', 'ap']
    """
    kinds = {probe.partition(" ")[2] or "accuracy" for probe in _common_probes(results)}
    return [measure for measure in MEASURES if measure in kinds]


def _header(probe: str) -> str:
    labels = probe.partition(" ")[0]
    few = f"{labels} of\nlabels" if labels.endswith("%") else f"{labels} labels\nper class"
    return _HEADERS.get(labels, few)


def _common_probes(results: Results) -> Sequence[str]:
    """Return the probes' keys in order, if every feature set has the same."""
    if not results:
        raise ParameterError("Expected `results` to have at least one feature set, got none.")
    first, *others = results
    for name in others:
        if set(results[name]) != set(results[first]):
            raise ParameterError(
                "Expected all of `results` to have the same probes, got "
                f"{sorted(results[first])} for {first!r} and {sorted(results[name])} for {name!r}."
            )
    return list(results[first])


def _cell(result: ProbeResult, won: bool) -> Text:
    percent = result.percent()
    return Text(percent, "bold green") if won else Text(f"! {percent}", "red")


def results_to_json(results: Results) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the results as plain dicts, lists and floats.

    >>> results_to_json({"pixels": {"knn": ProbeResult.from_values([0.5])}})
    {'pixels': {'knn': {'mean': 0.5, 'std': 0.0, 'values': [0.5]}}}
    """
    return {
        name: {
            probe: {"mean": r.mean, "std": r.std, "values": list(r.values)}
            for probe, r in by_probe.items()
        }
        for name, by_probe in results.items()
    }


def write_json(path: PathLike, obj: object) -> None:
    """Write ``obj`` as JSON so that ``path`` holds the old file or the new one, never a part.

    Args:
        path: The file; missing folders are made.
        obj: Dicts, lists, strings, finite numbers, booleans and None.

    Raises:
        ParameterError: ``obj`` has something that JSON cannot express; ``path`` is not touched.
        OSError: The file cannot be written; ``path`` is not touched.
    """
    try:
        # NaN is not JSON: most readers other than Python's refuse the whole file because of it.
        text = json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ParameterError(
            f"Expected `obj` to be plain dicts, lists and finite numbers, got {error}."
        ) from error
    write_private(path, (text + "\n").encode("utf-8"))
