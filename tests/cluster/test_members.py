"""Parties meet, agree, exchange data and part: real calls over 127.0.0.1, in one process."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager

import pytest

from orchestra_strategy.cluster import Members, make_certificates
from orchestra_strategy.cluster.settings import ClusterSettings
from orchestra_strategy.cluster.tls_files import read_tls
from orchestra_strategy.config import parse_config
from orchestra_strategy.errors import (
    ClusterError,
    DataError,
    PeerFailedError,
    PeerLostError,
    PeersDifferError,
)
from tests.cluster.ports import settings


@contextmanager
def members(number=2, only=None, **changed):
    with ExitStack() as stack:
        joined = []
        for me, values in settings(number, **changed).items():
            if only is None or me in only:
                member = Members(parse_config(ClusterSettings, values))
                joined.append(stack.enter_context(closing(member)))
        yield joined


def at_each(joined, work):
    """Run something at all parties at the same time; its value or its error, of each."""

    def caught(member):
        try:
            return work(member)
        except ClusterError as error:
            return error

    with ThreadPoolExecutor(len(joined)) as pool:
        return list(pool.map(caught, joined))


def agree(topic="start", **of):
    return lambda m: m.agree(topic, of.get(m.settings.self_party, {"lr": "0.01"}))


def test_three_agree_and_part():
    with members(3) as joined:
        assert at_each(joined, agree()) == [None] * 3
        assert at_each(joined, lambda m: m.finish()) == [None] * 3


def test_differences_are_named_at_all_parties():
    with members(3) as joined:
        errors = at_each(joined, agree(bob={"lr": "0.02", "rounds": "3"}))
        for error in errors:
            assert isinstance(error, PeersDifferError)
            assert "`lr`: alice 0.01, bob 0.02, carol 0.01" in str(error)
            assert "`rounds`: alice nothing, bob 3, carol nothing" in str(error)


def test_data_arrives_whole_and_once():
    data = bytes(range(256)) * 4096 * 20  # 20 MiB, above gRPC's own limit of 4
    with members() as (alice, bob):
        at_each([alice, bob], agree())
        alice.send("bob", "7", data)
        assert bob.take("alice", "7") == data
        with pytest.raises(ClusterError, match=r"alice to send what it computes within 0\.3 s"):
            bob.mailbox.take("alice", "7", 0.3, bob.liveness.check)


def test_one_who_never_comes_is_named_with_his_address():
    with members(3, only=("alice", "bob"), start_timeout=1.5) as joined:
        begun = time.monotonic()
        for error in at_each(joined, agree()):
            assert "Expected carol to come to `start` within 1.5 s" in str(error)
            assert "carol at 127.0.0.1:" in str(error)
        assert time.monotonic() - begun < 5


def test_who_waits_is_told_for_whom(monkeypatch):
    monkeypatch.setattr("orchestra_strategy.cluster.members._TELL", 0.2)
    lines = []
    with members(2, only=("alice",), start_timeout=1.0) as (alice,):
        alice.tell = lines.append
        assert isinstance(at_each([alice], agree())[0], ClusterError)
    assert lines
    assert lines[0].startswith("waiting for bob (start")


def test_silence_is_a_loss():
    with members(3) as (alice, bob, carol):
        at_each([alice, bob, carol], agree())
        bob.close()
        begun = time.monotonic()
        for error in at_each([alice, carol], lambda m: m.take("bob", "1")):
            assert isinstance(error, PeerLostError)
            assert "a sign of life of bob" in str(error)
            assert "--resume" in str(error)
        assert time.monotonic() - begun < 4


def test_data_for_a_peer_that_cannot_be_reached_yet_are_sent_again():
    values = settings()
    with closing(Members(parse_config(ClusterSettings, values["alice"]))) as alice:
        sender = threading.Thread(target=alice.send, args=("bob", "1", b"again"))
        sender.start()
        time.sleep(1.0)  # refused so far, more than once
        with closing(Members(parse_config(ClusterSettings, values["bob"]))) as bob:
            assert bob.take("alice", "1") == b"again"
            sender.join(5)
            assert not sender.is_alive()


def test_a_slow_peer_that_beats_is_not_lost(monkeypatch):
    monkeypatch.setattr("orchestra_strategy.cluster.members._SLOW", 1.5)
    with members(step_timeout=3.0) as (alice, bob):
        at_each([alice, bob], agree())
        lines = []
        alice.tell = lines.append
        sender = threading.Timer(2.5, lambda: bob.send("alice", "1", b"late"))
        sender.start()  # longer than peer_timeout
        assert alice.take("bob", "1") == b"late"
        sender.join()
    assert len(lines) == 1
    assert lines[0].startswith("bob is slow: alive, and waited for since")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (DataError("Expected `x` to be images, got texts."), "bob has stopped: Expected `x`"),
        (RuntimeError("row 17: Smith"), "bob has stopped with RuntimeError; its own output"),
        (KeyboardInterrupt(), "bob was interrupted by its user."),
    ],
    ids=["ours", "other", "ctrl-c"],
)
def test_an_error_reaches_the_others(error, text):
    with members(3) as (alice, bob, carol):
        at_each([alice, bob, carol], agree())
        bob.abandon(error)
        bob.close()  # at once: the others know by then
        for got in at_each([alice, carol], lambda m: m.take("bob", "1")):
            assert isinstance(got, PeerFailedError)
            assert text in str(got)
            assert "Smith" not in str(got)


def test_the_end_waits_for_the_slowest():
    with members() as (alice, bob):
        at_each([alice, bob], agree())
        ends = {}

        def late(member):
            time.sleep(1.0 if member is bob else 0)
            member.finish()
            ends[member] = time.monotonic()

        begun = time.monotonic()
        at_each([alice, bob], late)
        assert ends[alice] - begun > 0.9


def test_a_party_started_anew_is_not_taken_for_the_old_one():
    values = settings()
    alice, bob = (Members(parse_config(ClusterSettings, values[p])) for p in ("alice", "bob"))
    with closing(alice):
        at_each([alice, bob], agree())
        bob.close()
        again = Members(parse_config(ClusterSettings, values["bob"]))
        with closing(again), pytest.raises(PeerLostError, match="bob was started anew"):
            alice.take("bob", "1")


def test_the_port_is_the_one_that_was_asked_for():
    with members() as (alice, _):
        port = alice.settings.parties["alice"].address
        with pytest.raises(ClusterError, match=f"`listen` of alice to be a free address.*{port}"):
            Members(alice.settings)
        other = socket.socket()  # bound on all interfaces it would be refused here, too
        with closing(other):
            other.bind(("127.0.0.2", int(port.split(":")[1])))


def test_another_job_on_the_same_port_is_refused():
    values = settings(start_timeout=1.5)
    values["bob"]["job"] = "other"
    both = [Members(parse_config(ClusterSettings, v)) for v in values.values()]
    try:
        for error in at_each(both, agree()):
            assert "PERMISSION_DENIED: expected `job`" in str(error)
    finally:
        for member in both:
            member.close()


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    ours, theirs = (tmp_path_factory.mktemp(n) for n in ("ours", "theirs"))
    make_certificates(ours, ["alice", "bob", "eve"])
    make_certificates(theirs, ["alice", "bob"])
    return ours, theirs


def tls(folder, party):
    names = {"ca": "ca.pem", "cert": f"{party}.pem", "key": f"{party}.key"}
    return {k: str(folder / v) for k, v in names.items()}


def secured(alice, bob, change=None):
    values = settings(start_timeout=2.0)
    values["alice"]["tls"], values["bob"]["tls"] = alice, bob
    both = [Members(parse_config(ClusterSettings, v)) for v in values.values()]
    if change is not None:
        change(both[1])
    try:
        return at_each(both, agree())
    finally:
        for member in both:
            member.close()


def test_mutual_tls(keys):
    assert secured(tls(keys[0], "alice"), tls(keys[0], "bob")) == [None, None]


def test_another_authority_is_refused_and_the_party_named(keys):
    for error in secured(tls(keys[0], "alice"), tls(keys[1], "bob")):
        assert "to come to `start` within 2 s, still waiting" in str(error)
        assert "certificate of the same authority" in str(error)


def test_plain_text_is_refused(keys):
    for error in secured(tls(keys[0], "alice"), None):
        assert "to come to `start` within 2 s" in str(error)


def test_nobody_calls_in_anothers_name(keys, monkeypatch):
    """Eve has a good certificate, of her own name, and says that she is bob."""
    monkeypatch.setattr(
        "orchestra_strategy.cluster.wire.read_tls",
        lambda files, party: read_tls(files, party if party != "bob" else "eve"),
    )
    for error in secured(tls(keys[0], "alice"), tls(keys[0], "eve")):
        assert "to come to `start` within 2 s" in str(error)
