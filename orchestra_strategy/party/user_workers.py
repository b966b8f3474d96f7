"""Several virtual users at a time: a party's own processes, each with a copy of it.

Users are handed out one by one, to whoever is free, and taken in their order: sums are the same
bits however many processes there are, and so is all that a user draws, which depends on (party,
round, user) alone.

The processes are started with a program of their own (no fork: a party has threads of SecretFlow,
whose locks a fork would copy while they are held).
"""

import os
import socket
import struct
import subprocess
import sys
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from orchestra_strategy import host
from orchestra_strategy.errors import HostError, ParameterError
from orchestra_strategy.party.roles import Party
from orchestra_strategy.party.user_messages import receive, send

__all__ = ["UserWorkers", "check_apart"]

_KEEPING_HOOKS = (
    "start_round",
    "before_local_training",
    "after_local_training",
    "receive_extras",
    "needs_initial_pass",
    "kept_state",
)
_OUR_OBJECTIVES_KEEP = {"target", "moves", "memory", "centroids"}
_AHEAD = 2  # users that are done, per process, and wait for one before them
_LONGEST = 3600  # seconds without any answer: a process that is frozen or starved, and no slow user


def check_apart(party: Party) -> None:
    """Refuse ``user_workers`` where users of a round may depend on each other.

    Raises:
        ParameterError: A hook, or the objective, keeps something from user to user; or a GPU is
            used.
    """
    wanted = party.config.user_workers
    if wanted == 1:
        return
    name = host.plain_class(party).__name__
    if party.exe_device.type != "cpu":
        raise ParameterError(
            f"Expected `user_workers` to be 1 on a GPU, got {wanted}: its processes would wait for "
            "each other there."
        )
    hooks = [hook for hook in _KEEPING_HOOKS if party.overrides(hook)]
    if hooks:
        raise ParameterError(
            f"Expected `user_workers` to be 1 for `{name}`, which overrides `{hooks[0]}`, got "
            f"{wanted}: what the hook keeps in one process is not there in the others."
        )
    kept = set(getattr(party.objective, "state_dict", dict)()) - _OUR_OBJECTIVES_KEEP
    if kept:
        raise ParameterError(
            f"Expected `user_workers` to be 1 for the objective of `{name}`, which keeps "
            f"{', '.join(sorted(kept))}, got {wanted}: what one user leaves there would not reach "
            "those that train in other processes."
        )


class UserWorkers:
    """The processes of a party; they are started when they are first needed.

    Args:
        party: The strategy.
        count: How many.
    """

    def __init__(self, party: Party, count: int) -> None:
        self.party, self.count = party, count
        self._processes: list[subprocess.Popen[bytes]] = []
        self._connections: list[Connection] = []

    def work(self, phase: str, users: Sequence[int]) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Have users' work done, and yield what each has come to, in the order of ``users``.

        Args:
            phase: ``"round"``, or ``"init"`` for round 0.
            users: Their numbers.

        Raises:
            HostError: A process has ended, or none has answered for an hour; then all are ended,
                and the next call starts new ones.
        """
        ready: dict[int, Mapping[str, Any]] = {}
        waiting, free = deque(users), self._connections[:]
        try:
            if not free:
                self._start()
                free += self._connections
            for connection in free:
                send(connection, ("begin", self._round_state(phase)))
            for idx in users:
                while True:
                    while free and waiting and len(ready) < _AHEAD * self.count:
                        first = waiting.popleft()
                        send(free.pop(), ("user", first, self.party.method.kept_of(first)))
                    if idx in ready:
                        break
                    for connection in self._answering(free):
                        told = receive(connection)
                        if "user" not in told:
                            raise told["error"] from told["where"]
                        ready[told["user"]] = told
                        free.append(connection)
                yield idx, ready.pop(idx)
        except BlockingIOError as error:
            raise self._silent() from error
        except (EOFError, OSError) as error:
            raise self._ended() from error
        finally:
            if waiting or len(free) < len(self._connections):  # given up half way
                self.close()

    def close(self) -> None:
        """End the processes."""
        _end(self._processes, self._connections)

    def _answering(self, free: list[Connection]) -> list[Connection]:
        """Wait until one of the others answers; return those that do."""
        answering = wait([c for c in self._connections if c not in free], _LONGEST)
        if not answering:
            raise self._silent()
        return [c for c in self._connections if c in answering]

    def _start(self) -> None:
        for _ in range(self.count):
            ours, theirs = socket.socketpair()
            for half_way in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):  # in the midst of a message
                ours.setsockopt(socket.SOL_SOCKET, half_way, struct.pack("ll", _LONGEST, 0))
            with theirs:
                number = theirs.fileno()
                command = [sys.executable, "-m", "orchestra_strategy.party.user_worker"]
                paths = os.pathsep.join(p for p in sys.path if p)
                process = subprocess.Popen(
                    [*command, str(number)],
                    pass_fds=[number],
                    env={**os.environ, "PYTHONPATH": paths},
                )
            self._processes.append(process)
            self._connections.append(Connection(ours.detach()))
        weakref.finalize(self, _end, self._processes, self._connections)
        for connection in self._connections:
            send(connection, {"path": list(sys.path)})
            send(connection, self._copy())

    def _copy(self) -> dict[str, Any]:
        party = self.party
        return {
            "class": host.plain_class(party),
            "builder": party.model_builder,
            "seed": party.seed,
            "parameters": {**party.config.model_dump(), "user_workers": 1},
            "party": party.party,
            "streams": party.streams,
            "data": party.require_data(),
        }

    def _round_state(self, phase: str) -> dict[str, Any]:
        party = self.party
        return {
            "phase": phase,
            "rounds_done": party.rounds_done,
            "round": party.round_index,
            "weights": dict(party.model.state_dict()),
            "queries": party.user_type.user.counted_queries,
            "method": party.method.state_for_users(),
        }

    def _silent(self) -> HostError:
        return HostError(
            f"Expected an answer of one of the {self.count} processes of `user_workers` within "
            f"{_LONGEST} s, got none: they are frozen, or starved by others. See to the machine, "
            "or give fewer `user_workers`; the round can be resumed from the last checkpoint."
        )

    def _ended(self) -> HostError:
        codes = [code for p in self._processes if (code := _code(p)) is not None]
        self.close()
        return HostError(
            f"Expected the {self.count} processes of `user_workers` to answer, got the end of one "
            f"(exit code {codes[0] if codes else 'unknown'}; -9 is often a lack of memory). Give "
            "fewer `user_workers`; the round can be resumed from the last checkpoint."
        )


def _code(process: "subprocess.Popen[bytes]") -> int | None:
    try:
        return process.wait(timeout=1)
    except subprocess.TimeoutExpired:
        return None


def _end(processes: "list[subprocess.Popen[bytes]]", connections: list[Connection]) -> None:
    """End processes and forget them."""
    for connection in connections:
        connection.close()
    for process in processes:
        process.kill()
        process.wait()
    processes.clear()
    connections.clear()
