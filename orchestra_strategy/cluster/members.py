"""A party's view of the others in its job: calls, agreement, data, signs of life."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from orchestra_strategy.cluster.clocks import Clocks
from orchestra_strategy.cluster.differences import refuse_differences
from orchestra_strategy.cluster.failure import failure_of
from orchestra_strategy.cluster.liveness import Liveness
from orchestra_strategy.cluster.mailbox import Mailbox
from orchestra_strategy.cluster.settings import ClusterSettings
from orchestra_strategy.cluster.wire import Calls, Handlers, UnreachableError, Wire
from orchestra_strategy.errors import ClusterError

__all__ = ["Members"]

_LOG = logging.getLogger(__name__)
_POLL = 0.3  # seconds between two questions
_TELL = 15.0  # seconds between two lines on who is waited for
_SLOW = 60.0  # seconds of waiting after which a peer is called slow, and between two lines on it


class Members:
    """Joins a job's parties; the port is open as soon as it is made.

    Args:
        settings: Of the cluster.
        tell: Gets a line for the user where there is something to wait for.
        connect: Makes the transport; by default a port of this job's own.

    Raises:
        ClusterError: Keys or address cannot be used.
    """

    def __init__(
        self,
        settings: ClusterSettings,
        tell: Callable[[str], None] = _LOG.warning,
        connect: Callable[[ClusterSettings, Handlers], Calls] = Wire,
    ) -> None:
        self.settings, self.tell = settings, tell
        self.mailbox = Mailbox()
        self._topics: dict[str, dict[str, str]] = {}
        self._told_of: dict[str, float] = {}
        self._lock = threading.Lock()
        self.liveness = Liveness(
            settings.self_party,
            settings.peers,
            self._ask,
            settings.heartbeat,
            settings.peer_timeout,
        )
        self.sent = self.received = 0  # bytes of data
        self._knocks: dict[str, float] = {}
        self._clocks = Clocks()
        handlers = Handlers(self._answer, self.mailbox.put, self.liveness.alive, self._knock)
        self._wire = connect(settings, handlers)
        self.liveness.start()

    def agree(self, topic: str, mine: Mapping[str, str], seconds: float | None = None) -> None:
        """Wait until every party has come to this point, and compare what they bring.

        Args:
            topic: Names the point; each can be passed once.
            mine: What has to be the same at all, a text by name.
            seconds: The longest wait; ``start_timeout`` by default.

        Raises:
            PeersDifferError: Something differs.
            ClusterError: A party does not come in time, is lost, or has stopped.
        """
        seconds = self.settings.start_timeout if seconds is None else seconds
        with self._lock:
            self._topics[topic] = dict(mine)
        values = {self.settings.self_party: dict(mine)}
        end, told = time.monotonic() + seconds, time.monotonic()
        while missing := [p for p in self.settings.peers if p not in values]:
            for peer in missing:
                theirs = self._topic_of(peer, topic, max(end - time.monotonic(), 0.1))
                if theirs is not None:
                    values[peer] = theirs
            self.liveness.check()
            now = time.monotonic()
            if now > end:
                raise ClusterError(self._late(topic, seconds, missing))
            if now - told > _TELL:
                told = now
                self.tell(f"waiting for {', '.join(missing)} ({topic}, {end - now:.0f} s left)")
            if len(values) < len(self.settings.present):
                time.sleep(_POLL)
        refuse_differences({party: values[party] for party in self.settings.present})

    def send(self, peer: str, key: str, data: bytes) -> None:
        """Hand data to a peer; a broken connection is tried again until the peer counts as lost.

        Raises:
            ClusterError: It is lost or has stopped, or ``step_timeout`` is over.
        """
        end = time.monotonic() + self.settings.step_timeout
        while True:
            self.liveness.check()
            try:
                self._wire.send(peer, key, data, max(end - time.monotonic(), 0.1))
                with self._lock:
                    self.sent += len(data)
                return
            except UnreachableError as error:
                if time.monotonic() > end or self.mailbox.closed:
                    raise ClusterError(
                        f"Expected {peer} to take {len(data)} bytes within "
                        f"{self.settings.step_timeout:g} s (`step_timeout`), got {error}."
                    ) from None
                time.sleep(_POLL)

    def take(self, peer: str, key: str) -> bytes:
        """Wait for what a peer sends.

        Raises:
            ClusterError: It is lost or has stopped, or ``step_timeout`` is over.
        """
        begun = time.monotonic()

        def check() -> None:
            self.liveness.check()
            self._tell_of_slow(peer, time.monotonic() - begun)

        data = self.mailbox.take(peer, key, self.settings.step_timeout, check)
        with self._lock:
            self.received += len(data)
        return data

    def finish(self) -> None:
        """Say that all is done here, and stay until the others have done, too, and know it.

        Raises:
            ClusterError: One of them is lost or has stopped, or ``step_timeout`` is over.
        """
        self.liveness.done()
        end, told = time.monotonic() + self.settings.step_timeout, time.monotonic()
        while waiting := self.liveness.waiting_for():
            self.liveness.check()
            now = time.monotonic()
            if now > end:
                raise ClusterError(
                    f"Expected {', '.join(waiting)} to end within {self.settings.step_timeout:g} s "
                    "(`step_timeout`) after this party, got no end."
                )
            if now - told > _TELL:
                told = now
                self.tell(f"done here; waiting for {', '.join(waiting)} to end")
            time.sleep(_POLL)
        self.liveness.check()
        self._stay_until_told()

    def abandon(self, error: BaseException) -> None:
        """Tell the peers why this party stops; ends when those that are alive have heard it."""
        self.liveness.fail(failure_of(error, self.settings.self_party))
        self._stay_until_told()

    def close(self) -> None:
        """Close the port; waits for data end with an error."""
        self.mailbox.close()
        self.liveness.stop()
        self._wire.stop()

    def absent_are_back(self) -> bool:
        """Whether all parties that this job goes on without are calling to be taken in again."""
        since = time.monotonic() - self.settings.peer_timeout
        with self._lock:
            back = {party for party, at in self._knocks.items() if at > since}
        return bool(self.settings.absent) and back == set(self.settings.absent)

    def _knock(self, party: str) -> None:
        with self._lock:
            self._knocks[party] = time.monotonic()

    def _tell_of_slow(self, peer: str, waited: float) -> None:
        """Say that a peer is alive and slow, once in a while, however many threads wait for it."""
        now = time.monotonic()
        with self._lock:
            if waited < _SLOW or now - self._told_of.get(peer, -_SLOW) < _SLOW:
                return
            self._told_of[peer] = now
        self.tell(f"{peer} is slow: alive, and waited for since {waited:.0f} s")

    def _stay_until_told(self) -> None:
        end = time.monotonic() + self.settings.peer_timeout
        while self.liveness.untold() and time.monotonic() < end:
            time.sleep(min(_POLL, self.settings.heartbeat))

    def _topic_of(self, peer: str, topic: str, left: float) -> dict[str, str] | None:
        try:
            reply = self._ask(peer, {"kind": "topic", "topic": topic}, min(left, 5.0))
        except UnreachableError as error:
            self.liveness.note_trouble(peer, str(error))
            return None
        theirs: dict[str, str] | None = reply["value"]
        return theirs

    def _ask(self, peer: str, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        says = self.liveness.snapshot()
        asked = time.time()
        reply = self._wire.ask(peer, {**message, "says": says}, seconds)
        self.liveness.heard(peer, reply["says"], knows=says["state"])
        told = self._clocks.compare(peer, reply.get("clock"), asked, time.time())
        if told is not None:
            self.tell(told)
        return reply

    def _answer(self, sender: str, message: dict[str, Any]) -> dict[str, Any]:
        self.liveness.heard(sender, message["says"])
        answer = {"says": self.liveness.snapshot(), "clock": time.time()}
        if message["kind"] == "topic":
            with self._lock:
                answer["value"] = self._topics.get(message["topic"])
        return answer

    def _late(self, topic: str, seconds: float, missing: list[str]) -> str:
        each = "; ".join(
            f"{peer} at {self.settings.parties[peer].address}: {self.liveness.trouble(peer)}"
            for peer in missing
        )
        return (
            f"Expected {', '.join(missing)} to come to `{topic}` within {seconds:g} s, still "
            f"waiting ({each}). Is it started, with the same job file, an address that can be "
            "reached and a certificate of the same authority?"
        )
