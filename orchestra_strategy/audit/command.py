"""The command line of the audit."""

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from rich import box
from rich.console import Console
from rich.table import Table

from orchestra_strategy.audit.attacks.table import ATTACKS
from orchestra_strategy.audit.report import write_report
from orchestra_strategy.audit.report.tables import summary_table
from orchestra_strategy.audit.report.verdicts import advice, setting_in_words, verdict
from orchestra_strategy.audit.results import Audit
from orchestra_strategy.audit.run import run_audit
from orchestra_strategy.audit.samples import json_value, option_values, read_data
from orchestra_strategy.audit.settings import AuditConfig, parse_audit
from orchestra_strategy.errors import OrchestraError, ParameterError
from orchestra_strategy.files import parse_json

__all__ = ["SentenceParser", "add_arguments", "audit_command", "main"]

_NUMBERS = (
    *("images", "replies", "attack_steps", "canary_runs", "members", "rounds", "hidden_dim"),
    "seed",
)
_NAMES = ("strategy", "backbone", "norm", "streams")
_LISTS = ("user_types", "attacks")
_WIDTH = 124


class SentenceParser(argparse.ArgumentParser):
    """A parser whose errors are one sentence, without lines of usage before it; status 2."""

    def error(self, message: str) -> NoReturn:
        """Print the sentence, and end."""
        sentence = message if message.startswith("Expected") else f"{self.prog}: {message}"
        self.exit(2, f"{sentence}\n")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; what is not given keeps the default of AuditConfig."""
    defaults = AuditConfig()
    parser.add_argument(
        "--data",
        default="digits",
        help="image folder, .csv, .npz, .npy or CIFAR batches (scikit-learn's digits)",
    )
    parser.add_argument(
        "--data-option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of reading, as `load_local` has it, its value as JSON; may be repeated",
    )
    parser.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module of your own that registers strategies or views; may be repeated",
    )
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
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="a parameter of the strategy, its value as JSON; may be repeated",
    )
    for name in _NUMBERS:
        text = f"({getattr(defaults, name)})"
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help=text)
    for name in _NAMES:
        parser.add_argument(f"--{name}", help=f"({getattr(defaults, name)})")


def audit_command(arguments: argparse.Namespace, console: Console | None = None) -> Audit:
    """Run the audit, show its table and write its report.

    Raises:
        OrchestraError: Arguments, configuration or data cannot be used.
    """
    console = console or Console()
    if arguments.out.exists() and not arguments.out.is_dir():
        raise ParameterError(f"Expected `--out` to be a folder, got the file {arguments.out}.")
    import_modules(arguments.modules)
    config = parse_audit(_values(arguments))
    data = read_data(arguments.data, **option_values(arguments.data_option))
    with _without_sizes():
        audit = run_audit(
            data,
            config,
            Path(arguments.data).name,
            tell=lambda line: console.print(f"  {line}", highlight=False),
        )
    for line in _in_short(audit):
        console.print(line, highlight=False, soft_wrap=True)
    console.width = max(console.width, _WIDTH)  # for its columns, in a pipe or a narrow window, too
    console.print(_table(audit))
    for path in write_report(audit, arguments.out):
        console.print(f"  written: {path}", highlight=False)
    return audit


def _values(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the configuration as loose values: the file's, then what was given beside it."""
    values = _from_file(arguments.config) if arguments.config else {}
    for name in (*_NUMBERS, *_NAMES, *_LISTS):
        given = getattr(arguments, name)
        if given is not None:
            values[name] = given
    if arguments.set:
        given = {name: json_value(f"--set {name}", text) for name, text in arguments.set}
        values["parameters"] = {**values.get("parameters", {}), **given}
    privacy = _privacy(arguments)
    if privacy is not None:
        values["privacy"] = privacy
    return values


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


def import_modules(names: Sequence[str]) -> None:
    """Import modules, for what they register; those of the present folder are found, too.

    Raises:
        ParameterError: One cannot be imported.
    """
    for name in names:
        sys.path.insert(0, os.getcwd())
        try:
            importlib.import_module(name)
        except Exception as error:  # a module of one's own may raise anything
            raise ParameterError(
                f"Expected `--import` to name a module that can be imported, got {name!r}: "
                f"{type(error).__name__}: {error}. It is looked for on Python's path and in the "
                "present folder."
            ) from error
        finally:
            sys.path.remove(os.getcwd())


def _in_short(audit: Audit) -> list[str]:
    """Return the verdicts, and what to do."""
    lines = ["", "Verdicts"]
    for result in audit.results:
        words = setting_in_words(result)
        lines.append(f"- {words[0].upper()}{words[1:]}: {verdict(result)}")
    return [*lines, "", "What to do", *(f"- {sentence}" for sentence in advice(audit)), ""]


def _privacy(arguments: argparse.Namespace) -> list[dict[str, Any]] | None:
    """Return the settings that the options ask for; None if none is given."""
    options = {name: getattr(arguments, name) for name in ("epsilon", "noise", "clip")}
    given = [name for name, value in options.items() if value is not None]
    if arguments.privacy is None:
        if not given:
            return None
        raise ParameterError(
            f"Expected `--privacy` with `--{given[0]}`, got none; say what it protects, 'user' or "
            "'record'."
        )
    if given and set(arguments.privacy) == {"none"}:
        raise ParameterError(
            f"Expected `--privacy` with `--{given[0]}` to name 'user' or 'record', got 'none' "
            f"alone, which has no {given[0]}; add one, or leave `--{given[0]}` out."
        )
    strengths = [{"target_epsilon": e} for e in options["epsilon"] or ()]
    strengths += [{"noise_multiplier": z} for z in options["noise"] or ()]
    clip = {} if options["clip"] is None else {"clip_norm": options["clip"]}
    settings: list[dict[str, Any]] = []
    for unit in arguments.privacy:
        if unit == "none":
            settings.append({})
        else:
            for strength in strengths or [{"target_epsilon": 8.0}]:
                settings.append({"privacy": unit, **strength, **clip})
    return settings


def _from_file(path: Path) -> dict[str, Any]:
    try:
        values = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        found = error.strerror if isinstance(error, OSError) else error
        raise ParameterError(
            f"Expected `--config` to be a JSON file, got `{path}`: {found}."
        ) from error
    if not isinstance(values, dict):
        raise ParameterError(
            f"Expected `--config` to hold one JSON object, got {type(values).__name__}."
        )
    return values


def _table(audit: Audit) -> Table:
    summary = summary_table(audit)
    table = Table(title="What the server can learn", title_justify="left", box=box.SIMPLE)
    for index, header in enumerate(summary.headers):
        table.add_column(header, justify="right" if index > 1 else "left", no_wrap=index < 2)
    for row in summary.rows:
        table.add_row(*map(str, row))
    table.caption, table.caption_justify = summary.caption, "left"
    return table


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``python -m orchestra_strategy.audit``."""
    parser = SentenceParser(
        prog="orchestra-fl audit", description="Measure what a server could learn of one's data."
    )
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    try:
        audit_command(arguments)
    except OrchestraError as error:
        parser.error(str(error))
