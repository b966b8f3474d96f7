"""Free ports of this machine, and settings of clusters on it."""

import random
import socket

# Below what the system gives to whoever asks for any port, such as another test or a Ray's servers
# in the moment between the choice of a port and its use.
_RANGE = range(15_000, 32_000)
NAMES = ("alice", "bob", "carol", "dave")


def free_ports(number):
    """Return ports that nobody has at this moment, all different."""
    found = []
    for port in random.SystemRandom().sample(_RANGE, len(_RANGE)):
        with socket.socket() as one:
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == number:
            return found
    raise OSError("no free port")


def settings(number=2, **changed):
    """Return a dictionary of settings for each of so many parties."""
    parties = {
        name: {"address": f"127.0.0.1:{port}"}
        for name, port in zip(NAMES[:number], free_ports(number), strict=True)
    }
    common = {"start_timeout": 10.0, "heartbeat": 0.1, "peer_timeout": 1.5, "step_timeout": 10.0}
    return {
        me: {"parties": parties, "self_party": me, **common, **changed} for me in NAMES[:number]
    }
