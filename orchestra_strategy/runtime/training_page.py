"""The HTML report of a training: accuracy, maps, curves, clusters, what left, cost, settings."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestra_strategy.evaluation import (
    HtmlPicture,
    HtmlRow,
    HtmlSection,
    ProbeResult,
    cluster_features,
    plot_cluster_balance,
    plot_cluster_confusion,
    plot_embedding_map,
    plot_few_labels,
    plot_learning_curve,
    results_html_table,
    write_html,
)
from orchestra_strategy.evaluation.array_checks import Array, as_numpy
from orchestra_strategy.evaluation.protocol import CONTROLS
from orchestra_strategy.files import PathLike
from orchestra_strategy.runtime.report_tables import (
    UNIFORMITY,
    curve_caption,
    curves_table,
    manifest_tables,
    rounds_table,
    settings_table,
)

__all__ = ["Measured", "write_training_report"]


@dataclass(frozen=True)
class Measured:
    """What labels of one's own say of an encoder.

    Attributes:
        probes: What ``FederatedOrchestraTrainer.evaluate`` returned.
        features: Name of a feature set -> test features (n, d), those of the encoder first.
        labels: Class of each test sample, shape (n,).
        class_names: By class; None for their numbers.
        seed: Of maps and clusters.
    """

    probes: Mapping[str, Mapping[str, ProbeResult]]
    features: Mapping[str, Array]
    labels: Array
    class_names: Sequence[str] | None = None
    seed: int = 0


def write_training_report(
    path: PathLike, title: str, results: Mapping[str, Any], measured: Measured | None = None
) -> None:
    """Write what came of a training as one self-contained HTML file.

    Args:
        path: The file; missing folders are made.
        title: Of the page.
        results: Those of a training, as ``results.json`` has them.
        measured: What labels say, where there are some.

    Raises:
        DataError: Features and labels do not match, or are too few to draw.
        OSError: The file cannot be written.
    """
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder)
        sections = [HtmlSection("In short", _in_short(results))]
        if measured is not None:
            sections = [
                HtmlSection(
                    "Accuracy with few labels",
                    [*_accuracy(measured, pictures), *sections[0].blocks],
                ),
                HtmlSection("Maps of the test samples", _maps(measured, pictures)),
            ]
        sections.append(HtmlSection("Curves", _curves(results["history"], pictures)))
        if measured is not None:
            sections.append(HtmlSection("Clusters", _clusters(measured, pictures)))
        sections += [
            HtmlSection("What left each party", manifest_tables(results)),
            HtmlSection("Cost", [rounds_table(results["ledger"])]),
        ]
        if results.get("settings"):
            sections.append(HtmlSection("Settings", [settings_table(results["settings"])]))
        write_html(path, title, sections)


def _in_short(results: Mapping[str, Any]) -> list[Any]:
    told = [f"{results['rounds']} rounds in {results['seconds']:.0f} s."]
    if results.get("epsilon") is not None:
        told.append(
            f"Differential privacy: epsilon {results['epsilon']:.4g} at delta "
            f"{results['delta']:g}, the largest of the parties."
        )
    if results.get("epsilon_assumes"):
        told.append(f"Its noise is shared: epsilon holds while {results['epsilon_assumes']}.")
    if results.get("stop_reason"):
        told.append(results["stop_reason"])
    return told


def _accuracy(measured: Measured, folder: Path) -> list[Any]:
    methods = [name for name in measured.probes if name not in CONTROLS]
    caption = (
        f"Linear probes on 1 label per class and more, and kNN: {', '.join(methods)} beside the "
        "untrained network and the raw input. Bars are means over draws of the labels, with their "
        "standard deviation. What is not above both controls has taught the encoder nothing."
    )
    path = folder / "accuracy.png"
    picture = _drawn(lambda: plot_few_labels(measured.probes, path), [HtmlPicture(path, caption)])
    return [*picture, results_html_table(measured.probes)]


def _maps(measured: Measured, folder: Path) -> list[Any]:
    paths = {name: folder / f"map-{i}.png" for i, name in enumerate(measured.features)}

    def draw() -> None:
        for name, features in measured.features.items():
            given = (features, measured.labels, paths[name], measured.seed)
            plot_embedding_map(*given, measured.class_names, title=name)

    row = HtmlRow(
        [HtmlPicture(path, f"{name}: near samples are alike to it") for name, path in paths.items()]
    )
    told = (
        "Each point is a test sample, its colour its class, which no training has seen. Sizes of "
        "groups, and distances between them, mean nothing."
    )
    return [told, *_drawn(draw, [row])]


def _curves(history: Mapping[str, Any], folder: Path) -> list[Any]:
    if not history:
        return ["The parties logged nothing."]
    paths = {name: folder / f"curve-{i}.png" for i, name in enumerate(history)}

    def draw() -> None:
        for name, path in paths.items():
            plot_learning_curve({name: history[name]}, path)

    row = HtmlRow([HtmlPicture(path, curve_caption(name)) for name, path in paths.items()])
    why = [UNIFORMITY] if "health_uniformity" in history else []
    return [*_drawn(draw, [row]), *why, curves_table(history)]


def _clusters(measured: Measured, folder: Path) -> list[Any]:
    name, features = next(iter(measured.features.items()))
    count = len(set(as_numpy(measured.labels).tolist()))
    clusters = cluster_features(as_numpy(features), num_clusters=count, seed=measured.seed)

    def draw() -> None:
        confusion = folder / "confusion.png"
        plot_cluster_confusion(clusters, measured.labels, confusion, measured.class_names)
        plot_cluster_balance(clusters, count, folder / "balance.png")

    row = HtmlRow(
        [
            HtmlPicture(
                folder / "confusion.png",
                f"Which classes {count} k-means clusters of {name}'s features hold, without labels "
                "in the clustering: one dark cell in each column is best",
            ),
            HtmlPicture(folder / "balance.png", "Sizes of the clusters: level bars are best"),
        ]
    )
    return _drawn(draw, [row])


def _drawn(draw: Any, shown: list[Any]) -> list[Any]:
    """Return what shows the drawn pictures; a sentence where matplotlib is missing."""
    try:
        draw()
    except ImportError as error:
        return [f"No pictures: {error}"]
    return shown
