"""Frames to and from one peer, over a link that somebody else has opened.

A link hands bytes over in order and says nothing of who is alive. Here each peer gets two threads:
one sends, small frames before the pieces of large data; the other takes in what comes.
"""

import json
import struct
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestra_strategy.cluster.wire import UnreachableError

__all__ = ["Lane", "Link", "Outgoing", "pack_frame", "unpack_frame"]

_AGAIN = 0.3  # seconds until a frame that did not get through is tried again

Header = dict[str, Any]


class Link(Protocol):
    """A way to each peer, in order, whose bytes arrive once or not at all."""

    def send(self, peer: str, frame: bytes) -> None:
        """Hand over a frame.

        Raises:
            UnreachableError: It has not arrived; the same frame may be tried again.
        """

    def receive(self, peer: str) -> bytes:
        """Wait, without limit, for the peer's next frame."""


def pack_frame(header: Header, body: bytes = b"") -> bytes:
    """Return a header and bytes as one frame.

    >>> unpack_frame(pack_frame({"kind": "data"}, b"abc"))
    ({'kind': 'data'}, b'abc')
    """
    head = json.dumps(header).encode()
    return struct.pack(">I", len(head)) + head + body


def unpack_frame(frame: bytes) -> tuple[Header, bytes]:
    """Return header and bytes of a frame.

    Raises:
        ValueError: It is none.
    """
    if len(frame) < 4:
        raise ValueError("a frame without a header")
    end = 4 + int(struct.unpack(">I", frame[:4])[0])
    header = json.loads(frame[4:end])
    if not isinstance(header, dict):
        raise ValueError("a frame whose header is no dictionary")
    return header, frame[end:]


@dataclass
class Outgoing:
    """A frame on its way.

    Attributes:
        frame: Its bytes.
        done: Set when the link has taken it.
        dropped: Whether nobody wants it to be sent any more.
    """

    frame: bytes
    done: threading.Event = field(default_factory=threading.Event)
    dropped: bool = False


class Lane:
    """Both directions to one peer.

    Args:
        peer: Who it is.
        link: The way to it.
        on_frame: Called with each frame that comes, in this lane's own thread; returns whether
            more is to come.
    """

    def __init__(self, peer: str, link: Link, on_frame: Callable[[str, bytes], bool]) -> None:
        self.peer, self.trouble = peer, "no answer yet"
        self._link, self._on_frame = link, on_frame
        self._ready = threading.Condition()
        self._urgent: deque[Outgoing] = deque()
        self._bulk: deque[Outgoing] = deque()
        self._closed = False
        self.ended = threading.Event()

    def start(self) -> None:
        """Begin to send and to take in."""
        for work in (self._send_all, self._take_all):
            threading.Thread(target=work, name=f"lane-{self.peer}", daemon=True).start()

    def put(self, frame: bytes, urgent: bool) -> Outgoing:
        """Queue a frame; urgent ones overtake the others."""
        item = Outgoing(frame)
        with self._ready:
            (self._urgent if urgent else self._bulk).append(item)
            self._ready.notify()
        return item

    def close(self) -> None:
        """Send nothing any more."""
        with self._ready:
            self._closed = True
            self._ready.notify()

    def _send_all(self) -> None:
        while (item := self._next()) is not None:
            while not (item.dropped or self._closed):
                try:
                    self._link.send(self.peer, item.frame)
                except UnreachableError as error:
                    self.trouble = str(error)
                    with self._ready:
                        self._ready.wait(_AGAIN)
                else:
                    item.done.set()
                    break

    def _next(self) -> Outgoing | None:
        with self._ready:
            while not (self._urgent or self._bulk or self._closed):
                self._ready.wait()
            if self._closed:
                return None
            return (self._urgent or self._bulk).popleft()

    def _take_all(self) -> None:
        while self._on_frame(self.peer, self._link.receive(self.peer)):
            pass
        self.ended.set()
