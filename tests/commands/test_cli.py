"""The command itself: names, help in no time, exit codes."""

import errno
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from orchestra_strategy import __version__, cli
from orchestra_strategy.commands import table
from orchestra_strategy.errors import OrchestraError
from tests.commands.jobs import write_job


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
        (
            OSError(errno.ENOSPC, "No space left on device", "out/x"),
            *(1, "Expected to use `out/x`, got: No space left on device.\n"),
        ),
    ],
)
def test_an_error_is_a_sentence_and_a_code(error, code, told, monkeypatch, capsys):
    def refuse(arguments):
        raise error

    monkeypatch.setattr(table.load_command("audit"), "run", refuse)
    assert status("audit") == code
    assert capsys.readouterr().err == told


def test_an_error_that_nobody_expected_keeps_its_traceback(monkeypatch):
    def broken(arguments):
        raise OSError("something else")

    monkeypatch.setattr(table.load_command("audit"), "run", broken)
    with pytest.raises(OSError, match="something else"):
        status("audit")


@pytest.mark.parametrize(
    "arguments",
    [("audit", "--data", "nowhere"), ("partition", "x", "--parties", "a", "--out", "o")],
)
def test_a_refusal_is_one_line_and_nothing_else(arguments):
    done = started(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert "got no such file or folder" in done.stderr


@pytest.fixture
def interruptible():
    """Have Ctrl-C interrupt: where a shell script started the tests with ``&``, it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_with_its_code(tmp_path):
    np.savez(tmp_path / "data.npz", x=np.zeros((40, 8, 8), np.float32))
    grid = ("--grid", "lr=[0.1]", "--data", "data.npz", "--trial-rounds", "100000")
    command = [sys.executable, "-m", "orchestra_strategy", "tune", write_job(tmp_path), *grid]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        time.sleep(8.0)  # in the middle of it, or of an import
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Interrupted.\n" in told
    assert "Traceback" not in told


class Destroyed:
    """Interrupts where Python ignores exceptions, as a callback of the garbage collector does."""

    def __del__(self):
        raise KeyboardInterrupt


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_that_python_ignores_is_not_lost(monkeypatch, capsys):
    def run(arguments):
        Destroyed()
        time.sleep(5.0)
        return 0

    monkeypatch.setattr(table.load_command("audit"), "run", run)
    assert status("audit") == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_output_that_nobody_reads_is_no_error(tmp_path):
    command = f"{sys.executable} -m orchestra_strategy manifest {write_job(tmp_path)} | true"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert done.stderr == ""
