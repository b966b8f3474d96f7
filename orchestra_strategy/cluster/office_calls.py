"""Calls to a party's post office, from a process that imports little else."""

import asyncio
import json
import struct
from typing import Any

from orchestra_strategy.errors import ClusterError

__all__ = ["LENGTHS", "call", "packed"]

LENGTHS = struct.Struct("!IQ")  # of a header and of the data behind it


async def call(path: str, asked: dict[str, Any], data: bytes = b"") -> bytes:
    """Ask a party's post office, and wait for what it says.

    Args:
        path: Of its socket.
        asked: ``kind`` (``"take"`` or ``"send"``), ``peer`` and ``key``.
        data: What is sent.

    Raises:
        ClusterError: A peer is lost or has stopped, or a limit is over.
    """
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(packed(asked, len(data)))
        writer.write(data)
        await writer.drain()
        header, size = LENGTHS.unpack(await reader.readexactly(LENGTHS.size))
        told = json.loads(await reader.readexactly(header))
        if "error" in told:
            raise ClusterError(told["error"])
        return await reader.readexactly(size)
    finally:
        writer.close()


def packed(header: dict[str, Any], size: int) -> bytes:
    """Return a header, and in front of it the lengths of both parts of a message."""
    text = json.dumps(header).encode()
    return LENGTHS.pack(len(text), size) + text
