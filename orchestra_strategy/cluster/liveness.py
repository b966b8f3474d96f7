"""Signs of life to and from each peer, and what the peers say of themselves."""

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestra_strategy.cluster.failure import Failure
from orchestra_strategy.cluster.wire import UnreachableError
from orchestra_strategy.errors import ClusterError

__all__ = ["Liveness"]

State = Literal["running", "done", "failed"]
_AGAIN = "start it again, and let all parties go on from their last checkpoint (`--resume`)."

Ask = Callable[[str, dict[str, Any], float], dict[str, Any]]


@dataclass
class _Peer:
    """What is known of a peer; ``heard`` is None before its first sign of life."""

    heard: float | None = None
    state: State = "running"
    boot: str = ""
    knows: State = "running"  # the last state of this party that it has seen
    trouble: str = field(default="no answer yet")


class Liveness:
    """Beats every peer, and notes the first failure of the job.

    Args:
        me: This party.
        peers: The others.
        ask: Sends a peer a message, with a snapshot, and calls :meth:`heard` with the answer's.
        heartbeat: Seconds between two beats.
        peer_timeout: Seconds of silence after which a peer is lost.
        on_failure: Called once, in a thread, with the first failure that is not this party's own.
    """

    def __init__(
        self,
        me: str,
        peers: Sequence[str],
        ask: Ask,
        heartbeat: float,
        peer_timeout: float,
        on_failure: Callable[[ClusterError], None] | None = None,
    ) -> None:
        self.on_failure = on_failure
        self._me, self._ask = me, ask
        self._heartbeat, self._limit = heartbeat, peer_timeout
        self._boot = secrets.token_hex(8)
        self._lock = threading.RLock()
        self._state: State = "running"
        self._failure: Failure | None = None
        self._error: ClusterError | None = None
        self._peers = {peer: _Peer() for peer in peers}
        self._over = threading.Event()

    def start(self) -> None:
        """Begin to beat, in a thread for each peer, so that none holds up the others."""
        for peer in self._peers:
            threading.Thread(target=self._beat, args=(peer,), daemon=True).start()

    def stop(self) -> None:
        """End the beats."""
        self._over.set()

    def check(self) -> None:
        """Raise the job's failure, if there is one.

        Raises:
            ClusterError: A party is lost, or has stopped.
        """
        with self._lock:
            if self._error is not None:
                raise self._error

    def snapshot(self) -> dict[str, Any]:
        """Return what this party says of itself."""
        with self._lock:
            failure = None if self._failure is None else self._failure.to_dict()
            return {"state": self._state, "boot": self._boot, "failure": failure}

    def heard(self, peer: str, says: dict[str, Any], knows: str | None = None) -> None:
        """Note a sign of life.

        Args:
            peer: Who gave it.
            says: Its snapshot.
            knows: The state of this party that it has certainly seen, if any.
        """
        with self._lock:
            known = self._peers[peer]
            known.heard = time.monotonic()
            known.boot = known.boot or str(says["boot"])
            if known.boot != says["boot"]:
                text = f"{peer} was started anew in the middle of the job; {_AGAIN}"
                self._fail(Failure("lost", peer, text), None)
                return
            known.state = says["state"] if says["state"] in ("done", "failed") else "running"
            if knows == self._state:
                known.knows = self._state
            if says["failure"] is not None:
                self._fail(Failure.from_dict(says["failure"]), peer)

    def alive(self, peer: str) -> None:
        """Note that something has come from a peer, such as a piece of large data."""
        with self._lock:
            if self._peers[peer].heard is not None:
                self._peers[peer].heard = time.monotonic()

    def fail(self, failure: Failure) -> None:
        """Say that this party cannot go on; peers hear of it with the next beat."""
        with self._lock:
            self._failure = self._failure or failure
            self._state = "failed"

    def done(self) -> None:
        """Say that this party has done its work."""
        with self._lock:
            if self._state == "running":
                self._state = "done"

    def waiting_for(self) -> dict[str, float | None]:
        """Return the peers that are neither done nor failed, and the seconds since each's sign."""
        now = time.monotonic()
        with self._lock:
            return {
                peer: None if known.heard is None else now - known.heard
                for peer, known in self._peers.items()
                if known.state == "running"
            }

    def note_trouble(self, peer: str, text: str) -> None:
        """Note what the transport says of a call that did not get through."""
        with self._lock:
            known = self._peers[peer]
            # A refusal says more than the silence after the peer has ended because of it.
            if not known.trouble.startswith("PERMISSION_DENIED"):
                known.trouble = text

    def trouble(self, peer: str) -> str:
        """Return what the transport said when a peer was last called without success."""
        with self._lock:
            return self._peers[peer].trouble

    def untold(self) -> list[str]:
        """Return the peers, alive as far as is known, that have not seen this party's end."""
        now = time.monotonic()
        with self._lock:
            return [
                peer
                for peer, known in self._peers.items()
                if known.knows != self._state
                and known.state != "failed"  # ends for a reason of its own
                and known.heard is not None
                and now - known.heard < self._limit
            ]

    def _fail(self, failure: Failure, told_by: str | None) -> None:
        """Note a failure of the job, the first one alone; the lock is held."""
        if self._failure is not None or self._state == "failed":
            return
        self._failure, self._error = failure, failure.error(told_by)
        if self.on_failure is not None:
            self.on_failure(self._error)

    def _beat(self, peer: str) -> None:
        last = time.monotonic()
        while not self._over.wait(self._heartbeat):
            now = time.monotonic()
            if now - last > max(self._limit / 2, 3 * self._heartbeat):
                # This process itself stood still: the silence was not the peer's.
                self._forgive(peer, now)
            try:
                self._ask(peer, {"kind": "beat"}, 2 * self._heartbeat)
            except UnreachableError as error:
                self.note_trouble(peer, str(error))
            self._judge(peer)
            last = time.monotonic()

    def _forgive(self, peer: str, now: float) -> None:
        with self._lock:
            if self._peers[peer].heard is not None:
                self._peers[peer].heard = now

    def _judge(self, peer: str) -> None:
        with self._lock:
            known = self._peers[peer]
            if known.heard is None or known.state != "running":
                return  # not here yet, which the start's limit is for; or gone for good reason
            silence = time.monotonic() - known.heard
            if silence > self._limit:
                text = (
                    f"Expected a sign of life of {peer} every {self._heartbeat:g} s, got none for "
                    f"{silence:.0f} s (`peer_timeout={self._limit:g}`): its process was ended or "
                    f"stands still, or the network is cut; {_AGAIN}"
                )
                self._fail(Failure("lost", peer, text), None)
