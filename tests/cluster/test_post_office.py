"""What a party's processes on Ray ask of the one that has the port, without a Ray."""

import asyncio
import os
import pickle
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from orchestra_strategy.cluster import Members
from orchestra_strategy.cluster.post_office import PostOffice
from orchestra_strategy.cluster.proxies import OfficeReceiver, OfficeSender
from orchestra_strategy.cluster.settings import ClusterSettings
from orchestra_strategy.config import parse_config
from orchestra_strategy.errors import ClusterError, ReplyError
from tests.cluster.ports import settings
from tests.cluster.test_allow_list import Runs


@pytest.fixture
def both():
    alice, bob = (Members(parse_config(ClusterSettings, v)) for v in settings().values())
    alices, bobs = PostOffice(alice), PostOffice(bob)
    with closing(alice), closing(bob), closing(alices), closing(bobs):
        yield alice, alices, bobs


def receiver(office):
    return OfficeReceiver(office.path, frozenset(), "RayFed's", "arguments")


def test_many_objects_pass_at_once_in_any_order(both):
    _, alices, bobs = both
    sender, values = OfficeSender(alices.path), [np.arange(1e5) + n for n in range(20)]

    async def all_of_them():
        takes = [receiver(bobs).get_data("alice", n, -n) for n in reversed(range(20))]
        sends = [sender.send("bob", value, n, -n) for n, value in enumerate(values)]
        return (await asyncio.gather(*takes, *sends))[:20]

    found = asyncio.run(all_of_them())
    np.testing.assert_equal(found, values[::-1])


def test_code_does_not_pass(both, tmp_path):
    alice, _, bobs = both
    target = tmp_path / "written"
    alice.send("bob", "1#2", pickle.dumps(Runs(np.savetxt, str(target), np.zeros(2))))
    with pytest.raises(ReplyError, match=r"`alice` to send arrays.*savetxt`, which was not run"):
        asyncio.run(receiver(bobs).get_data("alice", 1, 2))
    assert not target.exists()


def test_a_wait_ends_with_the_session(both):
    alice, alices, _ = both

    async def closed_while_waiting():
        waiting = asyncio.create_task(receiver(alices).get_data("bob", 1, 2))
        await asyncio.sleep(0.3)
        alice.mailbox.close()
        await waiting

    with pytest.raises(ClusterError, match="data of bob, got the end of the session"):
        asyncio.run(asyncio.wait_for(closed_while_waiting(), 10))


def test_no_other_user_comes_in_and_nothing_stays(both):
    alice, *_ = both
    office = PostOffice(alice)
    folder = Path(office.path).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert folder.stat().st_uid == os.getuid()
    office.close()
    assert not folder.exists()


def test_actors_import_little():
    """Each is a process of its own, and torch alone would take half a gigabyte."""
    program = (
        "import sys, orchestra_strategy.cluster.proxies\n"
        "sys.exit(bool({'torch', 'jax', 'grpc', 'pydantic', 'secretflow'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[2], timeout=60
    )
    assert done.returncode == 0
