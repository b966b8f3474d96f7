"""The command ``orchestra-fl``: unsupervised federated learning for SecretFlow.

Exit codes: 0 done, 1 refused, 2 wrong arguments or settings, 3 the parties' settings differ, 4 a
party was lost, 5 a party refused, 130 interrupted.
"""

import os
import signal
import sys
from collections.abc import Sequence

from orchestra_strategy import __version__
from orchestra_strategy.commands.interrupts import interrupts_kept
from orchestra_strategy.commands.parser import SentenceParser
from orchestra_strategy.commands.start_again import StartAgain, start_again
from orchestra_strategy.commands.table import COMMANDS, load_command
from orchestra_strategy.errors import OrchestraError
from orchestra_strategy.last_resort import ends_within

__all__ = ["main", "process"]

_INTERRUPTED = 128 + signal.SIGINT
_GRACE = 5.0  # seconds for threads that are still at work when the command is done


def process() -> int:
    """Be the process of the command: what ``orchestra-fl`` starts.

    Returns:
        The exit code; the process ends soon after, whatever its threads do.
    """
    code = 1  # of an error that is nobody's refusal
    try:
        code = main()
    except StartAgain as wish:
        start_again(wish.arguments)
    except SystemExit as error:  # argparse's own end
        code = error.code if isinstance(error.code, int) else 1
        raise
    finally:
        ends_within(_GRACE, code)
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name; a refusal is one sentence on standard error.

    Args:
        argv: The arguments after the program's name; those of this process by default.

    Returns:
        The exit code, see the top of this file.
    """
    given = sys.argv[1:] if argv is None else list(argv)
    arguments = _parser(given[0] if given else None).parse_args(given)
    try:
        with interrupts_kept():
            return load_command(arguments.command).run(arguments)
    except OrchestraError as error:
        print(str(error), file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # whoever read the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.filename is None:
            raise
        print(f"Expected to use `{error.filename}`, got: {error.strerror}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return _INTERRUPTED


def _parser(command: str | None) -> SentenceParser:
    """Return a parser that knows all commands, and the arguments of the one that is given."""
    purpose, codes = (__doc__ or "").split("\n\n")
    parser = SentenceParser(prog="orchestra-fl", description=purpose, epilog=codes)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name in COMMANDS:
        told = load_command(name).HELP
        sentence = f"{told[0].upper()}{told[1:]}."
        one = commands.add_parser(name, help=told, description=sentence)
        if name == command:  # of another, they are not asked for
            load_command(name).add_arguments(one)
    return parser
