"""The experiment's report: a table beside controls and baselines, curves, maps, clusters."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from orchestra_strategy.evaluation import HtmlPicture, HtmlSection, HtmlTable, write_html
from orchestra_strategy.evaluation.plots.comparison_plot import plot_comparison

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


def spread(values: Sequence[float], scale: float = 100.0) -> str:
    """Return the mean and, of several values, the standard deviation.

    >>> spread([0.25, 0.75]), spread([0.5]), spread([])
    ('50.0 ± 35.4', '50.0', '')
    """
    if not values:
        return ""
    text = f"{mean(values) * scale:.1f}"
    return text if len(values) == 1 else f"{text} ± {stdev(values) * scale:.1f}"


def _by_strategy(runs: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        groups.setdefault(str(run["strategy"]), []).append(run)
    return groups


def _values(run: Mapping[str, Any]) -> dict[str, float]:
    final = run["final"]
    return {**final, **final["clusters"]}


def summary_rows(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return headers and rows of the table: one row per strategy, best kNN first, then controls.

    Args:
        results: As in ``results.json``.
    """
    groups = _by_strategy(results["runs"])
    known = [k for k in _PROBES if any(k in _values(r) for r in results["runs"])]
    headers = ["", "seeds", *(_PROBES[k] for k in known), "images/s", "minutes"]
    rows = []
    for strategy, runs in sorted(
        groups.items(), key=lambda item: -mean(r["final"]["knn"] for r in item[1])
    ):
        speeds = [row["images_per_second"] for run in runs for row in run["ledger"]]
        cells = [spread([_values(r)[k] for r in runs if k in _values(r)]) for k in known]
        minutes = mean(run["seconds"] for run in runs) / 60
        speed = f"{median(speeds):.0f}"
        rows.append([strategy, str(len(runs)), *cells, speed, f"{minutes:.1f}"])
    for control in ("untrained", "pixels"):
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
    headers, rows = summary_rows(results)
    sections = [
        HtmlSection(
            "Results",
            [
                _verdict(results),
                HtmlTable(headers, rows, "Test set; mean ± standard deviation over the seeds"),
            ],
        ),
        _curves(out, results),
        *(
            _pictures(out, strategy, runs)
            for strategy, runs in _by_strategy(results["runs"]).items()
        ),
        _setting(results["setting"]),
    ]
    path = out / "report.html"
    write_html(path, "Unsupervised federated learning on CIFAR", sections)
    return path


def _verdict(results: Mapping[str, Any]) -> str:
    groups = _by_strategy(results["runs"])
    knn = {name: mean(r["final"]["knn"] for r in runs) for name, runs in groups.items()}
    best_control = max(
        mean(c[n]["knn"] for c in results["controls"]) for n in ("untrained", "pixels")
    )
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
        series = {}
        for strategy, runs in _by_strategy(results["runs"]).items():
            rounds = [row["round"] for row in runs[0]["curve"]]
            series[strategy] = (
                rounds,
                [mean(run["curve"][i][probe] for run in runs) * 100 for i in range(len(rounds))],
            )
        levels = {
            control: mean(c[control][probe] for c in results["controls"]) * 100
            for control in ("untrained", "pixels")
        }
        path = out / "pictures" / f"curve-{probe}.png"
        plot_comparison(series, levels, path, x_label="rounds", y_label=f"{name}, %")
        pictures.append(HtmlPicture(path, f"{name} accuracy by round, mean over seeds"))
    return HtmlSection("Accuracy over the rounds", pictures)


def _pictures(out: Path, strategy: str, runs: Sequence[Mapping[str, Any]]) -> HtmlSection:
    seed = runs[0]["seed"]
    captions = {
        "map": "t-SNE of test features, coloured by class",
        "confusion": "Classes in k-means clusters of the test features",
        "balance": "Sizes of those clusters",
        "losses": "Losses by round",
    }
    files = {k: out / "pictures" / f"{strategy}-{seed}-{k}.png" for k in captions}
    blocks: list[Any] = [HtmlPicture(f, captions[k]) for k, f in files.items() if f.is_file()]
    manifest = runs[0]["manifest"]
    if manifest:
        columns = [c for c in ("name", "shape", "dtype", "bytes", "when") if c in manifest[0]]
        table = [[str(entry[c]) for c in columns] for entry in manifest]
        blocks.append(HtmlTable(columns, table, "All that leaves a party"))
    return HtmlSection(f"{strategy}, seed {seed}", blocks)


def _setting(setting: Mapping[str, Any]) -> HtmlSection:
    rows = [[name, str(value)] for name, value in setting.items()]
    return HtmlSection("Setting", [HtmlTable(["field", "value"], rows)])
