"""The command itself: names, help in no time, exit codes."""

import resource
import subprocess
import sys

import pytest

from orchestra_strategy import __version__, cli
from orchestra_strategy.commands import table
from orchestra_strategy.errors import OrchestraError


def started(*arguments):
    command = [sys.executable, "-m", "orchestra_strategy", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def status(*arguments):
    """The exit code, of the parser or of the command."""
    try:
        return cli.main(arguments)
    except SystemExit as stopped:
        return stopped.code


@pytest.mark.parametrize("command", ["", *table.COMMANDS])
def test_help_is_quick_and_nothing_else_is_printed(command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = started(*command.split(), "--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.startswith(f"usage: {' '.join(['orchestra-fl', *command.split()])}")
    # Of this process alone: other work on the machine does not count.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


@pytest.fixture(scope="module")
def listed():
    return " ".join(started("--help").stdout.split())


@pytest.mark.parametrize("command", table.COMMANDS)
def test_every_command_says_what_it_is_for_and_every_option_has_help(command, listed):
    module = table.load_command(command)
    assert module.HELP in listed
    parser = cli.SentenceParser()
    module.add_arguments(parser)
    assert [action.dest for action in parser._actions if not action.help] == []


def test_version():
    done = started("--version")
    assert (done.returncode, done.stdout) == (0, f"orchestra-fl {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "orchestra-fl: the following arguments are required: command\n"),
        (("trian",), "argument command: invalid choice: 'trian'"),
        (("audit", "--roundz", "3"), "unrecognized arguments: --roundz 3"),
    ],
)
def test_wrong_arguments_are_one_sentence_and_status_2(arguments, message, capsys):
    assert status(*arguments) == 2
    told = capsys.readouterr().err
    assert message in told
    assert "usage" not in told


class LostError(OrchestraError):
    exit_code = 4


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (OrchestraError("Expected `x`, got `y`."), 1, "Expected `x`, got `y`.\n"),
        (LostError("Party `bob` is gone."), 4, "Party `bob` is gone.\n"),
        (KeyboardInterrupt(), 130, "Interrupted.\n"),
    ],
)
def test_an_error_is_a_sentence_and_a_code(error, code, told, monkeypatch, capsys):
    def refuse(arguments):
        raise error

    monkeypatch.setattr(table.load_command("audit"), "run", refuse)
    assert status("audit") == code
    assert capsys.readouterr().err == told
