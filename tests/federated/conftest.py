import shutil
from pathlib import Path

import pytest

from orchestra_strategy import session
from tests.federated import toy
from tests.federated.checkpoint_runs import PRIVATE, made


@pytest.fixture
def devices():
    """Alice and bob in process."""
    with session(toy.PARTIES, mode="debug") as devices:
        yield devices


@pytest.fixture
def ours(devices):
    """A model that has not been trained."""
    return toy.build(devices)


@pytest.fixture
def x(devices):
    """Both parties' samples."""
    return toy.data(devices)


@pytest.fixture(scope="session")
def plain_run(tmp_path_factory):
    """A folder with the checkpoints of rounds 2 and 3, and the results."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    return folder, made(folder)


@pytest.fixture(scope="session")
def private_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("private") / "run"
    return folder, made(folder, **PRIVATE)


def copy_of(run, tmp_path):
    return Path(shutil.copytree(run[0], tmp_path / "run"))


@pytest.fixture
def folder(plain_run, tmp_path):
    return copy_of(plain_run, tmp_path)


@pytest.fixture
def private(private_run, tmp_path):
    return copy_of(private_run, tmp_path)
