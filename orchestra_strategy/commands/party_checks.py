"""Checks of a party's part in a job for ``orchestra-fl doctor``: data, keys, ports, peers, Ray."""

import errno
import shutil
import socket
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from typing import Any

from orchestra_strategy.commands.finding import Finding
from orchestra_strategy.errors import OrchestraError

__all__ = ["check_data", "check_keys", "check_listen", "check_own_ray", "check_peers"]

_PEER_SECONDS = 3.0
_SHARED_MEMORY, _LITTLE_SHARED = "/dev/shm", 2**30  # bytes


def check_data(path: str | None, options: dict[str, Any]) -> Finding:
    """Read the party's data, as the training would; what parties agree on, by this one's alone."""
    from orchestra_strategy.data import load_local
    from orchestra_strategy.data.shared_tables import as_one_party, asks_to_agree

    if path is None:
        remedy = "give it as `data` in the job, or in the party's local part"
        return Finding("data", "bad", f"Expected the path of the party's data, got none; {remedy}.")
    try:
        data = load_local(path, **as_one_party(path, options))
    except OrchestraError as error:
        return Finding("data", "bad", str(error))
    samples, shape = len(data), data.samples.shape[1:]
    left_out = f", {len(data.skipped)} left out" if data.skipped else ""
    told = f"{samples} samples of shape {shape}{left_out} in {path}"
    if asks_to_agree(options):
        told += "; more columns where the others have other names, on which the parties agree"
    return Finding("data", "ok", told)


def check_keys(settings: Any) -> Finding:
    """Read the party's key files."""
    from orchestra_strategy.cluster.tls_files import read_tls

    if settings.tls is None:
        return Finding("tls", "note", "none: what the parties send is not encrypted here")
    try:
        read_tls(settings.tls, settings.self_party)
    except OrchestraError as error:
        return Finding("tls", "bad", str(error))
    return Finding("tls", "ok", f"certificate of {settings.self_party} in {settings.tls.cert}")


def check_listen(address: str) -> Finding:
    """Bind to the party's own address for a moment."""
    name, port = _split(address)
    try:
        family, kind, protocol, _, at = socket.getaddrinfo(
            name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as own:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            own.bind(at)
    except OSError as error:
        remedy = {
            errno.EADDRINUSE: "end the process that has it, or choose another port",
            errno.EADDRNOTAVAIL: "give one of this machine as `listen` in the local part",
            errno.EACCES: "choose a port from 1024 on",
        }.get(error.errno or 0, "give one of this machine as `listen` in the local part")
        told = f"Expected to be able to listen on {address}, got: {_why(error)}; {remedy}."
        return Finding("port", "bad", told)
    return Finding("port", "ok", f"{address} is free")


def check_own_ray(settings: Any) -> Iterator[Finding]:
    """Look at the party's Ray, where the job has ``backend: ray``."""
    if settings.backend != "ray":
        return
    missing = [name for name in ("ray", "fed") if find_spec(name) is None]
    if missing:
        remedy = "install it with SecretFlow (`secretflow==1.13.0b0`), or leave `backend` out"
        yield Finding("ray", "bad", f"Expected `{missing[0]}` to be installed, got none; {remedy}.")
        return
    address = "local" if settings.ray is None else settings.ray.address
    if ":" in address:
        try:
            socket.create_connection(_split(address), timeout=_PEER_SECONDS).close()
        except OSError as error:
            remedy = "start it (`ray start --head`), or leave `ray.address` out"
            told = f"Expected a Ray at {address}, got: {_why(error)}; {remedy}."
            yield Finding("ray", "bad", told)
            return
    told = f"{metadata.version('ray')}, {address}"
    free = shutil.disk_usage(_SHARED_MEMORY).free
    if free < _LITTLE_SHARED:
        less = (
            f"only {free / 2**20:.0f} MiB free in {_SHARED_MEMORY}, where Ray keeps what it passes"
        )
        yield Finding("ray", "note", f"{told}; {less}: give the container more (`--shm-size=2g`)")
    else:
        yield Finding("ray", "ok", told)


def check_peers(settings: Any) -> Iterator[Finding]:
    """Try to reach the other parties; one that has not started yet is no fault."""
    for peer in settings.peers:
        address, what = settings.parties[peer].address, f"party {peer}"
        name, port = _split(address)
        try:
            socket.create_connection((name, port), timeout=_PEER_SECONDS).close()
        except socket.gaierror as error:
            told = f"Expected `{name}` to be a known host, got: {_why(error)}; correct the job's "
            yield Finding(what, "bad", f"{told}address of `{peer}`, or this machine's DNS.")
        except ConnectionRefusedError:
            yield Finding(what, "note", f"nobody listens at {address} yet")
        except OSError as error:
            told = f"no answer from {address} ({_why(error)}); if it has started, ask for a way "
            yield Finding(what, "note", f"{told}through the firewall")
        else:
            yield Finding(what, "ok", f"reached at {address}")


def _split(address: str) -> tuple[str, int]:
    name, _, port = address.rpartition(":")
    return name.strip("[]"), int(port)


def _why(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
