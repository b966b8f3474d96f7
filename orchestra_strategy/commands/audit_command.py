"""``orchestra-fl audit``: what a server could learn of one's data, measured on them."""

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestra_strategy.commands.data_arguments import add_data_option
from orchestra_strategy.commands.own_modules import add_import, import_modules
from orchestra_strategy.commands.parser import SentenceParser
from orchestra_strategy.commands.quiet_import import load_host
from orchestra_strategy.errors import ParameterError

__all__ = ["DEFAULTS", "HELP", "add_arguments", "run"]

HELP = "measure what a server could learn of one's data"

ATTACKS = (
    *("span", "matching", "breaching", "public_streams", "membership", "local_centroids"),
    *("crafted_weights", "canary"),
)
"""Names of the audit's attacks; here, with DEFAULTS, because their modules take seconds to load."""

DEFAULTS = {
    **{"images": 4, "replies": 2, "attack_steps": 250, "canary_runs": 100, "members": 300},
    **{"rounds": 3, "hidden_dim": 128, "seed": 0},
    **{"strategy": "orchestra", "backbone": None, "norm": "group", "streams": "secret"},
}
"""Those of AuditConfig; a test compares them."""


def add_arguments(parser: SentenceParser) -> None:
    """Declare the arguments; what is not given keeps the default of AuditConfig."""
    parser.add_argument(
        "--data",
        default="digits",
        help="image folder, .csv, .npz, .npy or CIFAR batches (scikit-learn's digits)",
    )
    add_data_option(parser)
    add_import(parser)
    parser.add_argument("--out", type=Path, default=Path("audit_out"), help="folder for the report")
    parser.add_argument("--config", type=Path, help="JSON file with fields of AuditConfig")
    parser.add_argument("--user-types", nargs="+", help="kinds of user (all that there are)")
    parser.add_argument("--attacks", nargs="+", help=f"{', '.join(ATTACKS)}")
    parser.add_argument(
        "--privacy",
        nargs="+",
        metavar="UNIT",
        help="none, user, record; the last two with every --epsilon and --noise",
    )
    parser.add_argument("--epsilon", type=float, nargs="+", help="of the whole training (8)")
    parser.add_argument("--noise", type=float, nargs="+", help="noise multipliers, for --epsilon")
    parser.add_argument("--clip", type=float, help="clip_norm of the privacy settings")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter of the strategy, its value as JSON; may be repeated",
    )
    for name, default in DEFAULTS.items():
        number = int if isinstance(default, int) else str
        parser.add_argument(f"--{name.replace('_', '-')}", type=number, help=f"({default})")


def run(arguments: argparse.Namespace) -> int:
    """Run the audit, show its table and write its report."""
    load_host()
    from rich.console import Console

    from orchestra_strategy.audit.report import write_report
    from orchestra_strategy.audit.report.terminal import show_audit
    from orchestra_strategy.audit.run import run_audit
    from orchestra_strategy.audit.samples import read_data
    from orchestra_strategy.audit.settings import parse_audit
    from orchestra_strategy.commands.audit_values import audit_values
    from orchestra_strategy.commands.name_values import name_values

    console = Console()
    if arguments.out.exists() and not arguments.out.is_dir():
        raise ParameterError(f"Expected `--out` to be a folder, got the file {arguments.out}.")
    import_modules(arguments.modules)
    config = parse_audit(audit_values(arguments))
    data = read_data(arguments.data, **name_values("--data-option", arguments.data_option))
    with _without_sizes():
        audit = run_audit(
            data,
            config,
            Path(arguments.data).name,
            tell=lambda line: console.print(f"  {line}", highlight=False),
        )
    show_audit(audit, console)
    for path in write_report(audit, arguments.out):
        console.print(f"  written: {path}", highlight=False)
    return 0


@contextmanager
def _without_sizes() -> Iterator[None]:
    """Keep back warnings of memories and clusters that are scaled down: the audit's own choice."""
    log = logging.getLogger("orchestra_strategy.strategies")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
