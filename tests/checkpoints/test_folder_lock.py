"""A folder belongs to one run at a time."""

import subprocess
import sys
import time

import pytest

from orchestra_strategy.checkpoints.folder_lock import FolderLock
from orchestra_strategy.errors import CheckpointError

HOLD = """
import sys, time
from pathlib import Path
from orchestra_strategy.checkpoints.folder_lock import FolderLock
lock = FolderLock(Path(sys.argv[1]), "theirs")
lock.acquire()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_another_process_has_it_until_it_is_gone(tmp_path, other):
    mine = FolderLock(tmp_path, "mine")
    start = time.monotonic()
    with pytest.raises(CheckpointError, match=f"is in use by process {other.pid} on .* since 20"):
        mine.acquire(seconds=0.3)
    assert 0.2 < time.monotonic() - start < 5
    other.kill()  # however it ends
    other.wait()
    mine.acquire(seconds=5)
    assert mine.held


def test_it_is_given_back(tmp_path):
    mine, other = FolderLock(tmp_path, "mine"), FolderLock(tmp_path, "other")
    mine.acquire()
    mine.acquire()  # it has it
    with pytest.raises(CheckpointError, match="is in use by process"):
        other.acquire(seconds=30)  # in one process there is nothing to wait for
    mine.release()
    other.acquire(seconds=0)
    with pytest.raises(CheckpointError, match="is in use"):
        mine.acquire(seconds=0)
    other.release()
    with pytest.raises(CheckpointError, match=r"another training has gone on in .* since"):
        mine.acquire(as_last=True)
    mine.acquire()
    mine.release()
    mine.acquire(as_last=True)
    del mine
    other.acquire(seconds=0)


def test_a_link_in_its_place_is_not_followed(tmp_path):
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="lock"):
        FolderLock(tmp_path, "mine").acquire()
    assert not (tmp_path / "elsewhere").exists()


def test_what_others_have_written_into_it_does_no_harm(tmp_path):
    (tmp_path / "lock").write_bytes(b"[" * 100_000)
    FolderLock(tmp_path, "mine").acquire()
