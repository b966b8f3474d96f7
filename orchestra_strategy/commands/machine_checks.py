"""Checks of this machine for ``orchestra-fl doctor``: Python, SecretFlow, CPUs, disk, clock."""

import ctypes
import os
import shutil
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from importlib import metadata
from pathlib import Path

from orchestra_strategy import host_find
from orchestra_strategy.commands.finding import Finding
from orchestra_strategy.commands.quiet_import import load_host
from orchestra_strategy.errors import HostError

__all__ = ["check_clock", "check_cpus", "check_folder", "check_python", "check_secretflow"]

_PYTHON = (3, 10)
_LITTLE_DISK, _SOME_DISK = 2**30, 10 * 2**30  # bytes
_BESIDE = ("torch", "numpy", "ray", "grpcio")
_NOT_SYNCHRONISED = 5  # TIME_ERROR of adjtimex(2)


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    """Look at the version of Python."""
    told = ".".join(map(str, version))
    if version[:2] != _PYTHON:
        remedy = "make an environment with 3.10, on which SecretFlow's requirements resolve"
        return Finding("python", "bad", f"Expected Python 3.10, got {told}; {remedy}.")
    return Finding("python", "ok", f"{told} ({sys.executable})")


def check_secretflow() -> Finding:
    """Look for SecretFlow, and import it."""
    try:
        root = host_find.find_root()
        load_host()
    except HostError as error:
        return Finding(host_find.NAME, "bad", str(error))
    except Exception as error:  # whatever a broken installation raises
        return Finding(
            host_find.NAME,
            "bad",
            f"Expected SecretFlow to be importable, got {type(error).__name__}: {error}; install "
            "it into an environment of its own, `pip install secretflow==1.13.0b0`.",
        )
    beside = ", ".join(f"{name} {_version(name)}" for name in _BESIDE)
    return Finding(host_find.NAME, "ok", f"{host_find.installed_version()} ({root}; {beside})")


def check_cpus() -> Finding:
    """Count the CPUs that this process may use."""
    usable = len(os.sched_getaffinity(0))
    if usable < 2:
        return Finding("cpus", "note", "1; a training and SecretFlow's own threads share it")
    return Finding("cpus", "ok", f"{usable} of {os.cpu_count()}")


def check_folder(path: str, what: str) -> Finding:
    """Look whether a folder can be written to, and has room; it need not be there yet.

    Args:
        path: The folder.
        what: Its name in the report.
    """
    folder = Path(path).expanduser().absolute()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not there.is_dir():
        got = f"the file `{there}` in its way; remove it, or choose another"
        return Finding(what, "bad", f"Expected `{folder}` to be a folder, got {got}.")
    if not os.access(there, os.W_OK | os.X_OK):
        remedy = f"give this user the right to write in `{there}`, or choose another"
        return Finding(what, "bad", f"Expected `{folder}` to be writable, got it closed; {remedy}.")
    free = shutil.disk_usage(there).free
    room = f"{free / 2**30:.1f} GiB free in {folder}"
    if free < _LITTLE_DISK:
        remedy = "make room, or choose a folder on another disk"
        return Finding(what, "bad", f"Expected 1 GiB or more, got {room}; {remedy}.")
    return Finding(what, "ok" if free >= _SOME_DISK else "note", room)


def check_clock(now: float | None = None) -> Finding:
    """Look whether the clock can be right: certificates depend on it."""
    now = time.time() if now is None else now
    told = f"{datetime.fromtimestamp(now).astimezone():%Y-%m-%d %H:%M:%S %z}"
    installed = max(_times_of_files())
    if now < installed - 86400:
        rule = (
            f"a time after {datetime.fromtimestamp(installed):%Y-%m-%d}, the date of this package"
        )
        remedy = "set the clock, e.g. by `timedatectl set-ntp true`"
        return Finding("clock", "bad", f"Expected {rule}, got {told}; {remedy}.")
    if _not_synchronised():
        return Finding(
            "clock",
            "note",
            f"{told}, which the kernel says is not synchronised; compare it with the other "
            "parties', or run NTP",
        )
    return Finding("clock", "ok", told)


def _times_of_files() -> Iterator[float]:
    for path in Path(__file__).parent.glob("*.py"):
        yield path.stat().st_mtime


def _not_synchronised() -> bool:
    """Ask the kernel, without changing anything; False where it does not say."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        buffer = ctypes.create_string_buffer(512)  # more than a struct timex; modes = 0 only asks
        return bool(libc.adjtimex(buffer) == _NOT_SYNCHRONISED)
    except (OSError, AttributeError):
        return False


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"
