"""The command ``orchestra-fl``."""

from collections.abc import Sequence

from orchestra_strategy.audit.command import SentenceParser, add_arguments, audit_command
from orchestra_strategy.errors import OrchestraError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the sub-command that the arguments name; a refusal ends with its sentence."""
    parser = SentenceParser(prog="orchestra-fl", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    audit = commands.add_parser("audit", help="measure what a server could learn of one's data")
    add_arguments(audit)
    arguments = parser.parse_args(argv)
    try:
        audit_command(arguments)
    except OrchestraError as error:
        audit.error(str(error))
