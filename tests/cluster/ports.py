"""Free ports of this machine, and settings of clusters on it."""

import socket

NAMES = ("alice", "bob", "carol", "dave")


def free_ports(number):
    """Return ports that nobody has at this moment, all different."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


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
