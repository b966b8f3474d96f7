"""Memories of virtual users on the disk: gone with their owner, also one that was killed."""

import gc
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from orchestra_strategy.party.user_store import UserStore

KILLED = """
import os, signal
from orchestra_strategy.party.user_store import UserStore
store = UserStore()
store.save(0, {})
print(store._folder.name, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def folder_of(store):
    return Path(store._folder.name)


def a_dead_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def made_by_hand(folder):
    folder.mkdir()
    (folder / "lock").touch()
    return folder


def test_a_folder_is_gone_with_its_store(temporary):
    store = UserStore()
    store.save(2, {"rows": torch.ones(1)})
    assert f"orchestra-users-{os.getpid()}-" in folder_of(store).name
    assert list(store.state_dict()) == [2]
    del store
    gc.collect()
    assert list(temporary.iterdir()) == []


def test_what_a_killed_process_leaves_goes_with_the_next_store(temporary):
    environment = {**os.environ, "TMPDIR": str(temporary)}
    command = [sys.executable, "-c", KILLED]
    killed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    (left,) = temporary.glob("orchestra-users-*")
    assert str(left) in killed.stdout
    first, second = UserStore(), UserStore()
    assert set(temporary.glob("orchestra-users-*")) == {folder_of(first), folder_of(second)}


def test_what_is_in_use_or_not_ours_stays(temporary):
    gone = a_dead_process()
    in_use = UserStore()  # as a process of another container would look: alive, but not to us
    renamed = temporary / f"orchestra-users-{gone}-inuse"
    os.rename(folder_of(in_use), renamed)
    elsewhere = made_by_hand(temporary / "elsewhere")
    link = temporary / f"orchestra-users-{gone}-link"
    link.symlink_to(elsewhere)
    others = [
        made_by_hand(temporary / name)
        for name in (
            f"orchestra-users-{os.getpid()}-alive",
            "orchestra-users-abcdefgh",
            f"users-{gone}-x",
            f"orchestra-users-{'9' * 40}-x",
        )
    ]
    abandoned = made_by_hand(temporary / f"orchestra-users-{gone}-abandoned")
    UserStore()
    assert not abandoned.exists()
    assert all(path.exists() for path in (renamed, elsewhere, link, *others))


def test_a_folder_of_another_user_stays(temporary, monkeypatch):
    theirs = made_by_hand(temporary / f"orchestra-users-{a_dead_process()}-theirs")
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    UserStore()
    assert theirs.exists()
