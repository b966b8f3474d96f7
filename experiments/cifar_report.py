"""The experiment's report: accuracies beside controls, curves, maps and clusters, what left."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from orchestra_strategy.evaluation import (
    HtmlNote,
    HtmlPicture,
    HtmlRow,
    HtmlSection,
    HtmlTable,
    ProbeResult,
    plot_ranking,
    write_html,
)
from orchestra_strategy.evaluation.plots.comparison_plot import plot_comparison
from orchestra_strategy.runtime.report_tables import manifest_tables, settings_table

__all__ = ["spread", "summary_rows", "write_report"]

_PROBES = {
    "knn": "kNN %",
    "linear": "linear %",
    "sgd": "SGD probe %",
    "semi_supervised_0.01": "1 % labels",
    "semi_supervised_0.1": "10 % labels",
    "nmi": "NMI %",
    "ari": "ARI %",
    "accuracy": "cluster accuracy %",
}
_CONTROLS = ("untrained", "pixels")
_FIRST_OF_CLUSTERS = "NMI %"


def spread(values: Sequence[float], scale: float = 100.0) -> str:
    """Return the mean and, of several values, the standard deviation.

    >>> spread([0.25, 0.75]), spread([0.5]), spread([])
    ('50.0 ± 35.4', '50.0', '')
    """
    if not values:
        return ""
    text = f"{mean(values) * scale:.1f}"
    return text if len(values) == 1 else f"{text} ± {stdev(values) * scale:.1f}"


def _by_strategy(runs: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Return the runs of each strategy, the best by kNN first."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        groups.setdefault(str(run["strategy"]), []).append(run)
    best_first = sorted(groups.items(), key=lambda item: -mean(r["final"]["knn"] for r in item[1]))
    return dict(best_first)


def _values(run: Mapping[str, Any]) -> dict[str, float]:
    final = run["final"]
    return {**final, **final["clusters"]}


def summary_rows(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return headers and rows of the table: one row per strategy, best kNN first, then controls.

    Args:
        results: As in ``results.json``.
    """
    known = [k for k in _PROBES if any(k in _values(r) for r in results["runs"])]
    headers = ["", "seeds", *(_PROBES[k] for k in known), "images/s", "minutes"]
    rows = []
    for strategy, runs in _by_strategy(results["runs"]).items():
        speeds = [row["images_per_second"] for run in runs for row in run["ledger"]]
        cells = [spread([_values(r)[k] for r in runs if k in _values(r)]) for k in known]
        minutes = mean(run["seconds"] for run in runs) / 60
        speed = f"{median(speeds):.0f}"
        rows.append([strategy, str(len(runs)), *cells, speed, f"{minutes:.1f}"])
    for control in _CONTROLS:
        measured = [c[control] for c in results["controls"]]
        cells = [spread([m[k] for m in measured if k in m]) for k in known]
        rows.append([f"{control} (control)", str(len(measured)), *cells, "", ""])
    return headers, rows


def write_report(out: Path, results: Mapping[str, Any]) -> Path:
    """Write ``report.html`` into ``out``, with the pictures of ``out/pictures``.

    Args:
        out: Folder of the results.
        results: As in ``results.json``.

    Returns:
        The report's path.
    """
    setting = results["setting"]
    note = [HtmlNote(setting["note"])] if setting.get("note") else []
    strategies = _by_strategy(results["runs"])
    names = next((c["class_names"] for c in results["controls"] if c.get("class_names")), None)
    classes = [f"{len(names)} classes: {', '.join(names)}."] if names else []
    sections = [
        HtmlSection("Accuracy beside controls", [*note, *_accuracy(out, results), *classes]),
        HtmlSection("Maps of the test images", _maps(out, strategies)),
        _curves(out, results),
        HtmlSection("Clusters", _clusters(out, strategies, results)),
        *(_left(strategy, runs[0]) for strategy, runs in strategies.items() if runs[0]["manifest"]),
        HtmlSection("Settings", [settings_table({k: setting[k] for k in setting if k != "note"})]),
    ]
    path = out / "report.html"
    write_html(path, "Unsupervised federated learning on CIFAR", sections)
    return path


def _accuracy(out: Path, results: Mapping[str, Any]) -> list[Any]:
    """Return the chart, what it says, and the numbers."""
    chart: dict[str, dict[str, ProbeResult]] = {}
    for name, measured in _measured(results).items():
        chart[name] = {
            label.removesuffix(" %"): ProbeResult.from_values([m[key] for m in measured])
            for key, label in _PROBES.items()
            if key in ("knn", "linear", "sgd") and all(key in m for m in measured)
        }
    path = out / "pictures" / "accuracy.png"
    plot_ranking(chart, path)
    seeds = max(len(measured) for measured in _measured(results).values())
    bars = (
        f"Bars are means over {seeds} seeds, with their standard deviation."
        if seeds > 1
        else "Of one seed: there is nothing to take a deviation of."
    )
    caption = f"Accuracy on the test images, %. {bars} The dashed line is the better control."
    headers, rows = summary_rows(results)
    # Two tables, so that neither is wider than a page.
    cut = headers.index(_FIRST_OF_CLUSTERS) if _FIRST_OF_CLUSTERS in headers else len(headers) - 2
    return [
        HtmlPicture(path, caption),
        _verdict(results),
        HtmlTable(
            headers[:cut],
            [row[:cut] for row in rows],
            "Test set; mean ± standard deviation over the seeds",
        ),
    ]


def _measured(results: Mapping[str, Any]) -> dict[str, list[dict[str, float]]]:
    """Return what was measured of each strategy and control, by seed."""
    groups = _by_strategy(results["runs"])
    return {name: [_values(run) for run in runs] for name, runs in groups.items()} | {
        f"{name} (control)": [c[name] for c in results["controls"]] for name in _CONTROLS
    }


def _verdict(results: Mapping[str, Any]) -> str:
    groups = _by_strategy(results["runs"])
    knn = {name: mean(r["final"]["knn"] for r in runs) for name, runs in groups.items()}
    best_control = max(mean(c[n]["knn"] for c in results["controls"]) for n in _CONTROLS)
    unsupervised = {name: value for name, value in knn.items() if name != "supervised"}
    lines = []
    if unsupervised:
        best = max(unsupervised, key=lambda name: unsupervised[name])
        lines.append(f"Best without labels by kNN: {best}, {knn[best]:.1%}.")
    failed = [name for name, value in knn.items() if value <= best_control]
    if failed:
        lines.append(
            f"No better than the better control ({best_control:.1%}), so nothing is shown to be "
            f"learnt: {', '.join(failed)}."
        )
    return "\n".join(lines)


def _curves(out: Path, results: Mapping[str, Any]) -> HtmlSection:
    pictures = []
    for probe, name in (("knn", "kNN"), ("linear", "Linear probe")):
        series, spreads = {}, {}
        for strategy, runs in _by_strategy(results["runs"]).items():
            rounds = [row["round"] for row in runs[0]["curve"]]
            at = [[100 * run["curve"][i][probe] for run in runs] for i in range(len(rounds))]
            series[strategy] = (rounds, [mean(values) for values in at])
            if len(runs) > 1:
                spreads[strategy] = [stdev(values) for values in at]
        levels = {
            control: mean(c[control][probe] for c in results["controls"]) * 100
            for control in _CONTROLS
        }
        path = out / "pictures" / f"curve-{probe}.png"
        label = f"{name}, %"
        plot_comparison(series, levels, path, x_label="rounds", y_label=label, spreads=spreads)
        deviation = ", with their standard deviation" if spreads else ""
        pictures.append(
            HtmlPicture(path, f"{name} by round, means over seeds{deviation}; higher is better")
        )
    return HtmlSection("Accuracy over the rounds", pictures)


def _maps(out: Path, strategies: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Any]:
    """Return maps of all encoders and of the controls, side by side."""
    seed = next(iter(strategies.values()))[0]["seed"]
    told = (
        "t-SNE of the features of test images, coloured by class, which no training but the "
        "supervised one has seen. Sizes of groups, and distances between them, mean nothing."
    )
    pictures = _those(out, [(f"{n}-{seed}-map.png", n) for n in (*strategies, *_CONTROLS)])
    return [told, HtmlRow(pictures)] if pictures else ["No maps were drawn."]


def _clusters(
    out: Path,
    strategies: Mapping[str, Sequence[Mapping[str, Any]]],
    results: Mapping[str, Any],
) -> list[Any]:
    headers, rows = summary_rows(results)
    cut = headers.index(_FIRST_OF_CLUSTERS) if _FIRST_OF_CLUSTERS in headers else len(headers) - 2
    cells = [[row[0], *row[cut:]] for row in rows if not row[0].endswith("(control)")]
    blocks: list[Any] = [
        HtmlTable(["", *headers[cut:]], cells, "k-means on test features, and the cost of a run")
    ]
    for strategy, runs in strategies.items():
        given = f"{strategy}-{runs[0]['seed']}"
        captions = {
            "confusion": f"{strategy}: classes in the clusters; one dark cell in a column is best",
            "balance": f"{strategy}: sizes of the clusters; level bars are best",
            "losses": f"{strategy}: losses by round; lower is better, within one strategy",
        }
        pictures = _those(out, [(f"{given}-{k}.png", text) for k, text in captions.items()])
        blocks += [HtmlRow(pictures)] if pictures else []
    return blocks


def _those(out: Path, named: Sequence[tuple[str, str]]) -> list[HtmlPicture]:
    """Return the pictures that have been drawn."""
    files = [(out / "pictures" / name, caption) for name, caption in named]
    return [HtmlPicture(file, caption) for file, caption in files if file.is_file()]


def _left(strategy: str, run: Mapping[str, Any]) -> HtmlSection:
    return HtmlSection(f"What left each party: {strategy}", manifest_tables(run))
