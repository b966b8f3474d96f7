"""Data between a party's own processes and its peers: one process has the port, all use it.

On Ray, what sends and receives runs in processes of its own. Each asks the process that has joined
the job, over a socket in a folder that no other user can open; so there is one port, one set of
keys, and one place that knows who is alive.
"""

import json
import shutil
import socketserver
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from orchestra_strategy.cluster.members import Members
from orchestra_strategy.cluster.office_calls import LENGTHS, packed
from orchestra_strategy.errors import ClusterError

__all__ = ["PostOffice"]

_FOLDER = "/tmp"  # a socket's path has 107 bytes at most, and TMPDIR may be longer


class PostOffice:
    """Sends and takes for other processes of this party.

    Args:
        members: The job's parties.
    """

    def __init__(self, members: Members) -> None:
        self._members = members
        self._folder = tempfile.mkdtemp(prefix="orchestra-", dir=_FOLDER)  # its owner's alone
        self.path = str(Path(self._folder) / "office")
        self._server = _Server(self.path, _Counter)
        self._server.office = self
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """End; whoever still waits for data hears that the session is over."""
        self._members.mailbox.close()
        self._server.shutdown()
        self._server.server_close()
        shutil.rmtree(self._folder)

    def serve(self, asked: dict[str, Any], data: bytes) -> bytes:
        """Do what a process asks for.

        Raises:
            ClusterError: A peer is lost or has stopped, or a limit is over.
        """
        if asked["kind"] == "take":
            return self._members.take(asked["peer"], asked["key"])
        self._members.send(asked["peer"], asked["key"], data)
        return b""


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    office: PostOffice


class _Counter(socketserver.StreamRequestHandler):
    """One question of one process."""

    def handle(self) -> None:
        """Read it, have it done, and answer."""
        header, size = LENGTHS.unpack(self.rfile.read(LENGTHS.size))
        asked, data = json.loads(self.rfile.read(header)), self.rfile.read(size)
        assert isinstance(self.server, _Server)
        try:
            answer, told = self.server.office.serve(asked, data), {}
        except ClusterError as error:
            answer, told = b"", {"error": str(error)}
        with suppress(ConnectionError):  # whoever asked has ended: there is nobody to tell
            self.wfile.write(packed(told, len(answer)) + answer)
