"""The commands by name; a module is imported when its command is asked for."""

from importlib import import_module
from typing import Protocol, cast

from orchestra_strategy.commands.parser import SentenceParser

__all__ = ["COMMANDS", "Command", "load_command"]

COMMANDS = {
    "train": "train_command",
    "certs": "certs_command",
    "doctor": "doctor_command",
    "partition": "partition_command",
    "plan": "plan_command",
    "pretrain": "pretrain_command",
    "manifest": "manifest_command",
    "tune": "tune_command",
    "evaluate": "evaluate_command",
    "embed": "embed_command",
    "export": "export_command",
    "report": "report_command",
    "audit": "audit_command",
}
"""Name of a command -> its module in this folder."""


class Command(Protocol):
    """What a command's module has.

    Attributes:
        HELP: One line for the list of commands.
    """

    HELP: str

    def add_arguments(self, parser: SentenceParser) -> None:
        """Declare the command's arguments."""

    def run(self, arguments: object) -> int:
        """Do it, and return the exit code; a refusal is an OrchestraError."""
        ...


def load_command(name: str) -> Command:
    """Return the module of a command of :data:`COMMANDS`."""
    return cast(Command, import_module(f"orchestra_strategy.commands.{COMMANDS[name]}"))
