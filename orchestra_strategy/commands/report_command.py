"""``orchestra-fl report``: a training's results as one HTML file, for people."""

import argparse
from pathlib import Path
from typing import Any

from orchestra_strategy.commands.data_arguments import writable
from orchestra_strategy.commands.parser import SentenceParser
from orchestra_strategy.errors import DataError

__all__ = ["HELP", "add_arguments", "run"]

HELP = "make one HTML file of a training's results: curves, health, what left, cost, settings"

_NEEDED = ("history", "ledger", "manifest", "rounds", "seconds")


def add_arguments(parser: SentenceParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", type=Path, metavar="RUN", help="the `out_dir` of a training")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="the file to write (report.html in RUN)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the report."""
    from orchestra_strategy.runtime.training_page import write_training_report

    folder = arguments.run.expanduser()
    out = writable(arguments.out or folder / "report.html", "--out", (".html",))
    write_training_report(out, f"Training in {folder.name}", _results(folder))
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
