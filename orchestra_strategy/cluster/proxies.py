"""A party's two actors that send and receive for its tasks on Ray, through its post office.

They have the methods that RayFed (0.2) calls on its own proxies, and none of its ports.
"""

import asyncio
import pickle
from typing import Any

from orchestra_strategy.cluster.allow_list import loads
from orchestra_strategy.cluster.office_calls import call

__all__ = ["OfficeReceiver", "OfficeSender"]


def _key(upstream: Any, downstream: Any) -> str:
    return f"{upstream}#{downstream}"


class OfficeReceiver:
    """Takes what peers send, and reads it by the allow-list.

    Args:
        office: Path of the post office's socket.
        allowed: Full names that may be read beside those of arrays.
        *_: What RayFed gives to its proxies.
    """

    def __init__(self, office: str, allowed: frozenset[str], *_: Any) -> None:
        self._office, self._allowed = office, allowed

    async def start(self) -> None:
        """Stay at work: RayFed keeps no handle, and Ray ends an actor that nobody asks anything."""
        await asyncio.Event().wait()

    async def is_ready(self) -> tuple[bool, str]:
        """Ready as soon as it is made."""
        return True, ""

    async def get_data(self, src_party: str, upstream_seq_id: Any, curr_seq_id: Any) -> Any:
        """Wait for an object of a peer."""
        key = _key(upstream_seq_id, curr_seq_id)
        data = await call(self._office, {"kind": "take", "peer": src_party, "key": key})
        return loads(data, src_party, self._allowed)


class OfficeSender:
    """Sends objects to peers.

    Args:
        office: Path of the post office's socket.
        *_: What RayFed gives to its proxies.
    """

    def __init__(self, office: str, *_: Any) -> None:
        self._office = office

    async def is_ready(self) -> bool:
        """Ready as soon as it is made."""
        return True

    async def send(
        self, dest_party: str, data: Any, upstream_seq_id: Any, downstream_seq_id: Any
    ) -> bool:
        """Send an object."""
        key = _key(upstream_seq_id, downstream_seq_id)
        asked = {"kind": "send", "peer": dest_party, "key": key}
        await call(self._office, asked, pickle.dumps(data, pickle.HIGHEST_PROTOCOL))
        return True

    async def stop(self) -> None:
        """Nothing to do: the port is the session's."""
