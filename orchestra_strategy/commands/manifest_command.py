"""``orchestra-fl manifest``: all that would leave a party in a job, before anything runs."""

import argparse
import json

from orchestra_strategy.commands.job_file import add_job, job_to_use
from orchestra_strategy.commands.own_modules import add_import
from orchestra_strategy.commands.parser import SentenceParser
from orchestra_strategy.commands.trial import add_parties, trial_of

__all__ = ["HELP", "add_arguments", "run"]

HELP = "show all that leaves a party in a job, and who sees it"


def add_arguments(parser: SentenceParser) -> None:
    """Declare the arguments."""
    add_job(parser)
    add_import(parser)
    add_parties(parser)
    parser.add_argument("--json", action="store_true", help="print it as JSON, an object per entry")


def run(arguments: argparse.Namespace) -> int:
    """Print the manifest; nothing is trained, and no data are read."""
    from rich.console import Console

    from orchestra_strategy.runtime.manifest_table import manifest_table

    config = job_to_use(arguments)
    if config is None:
        return 0
    with trial_of(config, arguments) as trainer:
        rows = trainer.setup_model().manifest()
    if arguments.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return 0
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 120)  # a pipe has no width of its own
    console.print(manifest_table(rows))
    return 0
