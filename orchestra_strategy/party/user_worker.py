"""A process that trains some of a party's virtual users: ``python -m ...user_worker FD``.

It holds a copy of the party, of the same class, parameters, samples and random streams, and is told
at the beginning of each round what the party has made of the round before. Then it gets one user
after the other. What a user's steps come to depends on nothing else, so that it does not matter in
which process they run. It ends when its party does: then nobody holds the other end any more.
"""

import logging
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch

from orchestra_strategy.party.user_messages import (
    RaisedElsewhereError,
    as_sent_error,
    receive,
    send,
)
from orchestra_strategy.threads import torch_threads

__all__ = ["copy_of", "serve"]


def copy_of(start: Mapping[str, Any]) -> Any:
    """Return a copy of a party, from what :class:`~.user_workers.UserWorkers` sends first."""
    logging.disable(logging.WARNING)  # the party has said it
    party = start["class"](start["builder"], random_seed=start["seed"], **start["parameters"])
    party.privacy.rehearsed = None  # the party has rehearsed
    party.party, party.streams = start["party"], start["streams"]
    party._data = start["data"]
    party.user_type.take_data()
    logging.disable(logging.NOTSET)
    return party


class _Desk:
    """Does what a party asks for, one thing after the other.

    Args:
        party: The copy.
    """

    def __init__(self, party: Any) -> None:
        self.party = party
        self.left: Any = None
        party.take_user = self._keep  # it is for the party itself to take

    def _keep(self, user: int | None, left: Any) -> None:
        self.left = {"left": left}

    def begin(self, round_state: Mapping[str, Any]) -> None:
        """Put the copy where the party is in the round under way."""
        party = self.party
        party.rounds_done, party.round_index = round_state["rounds_done"], round_state["round"]
        party.model.load_state_dict(round_state["weights"])
        party.method.load_state_for_users(round_state["method"])
        party.user_type.configure()
        user = party.user_type.user
        user.counted_queries = round_state["queries"]
        user.model.load_state_dict(round_state["weights"])
        payload = {"parameters": [p.detach() for p in party.model.parameters()], "buffers": None}
        start = [b.detach().clone() for b in user.model.buffers()]
        self.work: Callable[[int], Any]
        if round_state["phase"] == "init":
            self.work = lambda idx: party.first_pass(idx, party.user_type.samples_for(idx))
        else:
            self.work = partial(user.work_of, payload=payload, start=start)

    def do(self, idx: int, kept: Any) -> dict[str, Any]:
        """Do a user's work, and return what it has come to, or its error."""
        party = self.party
        self.left = None
        party.method.load_kept_of(idx, kept)
        rows, failures = party.reports.rows_trained, self._failures()
        told: dict[str, Any] = {"user": idx}
        try:
            told["outcome"] = self.work(idx)
        except Exception as error:
            where = "".join(traceback.format_exception(error))
            told |= {"error": as_sent_error(error), "where": RaisedElsewhereError(where)}
        told |= self.left or {}
        told["rows"] = party.reports.rows_trained - rows
        told["failures"] = self._failures() - failures
        return told

    def _failures(self) -> int:
        return int(getattr(self.party.privacy.silence, "failures", 0))


def serve(connection: Connection) -> None:
    """Answer a party until it hangs up."""
    start = receive(connection)
    sys.path[:] = start["path"]
    desk: _Desk | None = None
    party_start = receive(connection)
    with torch_threads(party_start["parameters"]["torch_threads"]):
        while True:
            kind, *arguments = receive(connection)
            try:
                if desk is None:
                    desk = _Desk(copy_of(party_start))
                if kind == "begin":
                    desk.begin(*arguments)
                    continue
                told = desk.do(*arguments)
            except Exception as error:  # of the copy, and no user's
                where = "".join(traceback.format_exception(error))
                told = {"error": as_sent_error(error), "where": RaisedElsewhereError(where)}
            send(connection, told)


if __name__ == "__main__":
    # Ctrl-C goes to the party's whole group; it is the party that ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the party is gone
        serve(Connection(int(sys.argv[1])))
