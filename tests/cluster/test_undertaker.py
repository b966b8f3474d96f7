"""Nothing of what a process has started outlives it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestra_strategy.cluster.undertaker import nothing_left_behind
from tests.cluster.process_tree import descendants, wait_until_gone

CHILD = (
    "import subprocess, sys, time\n"
    "from orchestra_strategy.cluster.undertaker import nothing_left_behind\n"
    "with nothing_left_behind():\n"
    # A child of a child, in a session of its own: nobody has it any more.
    "    subprocess.run(['sh', '-c', 'setsid sleep 100 & echo $!'], stdout=sys.stdout)\n"
    "    time.sleep(float(sys.argv[1]))\n"
)


@pytest.mark.parametrize("killed", [False, True], ids=["ended", "killed"])
def test_what_was_started_ends_with_its_starter(killed):
    parent = subprocess.Popen(
        [sys.executable, "-c", CHILD, "100" if killed else "0"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    sleeper = descendants(int(parent.stdout.readline()))
    if killed:
        watched = descendants(parent.pid)
        parent.send_signal(signal.SIGKILL)
        assert wait_until_gone(sleeper | watched, seconds=15) == []
    else:
        assert parent.wait(15) == 0
        assert wait_until_gone(sleeper, seconds=0) == []
    parent.stdout.close()
    parent.wait(15)


def test_the_process_itself_is_not_marked_afterwards():
    before = dict(os.environ)
    with nothing_left_behind():
        assert dict(os.environ) != before
    assert dict(os.environ) == before
