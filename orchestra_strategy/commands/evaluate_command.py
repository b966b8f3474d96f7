"""``orchestra-fl evaluate``: how good a trained encoder is, with labels of one's own."""

import argparse
from pathlib import Path
from typing import Any

from orchestra_strategy.commands.data_arguments import (
    add_data_option,
    add_encoder,
    features_of,
    labels_of,
    read_path,
    writable,
)
from orchestra_strategy.commands.parser import SentenceParser
from orchestra_strategy.errors import DataError, ParameterError

__all__ = ["HELP", "add_arguments", "run"]

HELP = "measure a trained encoder with labels, beside the untrained one and the raw input"


def add_arguments(parser: SentenceParser) -> None:
    """Declare the arguments."""
    add_encoder(parser)
    parser.add_argument(
        "--train", required=True, metavar="DATA", help="labelled samples for the probes"
    )
    parser.add_argument(
        "--test", required=True, metavar="DATA", help="labelled samples to measure on, others"
    )
    add_data_option(parser)
    parser.add_argument(
        "--labels-per-class",
        nargs="+",
        default=["1", "5", "20", "all"],
        metavar="N",
        help="numbers of labels per class, or all (1 5 20 all)",
    )
    parser.add_argument("--draws", type=int, default=5, help="draws of the labelled samples (5)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (0)")
    parser.add_argument(
        "--allow-duplicates",
        action="store_true",
        help="different samples may be equal in train and test, as in a table of few columns",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, too")


def run(arguments: argparse.Namespace) -> int:
    """Print a table for each measure."""
    from rich.console import Console

    from orchestra_strategy.data import LocalData
    from orchestra_strategy.encoder_file import load_encoder
    from orchestra_strategy.evaluation import (
        measures_of,
        probe_protocol,
        results_table,
        results_to_json,
        with_controls,
        write_json,
    )

    counts = [_count(text) for text in arguments.labels_per_class]
    out = None if arguments.json is None else writable(arguments.json, "--json")
    trained = load_encoder(arguments.encoder)
    train, test = (read_path(p, arguments, trained) for p in (arguments.train, arguments.test))
    labels = labels_of(train, arguments.train), labels_of(test, arguments.test)
    _check_classes(train, test)
    for data, path in ((train, arguments.train), (test, arguments.test)):
        features_of(trained, LocalData(data.samples[:1]), path)  # refused before any work
    features = with_controls(
        trained.model,
        trained.untrained(),
        train.samples,
        test.samples,
        allow_duplicates=arguments.allow_duplicates,
        name=trained.strategy,
    )
    results = probe_protocol(features, *labels, counts, arguments.draws, root_seed=arguments.seed)
    console = Console()
    console.width = max(console.width, 100)
    for measure in measures_of(results):
        console.print(results_table(results, measure=measure))
    if out is not None:
        write_json(out, results_to_json(results))
    return 0


def _count(text: str) -> int | None:
    """Return a number of labels per class, None for all."""
    if text == "all":
        return None
    if not text.isdigit() or not int(text):
        raise ParameterError(
            f"Expected `--labels-per-class` to be whole numbers from 1 on, or all, got {text!r}."
        )
    return int(text)


def _check_classes(train: Any, test: Any) -> None:
    """Refuse names of classes that differ: the same number would mean another class."""
    if train.class_names != test.class_names:
        raise DataError(
            f"Expected the same classes in `--train` and `--test`, got {train.class_names} and "
            f"{test.class_names}; `--data-option class_names=[...]` fixes their order."
        )
