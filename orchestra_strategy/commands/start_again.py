"""A command that asks to be run anew, with other arguments, in the same process."""

import os
import sys
from typing import NoReturn

__all__ = ["StartAgain", "start_again"]


class StartAgain(BaseException):
    """Asks for the command to be run anew.

    Attributes:
        arguments: What to run, without the program's name.
    """

    def __init__(self, arguments: list[str]) -> None:
        super().__init__(arguments)
        self.arguments = arguments


def start_again(arguments: list[str]) -> NoReturn:
    """Become the command with these arguments; locks, ports and threads of this program end."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "orchestra_strategy", *arguments])
