"""A party's own Ray for SecretFlow's cluster mode: one that is started here, or one that runs."""

import importlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from orchestra_strategy.cluster.ray_settings import FEWEST_CPUS, RaySettings
from orchestra_strategy.cluster.settings import ClusterSettings
from orchestra_strategy.cluster.undertaker import nothing_left_behind
from orchestra_strategy.errors import HostError
from orchestra_strategy.host_cluster import process_settings_kept

__all__ = ["load_of_ray", "own_ray"]

_HERE = "127.0.0.1"
_REACH_SECONDS = 5.0


def load_of_ray(module: str) -> Any:
    """Import Ray, RayFed or a part of it.

    Raises:
        HostError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise HostError(
            f"Expected `backend: ray` with `{error.name}` installed, got none; install SecretFlow "
            "with it (`secretflow==1.13.0b0`), or leave `backend` out at every party."
        ) from None


@contextmanager
def own_ray(settings: ClusterSettings, logging_level: str) -> Iterator[None]:
    """Have this party's Ray for the length of a block: one of its own, or one that runs.

    Entered before the job's port is opened: Ray starts its processes by ``fork``, in which gRPC's
    threads would read from connections that are the parent's (seen as broken TLS records).

    Args:
        settings: The party's.
        logging_level: SecretFlow's.

    Raises:
        HostError: Ray is not installed, is in use by this process, or cannot be joined.
    """
    ray, own = load_of_ray("ray"), settings.ray or RaySettings()
    load_of_ray("fed")
    if ray.is_initialized():
        raise HostError(
            "Expected no Ray in this process before the session, got one; end it by "
            "`ray.shutdown()`, and give the address of a Ray that runs as `ray.address`."
        )
    # A marked process of a Ray that others use would be none of ours to end.
    with nothing_left_behind() if own.address == "local" else nullcontext():
        _begin(ray, own, settings, logging_level)
        try:
            _check_cpus(ray, own, settings.self_party)
            yield
        finally:
            with process_settings_kept():
                ray.shutdown()


def _begin(ray: Any, own: RaySettings, settings: ClusterSettings, logging_level: str) -> None:
    loud = logging_level != "error"
    # Unless it is told not to, Ray reports its use to its makers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        if ":" in own.address:
            _reach(own.address)  # Ray itself tries for minutes, and then ends the process
        with process_settings_kept():
            ray.init(
                **_ray_options(own, len(settings.parties)),
                log_to_driver=loud,
                configure_logging=loud,
            )
    except OSError as error:
        raise HostError(
            f"Expected `ray.address` of {settings.self_party} to be a Ray that runs, got "
            f"{own.address!r}: {str(error).splitlines()[0]}; start it (`ray start --head`), or "
            "leave `ray.address` out and have one started."
        ) from None


def _reach(address: str) -> None:
    name, _, port = address.rpartition(":")
    socket.create_connection((name.strip("[]"), int(port)), timeout=_REACH_SECONDS).close()


def _check_cpus(ray: Any, own: RaySettings, me: str) -> None:
    there = int(ray.cluster_resources().get("CPU", 0))
    if there < FEWEST_CPUS:
        raise HostError(
            f"Expected the Ray of {me} at {own.address!r} to have {FEWEST_CPUS} logical CPUs or "
            f"more, got {there}: what waits for a free one would wait for ever; start it with "
            "`--num-cpus=16`, which may be more than the machine has."
        )


def _ray_options(own: RaySettings, parties: int) -> dict[str, Any]:
    if own.address != "local":
        return {"address": own.address}
    return {
        "address": "local",
        "num_cpus": own.num_cpus or 4 * parties + 8,
        "include_dashboard": False,
        # Whoever reaches a Ray can run code on it, so nobody outside of this machine does.
        "_node_ip_address": _HERE,
        # By default a process is started for each of the logical CPUs, at once.
        "_system_config": {"prestart_worker_first_driver": False},
    }
