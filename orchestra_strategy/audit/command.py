"""The command line of the audit."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from orchestra_strategy.audit.objectives import OBJECTIVES, SUPERVISED, rowwise
from orchestra_strategy.audit.party import read_data
from orchestra_strategy.audit.report import summary_table, write_report
from orchestra_strategy.audit.results import Audit
from orchestra_strategy.audit.run import run_audit
from orchestra_strategy.audit.settings import parse_audit
from orchestra_strategy.errors import OrchestraError, ParameterError

__all__ = ["add_arguments", "audit_command", "main"]

_PLAIN = ("strategy", "user_types", "attacks", "images", "attack_steps", "members", "passes")
_NETWORK = (
    "batch_size",
    "lr",
    "views",
    "backbone",
    "norm",
    "hidden_dim",
    "delta",
    "seed",
    "threads",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; what is not given keeps the default of AuditConfig."""
    names = ", ".join(sorted([*OBJECTIVES, SUPERVISED]))
    parser.add_argument("--data", required=True, help="image folder, .npz, .npy ..., or 'digits'")
    parser.add_argument("--out", type=Path, default=Path("audit_out"), help="folder for the report")
    parser.add_argument("--config", type=Path, help="JSON file with fields of AuditConfig")
    parser.add_argument("--strategy", help=f"one of {names} (orchestra)")
    parser.add_argument("--user-types", nargs="+", help="kinds of user (all three)")
    parser.add_argument("--attacks", nargs="+", help="span, matching (span)")
    parser.add_argument("--clip", type=float, help="norm of an example's gradient; 0 for none (1)")
    parser.add_argument("--noise", type=float, nargs="+", help="standard deviations, one row each")
    parser.add_argument("--distribution", default="gaussian", help="gaussian or laplacian")
    for name in ("images", "attack-steps", "members", "passes", "batch-size", "hidden-dim"):
        parser.add_argument(f"--{name}", type=int)
    for name in ("seed", "threads"):
        parser.add_argument(f"--{name}", type=int)
    for name in ("lr", "delta"):
        parser.add_argument(f"--{name}", type=float)
    for name in ("views", "backbone", "norm"):
        parser.add_argument(f"--{name}")


def audit_command(arguments: argparse.Namespace, console: Console | None = None) -> Audit:
    """Run the audit, show its table and write its report.

    Raises:
        OrchestraError: Arguments, configuration or data cannot be used.
    """
    console = console or Console()
    if arguments.out.exists() and not arguments.out.is_dir():
        raise ParameterError(f"Expected `--out` to be a folder, got the file {arguments.out}.")
    values = _from_file(arguments.config) if arguments.config else {}
    values |= {
        name: getattr(arguments, name)
        for name in (*_PLAIN, *_NETWORK)
        if getattr(arguments, name) is not None
    }
    if arguments.clip is not None or arguments.noise is not None:
        values["privacy"] = _privacy(arguments, values.get("strategy", "orchestra"))
    config = parse_audit(values)
    audit = run_audit(
        read_data(arguments.data),
        config,
        Path(arguments.data).name,
        tell=lambda line: console.print(f"  {line}", highlight=False),
    )
    console.print(_table(audit))
    for path in write_report(audit, arguments.out):
        console.print(f"  written: {path}", highlight=False)
    return audit


def _privacy(arguments: argparse.Namespace, strategy: str) -> list[Mapping[str, Any]]:
    """Return the rows that clip and noise ask for: none, clip alone, clip with each noise."""
    clip = arguments.clip
    if clip is None:
        clip = 1.0 if rowwise(strategy) else 0.0
    clipped = {"per_example_clipping": clip} if clip else {}
    kind = {} if arguments.distribution == "gaussian" else {"distribution": arguments.distribution}
    noisy = [{**clipped, "gradient_noise": noise, **kind} for noise in arguments.noise or ()]
    return [{}, *([clipped] if clipped else []), *noisy]


def _from_file(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ParameterError(f"Expected `--config` to be a JSON file, got {error}.") from error
    if not isinstance(values, dict):
        raise ParameterError(
            f"Expected `--config` to hold one JSON object, got {type(values).__name__}."
        )
    return values


def _table(audit: Audit) -> Table:
    summary = summary_table(audit)
    table = Table(title="What the server can learn", title_justify="left", box=box.SIMPLE)
    for index, header in enumerate(summary.headers):
        table.add_column(header, justify="right" if index else "left", vertical="bottom")
    for row in summary.rows:
        table.add_row(*map(str, row))
    table.caption, table.caption_justify = summary.caption, "left"
    return table


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``python -m orchestra_strategy.audit``."""
    parser = argparse.ArgumentParser(
        prog="orchestra-fl audit", description="Measure what a server could learn of one's data."
    )
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    try:
        audit_command(arguments)
    except OrchestraError as error:
        parser.error(str(error))
