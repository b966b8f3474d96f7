"""``orchestra-fl tune``: parameters chosen without labels, by trials in this process."""

import argparse
from pathlib import Path
from typing import Any

from orchestra_strategy.commands.job_file import add_job, job_to_use
from orchestra_strategy.commands.own_modules import add_import
from orchestra_strategy.commands.parser import SentenceParser
from orchestra_strategy.commands.trial import add_parties, parties_of, trial_of
from orchestra_strategy.commands.yaml_file import parse_value
from orchestra_strategy.errors import ParameterError

__all__ = ["HELP", "add_arguments", "run"]

HELP = "choose parameters without labels, by short trainings on data of one's own"


def add_arguments(parser: SentenceParser) -> None:
    """Declare the arguments."""
    add_job(parser)
    add_import(parser)
    add_parties(parser)
    parser.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="NAME=[VALUES]",
        help="values to try of a strategy's parameter, such as 'lr=[0.003, 0.01]'; may be repeated",
    )
    parser.add_argument(
        "--data",
        metavar="PATH",
        help="data of the simulated parties, with {party} for their names (the job's)",
    )
    parser.add_argument("--trial-rounds", type=int, metavar="N", help="of each trial (the job's)")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="keeps finished trials, to go on from"
    )


def run(arguments: argparse.Namespace) -> int:
    """Train each point of the grid, and print them, the best first."""
    from rich.console import Console

    config = job_to_use(arguments)
    if config is None:
        return 0
    grid = {}
    for text in arguments.grid:
        name, values = parse_value("--grid", text)
        grid[name.removeprefix("parameters.")] = values
    if not grid:
        raise ParameterError("Expected `--grid` at least once, got none; 'lr=[0.003, 0.01]'.")
    where = arguments.data or getattr(config, "data", None)
    if where is None:
        raise ParameterError(
            "Expected `--data` to be the path of the parties' data, got none; give it, such as "
            "`--data data/{party}.npz`, or `data` in the job."
        )
    paths = {name: where.replace("{party}", name) for name in parties_of(config, arguments)}
    with trial_of(config, arguments, secret_streams=False) as trainer:
        data = {device: paths[device.party] for device in trainer.devices}
        trainer.console = Console(stderr=True)  # a line per trial
        tuning = trainer.tune(data, grid, arguments.trial_rounds, arguments.out)
    console = Console()
    console.width = max(console.width, 100)
    console.print(_table(tuning.trials))
    best = " ".join(f"--set parameters.{name}={value}" for name, value in tuning.best.items())
    print(f"The best: {best}")
    return 0


def _table(trials: Any) -> Any:
    from rich.table import Table

    table = Table("parameters", "score", "alignment", "uniformity", "effective rank", box=None)
    for trial in trials:
        point = ", ".join(f"{name}={value}" for name, value in trial.parameters.items())
        numbers = (trial.score, trial.alignment, trial.uniformity, trial.effective_rank)
        table.add_row(point, *("collapsed" if n == float("inf") else f"{n:.3f}" for n in numbers))
    table.caption = "score = alignment + uniformity, lower is better; within this grid alone"
    return table
