"""Modules of the user's own, imported for the strategies and views that they register."""

import importlib
import os
import sys
from collections.abc import Sequence

from orchestra_strategy.commands.parser import SentenceParser
from orchestra_strategy.commands.quiet_import import load_host
from orchestra_strategy.errors import ParameterError

__all__ = ["add_import", "import_modules"]


def add_import(parser: SentenceParser) -> None:
    """Declare ``--import``."""
    parser.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module of your own that registers strategies or views; may be repeated",
    )


def import_modules(names: Sequence[str]) -> None:
    """Import modules, for what they register; those of the present folder are found, too.

    Raises:
        ParameterError: One cannot be imported.
        HostError: SecretFlow cannot be used.
    """
    load_host()
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
