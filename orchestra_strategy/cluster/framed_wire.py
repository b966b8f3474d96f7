"""Calls between parties over a link of the platform's, in place of a port of our own."""

import itertools
import logging
import threading
import time
from typing import Any

from orchestra_strategy.cluster.lane import Lane, Link, Outgoing, pack_frame, unpack_frame
from orchestra_strategy.cluster.settings import ClusterSettings
from orchestra_strategy.cluster.wire import Handlers, UnreachableError

__all__ = ["FramedWire"]

_LOG = logging.getLogger(__name__)
_PIECE = 2**20  # bytes of data in a frame: signs of life go between two
_PART_SECONDS = 5.0  # the longest wait for the peers' last frames


class FramedWire:
    """What :class:`~orchestra_strategy.cluster.wire.Wire` does, over somebody else's link.

    The link is trusted to say who sends, as the platform's gateway sees to it.

    Args:
        settings: Of the cluster.
        handlers: Who gets what comes; called in threads.
        link: The way to each peer.
    """

    def __init__(self, settings: ClusterSettings, handlers: Handlers, link: Link) -> None:
        self._handlers = handlers
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._replies: dict[int, tuple[threading.Event, list[dict[str, Any]]]] = {}
        self._pieces: dict[tuple[str, str], bytearray] = {}
        self._parted = False
        self._lanes = {peer: Lane(peer, link, self._on_frame) for peer in settings.peers}
        for lane in self._lanes.values():
            lane.start()

    def ask(self, peer: str, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Send a peer a message, and return what it answers.

        Raises:
            UnreachableError: No answer within the time.
        """
        lane, number = self._lanes[peer], next(self._numbers)
        come, reply = self._replies[number] = (threading.Event(), [])
        item = lane.put(pack_frame({"kind": "ask", "id": number, "message": message}), urgent=True)
        try:
            if not come.wait(seconds):
                item.dropped = True  # if it is still here, it would be old news
                told = "sent, and not answered" if item.done.is_set() else lane.trouble
                raise UnreachableError(told)
            return reply[0]
        finally:
            del self._replies[number]

    def send(self, peer: str, key: str, data: bytes, seconds: float) -> None:
        """Hand data to a peer.

        Raises:
            UnreachableError: The link has not taken all of it within the time.
        """
        lane = self._lanes[peer]
        for start in range(0, max(len(data), 1), _PIECE):
            piece = data[start : start + _PIECE]
            header = {"kind": "data", "key": key, "at": start, "of": len(data)}
            last = lane.put(pack_frame(header, piece), urgent=False)
        self._wait_for(last, seconds, lane)

    def stop(self) -> None:
        """Say good-bye, and take in what the peers still say, for a few seconds at most."""
        with self._lock:
            if self._parted:
                return
            self._parted = True
        last = [
            lane.put(pack_frame({"kind": "bye"}), urgent=False) for lane in self._lanes.values()
        ]
        end = time.monotonic() + _PART_SECONDS
        for item in last:
            item.done.wait(max(end - time.monotonic(), 0))
        for lane in self._lanes.values():
            lane.ended.wait(max(end - time.monotonic(), 0))
            lane.close()

    def _wait_for(self, item: Outgoing, seconds: float, lane: Lane) -> None:
        end = time.monotonic() + seconds
        while not item.done.wait(0.2):
            if self._parted or time.monotonic() > end:
                raise UnreachableError(lane.trouble)

    def _on_frame(self, sender: str, frame: bytes) -> bool:
        """Take a frame in; return False for the peer's last one."""
        try:
            header, body = unpack_frame(frame)
            kind = header["kind"]
            if kind == "ask":
                reply = self._handlers.answer(sender, header["message"])
                answer = {"kind": "reply", "id": header["id"], "reply": reply}
                self._lanes[sender].put(pack_frame(answer), urgent=True)
            elif kind == "reply":
                self._on_reply(header["id"], header["reply"])
            elif kind == "data":
                self._on_data(sender, str(header["key"]), header["at"], header["of"], body)
            return bool(kind != "bye")
        except (KeyError, TypeError, ValueError) as error:
            # Not what our version sends. Who waits for more of it, ends at his limit.
            _LOG.warning("a message of %s cannot be read (%s)", sender, type(error).__name__)
            return True

    def _on_reply(self, number: int, reply: dict[str, Any]) -> None:
        waiting = self._replies.get(number)
        if waiting is not None:  # else it has come too late
            waiting[1].append(reply)
            waiting[0].set()

    def _on_data(self, sender: str, key: str, at: int, of: int, body: bytes) -> None:
        self._handlers.alive(sender)
        if at == 0:
            self._pieces[sender, key] = bytearray()
        data = self._pieces[sender, key]
        if len(data) != at:
            raise ValueError("a piece of data in the wrong place")
        data += body
        if len(data) >= of:
            del self._pieces[sender, key]
            self._handlers.store(sender, key, bytes(data))
