"""Processes as Linux shows them: descendants, what still runs, who listens where."""

import ipaddress
import os
import time
from pathlib import Path

PROC = Path("/proc")
LISTENS = "0A"


def _stat(pid):
    """The state, the parent and the time of the start of a process; None if it has ended."""
    try:
        words = (PROC / str(pid) / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return words[0], int(words[1]), words[19]


def descendants(pid):
    """A process and all below it, each as its id and start, which tell it from a later one."""
    pids = [int(path.name) for path in PROC.iterdir() if path.name.isdigit()]
    parents = {p: stat[1] for p in pids if (stat := _stat(p)) is not None}
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return {(p, stat[2]) for p in found if (stat := _stat(p)) is not None}


def command(pid):
    """The command line of a process, as Ray rewrites it for what it does."""
    try:
        return (PROC / str(pid) / "cmdline").read_text(encoding="utf-8").replace("\0", " ")
    except OSError:
        return ""


def wait_until_gone(processes, seconds):
    """Return the command lines of those that still run after some seconds."""
    end = time.monotonic() + seconds
    while True:
        left = [
            pid
            for pid, start in processes
            if (stat := _stat(pid)) is not None and stat[2] == start and stat[0] != "Z"
        ]
        if not left or time.monotonic() > end:
            return [command(pid) for pid in left]
        time.sleep(0.2)


def listens_beyond_this_machine(processes):
    """Return the addresses, other than loopback, on which processes listen."""
    inodes = set()
    for pid, _ in processes:
        try:
            for entry in (PROC / str(pid) / "fd").iterdir():
                inodes.add(os.readlink(entry).removeprefix("socket:[").removesuffix("]"))
        except OSError:  # it has ended, or closed the file
            continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in (PROC / "net" / table).read_text(encoding="ascii").splitlines()[1:]:
            words = line.split()
            if words[3] == LISTENS and words[9] in inodes:
                address = _address(words[1].partition(":")[0])
                if not (getattr(address, "ipv4_mapped", None) or address).is_loopback:
                    found.add(f"{address} {words[1].partition(':')[2]}")
    return found


def _address(text):
    """Read an address as the kernel writes it: words of four bytes, each in the machine's order."""
    raw = bytes.fromhex(text)
    return ipaddress.ip_address(b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4)))
