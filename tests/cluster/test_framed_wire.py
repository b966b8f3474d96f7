"""Parties over a link that somebody else has opened: here queues, in a platform SecretFlow's."""

import queue
import threading
import time
from contextlib import contextmanager

import pytest

from orchestra_strategy.cluster import Members
from orchestra_strategy.cluster.framed_wire import FramedWire
from orchestra_strategy.cluster.lane import Lane, pack_frame
from orchestra_strategy.cluster.settings import ClusterSettings
from orchestra_strategy.cluster.wire import UnreachableError
from orchestra_strategy.config import parse_config
from orchestra_strategy.errors import ClusterError, DataError, PeerFailedError, PeerLostError
from tests.cluster.ports import settings
from tests.cluster.test_members import agree, at_each


@pytest.fixture(autouse=True)
def _part_soon(monkeypatch):
    """Who is cut off is not waited for as long as in a real job."""
    monkeypatch.setattr("orchestra_strategy.cluster.framed_wire._PART_SECONDS", 1.0)


class Queues:
    """A link between parties of one process; cut, it takes nothing and says so."""

    def __init__(self, me, boxes):
        self.me, self.boxes, self.cut, self.sent = me, boxes, False, []

    def send(self, peer, frame):
        if self.cut:
            raise UnreachableError("UNAVAILABLE: cut")
        self.sent.append(frame)
        self.boxes[self.me, peer].put(frame)

    def receive(self, peer):
        return self.boxes[peer, self.me].get()


@contextmanager
def members(number=2, only=None, **changed):
    every = settings(number, **changed)
    boxes = {(a, b): queue.Queue() for a in every for b in every}
    joined = []
    for me, values in every.items():
        if only is None or me in only:
            link = Queues(me, boxes)
            member = Members(
                parse_config(ClusterSettings, values),
                connect=lambda s, h, link=link: FramedWire(s, h, link),
            )
            member.link = link
            joined.append(member)
    try:
        yield joined
    finally:
        at_each(joined, lambda m: m.close())


def test_three_agree_exchange_and_part():
    data = bytes(range(256)) * 4096 * 5  # in pieces
    with members(3) as joined:
        assert at_each(joined, agree()) == [None] * 3
        alice, bob, _ = joined
        alice.send("bob", "7", data)
        alice.send("bob", "8", b"")
        assert (bob.take("alice", "7"), bob.take("alice", "8")) == (data, b"")
        assert at_each(joined, lambda m: m.finish()) == [None] * 3
        begun = time.monotonic()
        at_each(joined, lambda m: m.close())  # all say good-bye, so that none waits its time out
        assert time.monotonic() - begun < 2


def test_differences_are_named():
    with members() as joined:
        for error in at_each(joined, agree(bob={"lr": "0.02"})):
            assert "`lr`: alice 0.01, bob 0.02" in str(error)


def test_an_error_reaches_the_others():
    with members(3) as (alice, bob, carol):
        at_each([alice, bob, carol], agree())
        bob.abandon(DataError("Expected `x` to be images."))
        for got in at_each([alice, carol], lambda m: m.take("bob", "1")):
            assert isinstance(got, PeerFailedError)
            assert "bob has stopped: Expected `x`" in str(got)


def test_silence_is_a_loss():
    with members() as (alice, bob):
        at_each([alice, bob], agree())
        bob.link.cut = True
        error = at_each([alice], lambda m: m.take("bob", "1"))[0]
        assert isinstance(error, PeerLostError)
        assert "a sign of life of bob" in str(error)


def test_one_who_never_comes_is_named():
    with members(2, only=("alice",), start_timeout=1.0) as (alice,):
        alice.link.cut = True
        error = at_each([alice], agree())[0]
        assert isinstance(error, ClusterError)
        assert "Expected bob to come to `start`" in str(error)
        assert "UNAVAILABLE: cut" in str(error)


def test_a_break_is_bridged():
    with members() as (alice, bob):
        at_each([alice, bob], agree())
        alice.link.cut = True
        sender = threading.Thread(target=alice.send, args=("bob", "1", b"again"))
        sender.start()
        time.sleep(0.5)
        alice.link.cut = False
        assert bob.take("alice", "1") == b"again"
        sender.join(5)
        assert not sender.is_alive()


def test_a_sign_of_life_overtakes_large_data():
    frames = []
    hold, link = threading.Event(), Queues("alice", {})

    def send(peer, frame):
        hold.wait(5)
        frames.append(frame)

    link.send, link.receive = send, lambda peer: time.sleep(60)
    lane = Lane("bob", link, lambda *_: True)
    lane.start()
    last = [lane.put(bytes([n]), urgent=False) for n in range(3)][-1]
    lane.put(b"sign", urgent=True)
    hold.set()
    assert last.done.wait(5)
    assert frames.index(b"sign") < 2  # the first piece was on its way
    lane.close()


def test_pieces_are_signs_of_life():
    """A slow link that large data fill for long is not taken for a dead peer."""
    with members() as (alice, bob):
        at_each([alice, bob], agree())
        bob.link.cut = True
        header = {"kind": "data", "key": "1", "of": 40}
        for at in range(0, 40, 10):  # longer than peer_timeout in all
            time.sleep(0.6)
            alice.link.boxes["bob", "alice"].put(pack_frame({**header, "at": at}, b"x" * 10))
        assert alice.take("bob", "1") == b"x" * 40


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xff\xff\xff\xff",
        pack_frame({"kind": "ask"}),
        pack_frame({"kind": "ask", "id": 1, "message": {}}),
        pack_frame({"kind": "data", "key": "1", "at": 5, "of": 9}),
        b"\0\0\0\2[]",
    ],
    ids=["empty", "short", "no-id", "no-snapshot", "middle", "list"],
)
def test_what_cannot_be_read_is_left_out_and_the_rest_goes_on(frame):
    with members() as (alice, bob):
        alice.link.send("bob", frame)
        assert at_each([alice, bob], agree()) == [None] * 2
        alice.send("bob", "2", b"ok")
        assert bob.take("alice", "2") == b"ok"
