"""SecretFlow's objects over our port, and what is left of a session that fails at its start."""

import logging
import pickle
import signal
import threading
from concurrent.futures import CancelledError
from contextlib import closing

import numpy as np
import pytest

from orchestra_strategy import session
from orchestra_strategy.cluster import Members
from orchestra_strategy.cluster.failure import Failure
from orchestra_strategy.cluster.settings import ClusterSettings
from orchestra_strategy.config import parse_config
from orchestra_strategy.errors import DataError, HostError, PeerFailedError, ReplyError
from orchestra_strategy.host_cluster import _fed, joined, members_proxy
from tests.cluster.ports import free_ports, settings
from tests.cluster.test_allow_list import Runs


@pytest.fixture
def both():
    alice, bob = (Members(parse_config(ClusterSettings, v)) for v in settings().values())
    with closing(alice), closing(bob):
        yield alice, bob


def test_objects_pass_and_code_does_not(both, tmp_path):
    alice, bob = both
    value = {"w": np.arange(6.0).reshape(2, 3), "n": 3}
    members_proxy(alice).send("bob", value, 1)
    np.testing.assert_equal(members_proxy(bob).recv("alice", 1), value)
    target = tmp_path / "written"
    alice.send("bob", "2", pickle.dumps(Runs(np.savetxt, str(target), np.zeros(2))))
    with pytest.raises(ReplyError, match=r"`alice` to send arrays.*savetxt`, which was not run"):
        members_proxy(bob).recv("alice", 2)
    assert not target.exists()


def test_an_error_is_told_and_not_sent(both):
    alice, bob = both
    error = _fed("exception").FedRemoteError("alice", DataError("Expected `x` to be images."))
    members_proxy(alice).send("bob", error, 1)
    with pytest.raises(PeerFailedError, match="alice has stopped: Expected `x`"):
        members_proxy(bob).recv("alice", 1)


def test_a_session_that_fails_at_its_start_leaves_nothing_behind(both):
    alice, _ = both
    told = Failure("error", "bob", "bob has stopped.").to_dict()
    alice.liveness.heard("bob", {"state": "failed", "boot": "b", "failure": told})
    before = signal.getsignal(signal.SIGINT), list(logging.getLogger().handlers)
    threads = threading.active_count()
    with pytest.raises(PeerFailedError, match="bob has stopped"), joined(alice, "error"):
        pass
    assert _fed("global_context").get_global_context(assert_none=False) is None
    assert (signal.getsignal(signal.SIGINT), list(logging.getLogger().handlers)) == before
    # Of those that began here, none keeps the process from ending.
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join(2)
    assert sum(not t.daemon for t in threading.enumerate()) <= threads


def test_a_cancelled_message_is_not_logged_and_another_fault_is(caplog):
    log = logging.getLogger(_fed("global_context").__name__)
    for error in (CancelledError(), OSError("no route")):
        log.error("Failed to send", exc_info=error)
    assert "no route" in caplog.text
    assert "Cancelled" not in caplog.text


def test_a_ray_that_does_not_run_is_refused_at_once():
    address = f"127.0.0.1:{free_ports(1)[0]}"
    cluster = {**settings()["alice"], "backend": "ray", "ray": {"address": address}}
    expected = rf"`ray\.address` of alice to be a Ray that runs, got '{address}'.*refused; start it"
    with pytest.raises(HostError, match=expected), session(mode="cluster", cluster=cluster):
        pass
