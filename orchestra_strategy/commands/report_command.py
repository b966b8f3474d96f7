"""``orchestra-fl report``: a training's results as one HTML file, for people."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from orchestra_strategy.commands.data_arguments import writable
from orchestra_strategy.commands.parser import SentenceParser
from orchestra_strategy.errors import DataError

__all__ = ["HELP", "add_arguments", "run"]

HELP = "make one HTML file of a training's results: curves, health, cost, what left"

_NEEDED = ("history", "ledger", "manifest", "rounds", "seconds")


def add_arguments(parser: SentenceParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", type=Path, metavar="RUN", help="the `out_dir` of a training")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="the file to write (report.html in RUN)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the report."""
    from orchestra_strategy.evaluation import write_html

    folder = arguments.run.expanduser()
    out = writable(arguments.out or folder / "report.html", "--out", (".html",))
    results = _results(folder)
    with tempfile.TemporaryDirectory() as pictures:
        write_html(out, f"Training in {folder.name}", _sections(results, Path(pictures)))
    print(out)
    return 0


def _results(folder: Path) -> dict[str, Any]:
    """Read ``results.json``."""
    from orchestra_strategy.files import parse_json

    path = folder / "results.json" if folder.is_dir() else folder
    try:
        results = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        found = error.strerror if isinstance(error, OSError) else error
        raise DataError(
            f"Expected the results of a training in `{path}`, got: {found}. A training with "
            "`out_dir` writes them there."
        ) from error
    missing = [n for n in _NEEDED if not isinstance(results, dict) or n not in results]
    if missing:
        raise DataError(
            f"Expected `{path}` to have the results of a training, got none of `{missing[0]}`."
        )
    return dict(results)


def _sections(results: dict[str, Any], pictures: Path) -> list[Any]:
    from orchestra_strategy.evaluation import HtmlSection, HtmlTable

    manifest = [
        (row["name"], row["combine"], row["when"], f"{row['bytes']:,}", row["seen_by"])
        for row in results["manifest"]
    ]
    return [
        HtmlSection("In short", _in_short(results)),
        HtmlSection("Curves", _curves(results["history"], pictures)),
        HtmlSection("Cost", [_rounds_table(results["ledger"])]),
        HtmlSection(
            "What left each party",
            [HtmlTable(["what", "combined", "when", "bytes at most", "seen by"], manifest)],
        ),
    ]


def _in_short(results: dict[str, Any]) -> list[Any]:
    from orchestra_strategy.evaluation import HtmlTable

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
    rows = [(n, f"{values[-1]:.4g}") for n, values in results["history"].items() if values]
    return [*told, HtmlTable(["after the last round", "value"], rows)]


def _curves(history: dict[str, Any], pictures: Path) -> list[Any]:
    """Return a picture; a sentence where matplotlib is missing."""
    from orchestra_strategy.evaluation import HtmlPicture, plot_learning_curve

    if not history:
        return ["The parties logged nothing."]
    try:
        plot_learning_curve(history, pictures / "curves.png")
    except ImportError as error:
        return [str(error)]
    caption = "Losses and health by round, averaged over the parties' samples"
    return [HtmlPicture(pictures / "curves.png", caption)]


def _rounds_table(ledger: list[dict[str, Any]]) -> Any:
    from orchestra_strategy.evaluation import HtmlTable

    names = [n for n in ledger[0] if not n.startswith(("train_", "health_"))] if ledger else []
    rows = [(i, *(_cell(row.get(n)) for n in names)) for i, row in enumerate(ledger, start=1)]
    return HtmlTable(["epoch", *(name.replace("_", " ") for name in names)], rows)


def _cell(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else f"{value}"
