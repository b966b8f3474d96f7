"""SecretFlow, seen from here: with the other ``host*.py`` the only file that names its paths.

``secretflow`` up to 1.13 carries ``secretflow_fl``; its successor is the package ``sfl``. Both have
the same classes under ``<root>.ml.nn``. Everything else in this package imports from this file.
"""

import importlib
import os
from collections.abc import Mapping
from typing import Any

from orchestra_strategy.errors import HostError
from orchestra_strategy.host_find import check_versions, find_root, is_installed

__all__ = [
    "PYU",
    "SPU",
    "Aggregator",
    "BaseTorchModel",
    "Callback",
    "FLModel",
    "FedNdarray",
    "HDataFrame",
    "Mean",
    "PYUObject",
    "PartitionWay",
    "PlainAggregator",
    "SPUAggregator",
    "SecureAggregator",
    "TorchModel",
    "aggregator_parties",
    "all_parties",
    "bytes_per_number",
    "check_versions",
    "dispatcher_table",
    "host_register",
    "host_root",
    "in_simulation",
    "is_installed",
    "is_worker",
    "load_builtin_strategies",
    "logical_cpus",
    "on_local_ray",
    "party_of_dead_worker",
    "plain_class",
    "reveal",
    "reveal_within",
    "ring_limit",
    "secretflow",
    "workers_of",
]

host_root = find_root()

# TensorFlow, which SecretFlow imports, reads this once, when it is loaded.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _load(path: str, name: str) -> Any:
    return getattr(importlib.import_module(f"{host_root}.{path}"), name)


# Typed as Any: the host ships no type information.
secretflow: Any = importlib.import_module("secretflow")
PYU: Any = importlib.import_module("secretflow.device").PYU
PYUObject: Any = importlib.import_module("secretflow.device").PYUObject
reveal: Any = importlib.import_module("secretflow.device").reveal
FedNdarray: Any = importlib.import_module("secretflow.data.ndarray").FedNdarray
PartitionWay: Any = importlib.import_module("secretflow.data.ndarray").PartitionWay
HDataFrame: Any = importlib.import_module("secretflow.data.horizontal").HDataFrame
SPU: Any = importlib.import_module("secretflow.device").SPU
_aggregation: Any = importlib.import_module("secretflow.security.aggregation")
Aggregator: Any = _aggregation.Aggregator
PlainAggregator: Any = _aggregation.PlainAggregator
SecureAggregator: Any = _aggregation.SecureAggregator
SPUAggregator: Any = _aggregation.SPUAggregator
FLModel: Any = _load("ml.nn.fl.fl_model", "FLModel")
BaseTorchModel: Any = _load("ml.nn.fl.backend.torch.fl_base", "BaseTorchModel")
TorchModel: Any = _load("ml.nn.core.torch", "TorchModel")
Mean: Any = _load("ml.nn.metrics", "Mean")
Callback: Any = _load("ml.nn.callbacks.callback", "Callback")
host_register: Any = _load("ml.nn.fl.strategy_dispatcher", "register_strategy")


def dispatcher_table() -> dict[str, type]:
    """Return the host's table of strategies, ``{f"{name}_{backend}": class}``; not a copy."""
    table: dict[str, type] = _load("ml.nn.fl.strategy_dispatcher", "_strategy_dispatcher")._ops
    return table


def is_worker(strategy: Any) -> bool:
    """Whether a strategy runs under an FLModel, and has not been built by hand."""
    return bool(getattr(type(strategy), "__is_wrapped__", False))


def plain_class(strategy: Any) -> Any:
    """Return the class of a strategy as it was written: the host's workers are of a subclass."""
    return next(c for c in type(strategy).__mro__ if not getattr(c, "__is_wrapped__", False))


def aggregator_parties(aggregator: Any) -> tuple[str, list[str]]:
    """Return who sees what an aggregator of SecretFlow computes, and who holds shares of it.

    Args:
        aggregator: A PlainAggregator, SecureAggregator or SPUAggregator.

    Returns:
        The party that hosts it, empty for an SPU, and the parties that must give their data to it,
        empty where any may.
    """
    if isinstance(aggregator, SecureAggregator):
        return aggregator._device.party, sorted(d.party for d in aggregator._participants)
    if isinstance(aggregator, SPUAggregator):
        return "", []
    return getattr(getattr(aggregator, "device", None), "party", ""), []


def workers_of(fl_model: Any) -> Mapping[Any, Any]:
    """Return the parties' workers of an FLModel by PYU, which it keeps to itself."""
    workers: Mapping[Any, Any] = fl_model._workers
    return workers


# Bits of an SPU's ring, and those of them that are behind the point unless it is told otherwise.
_SPU_FIELDS = {"FM32": (32, 8), "FM64": (64, 18), "FM128": (128, 26)}


def ring_limit(aggregator: Any) -> float | None:
    """Return what sums of numbers times weights must stay below in an aggregator's arithmetic.

    An SPU multiplies fixed-point numbers, which doubles the bits behind the point, and rounds; from
    a quarter of its signed ring on that goes wrong now and then.

    Args:
        aggregator: A SecureAggregator or SPUAggregator.

    Returns:
        The limit; None for any other, where it is not known.
    """
    if isinstance(aggregator, SecureAggregator):
        return float(2.0 ** (63 - aggregator._fxp_bits))
    if isinstance(aggregator, SPUAggregator):
        conf = aggregator.device.conf
        bits, usual = _SPU_FIELDS.get(conf.field.name, (64, 18))
        return float(2.0 ** (bits - 3 - 2 * (conf.fxp_fraction_bits or usual)))
    return None


def bytes_per_number(aggregator: Any) -> int:
    """Return how many bytes a number takes on the way to an aggregator and back.

    SecureAggregator masks 64-bit integers, and returns 64-bit floats. For an SPU, which splits each
    number into shares for all its nodes, this is the width of one share.
    """
    if isinstance(aggregator, SecureAggregator):
        return 8
    if isinstance(aggregator, SPUAggregator):
        return _SPU_FIELDS.get(aggregator.device.conf.field.name, (64, 18))[0] // 8
    return 4


def on_local_ray() -> bool:
    """Whether SecretFlow runs in its local mode: one Ray on this machine for all parties."""
    mode = importlib.import_module("secretflow.distributed").get_distribution_mode()
    return bool(mode.name == "SIMULATION")


def party_of_dead_worker(error: BaseException, workers: Mapping[Any, Any]) -> str | None:
    """Return whose worker has ended, where an error of a local Ray says so.

    Args:
        error: What was raised to the driver.
        workers: By PYU.
    """
    if not on_local_ray():
        return None
    died = importlib.import_module("ray.exceptions").RayActorError
    at: Any = error
    while at is not None and not isinstance(at, died):
        at = getattr(at, "cause", None) or at.__cause__
    actor = getattr(at, "actor_id", None)
    for device, worker in workers.items():
        if actor is not None and worker.data._actor_id.hex() == actor:
            return str(device.party)
    return None


def in_simulation() -> bool:
    """Whether all parties belong to one person: SecretFlow's debug mode, or its local mode.

    Asked in a worker, too, which in local mode and in cluster mode with Ray is a process of Ray
    that SecretFlow has not been initialised in.
    """
    mode = importlib.import_module("secretflow.distributed").get_distribution_mode().name
    if mode in ("DEBUG", "SIMULATION"):
        return True
    ray = importlib.import_module("ray")
    if not ray.is_initialized():
        return False  # a party's process, without Ray
    # RayFed, which connects the parties' Rays, leaves its configuration in each of them.
    kv = importlib.import_module("ray.experimental.internal_kv")
    return not kv._internal_kv_list("RAYFED#")


def all_parties() -> list[str]:
    """Return the parties that SecretFlow was started with, those without data included."""
    return list(importlib.import_module("secretflow.device.global_state").parties())


def logical_cpus() -> int:
    """Return Ray's number of logical CPUs, in local mode."""
    return int(importlib.import_module("ray").cluster_resources().get("CPU", 0))


def reveal_within(objects: Mapping[str, Any], seconds: float, what: str) -> dict[str, Any]:
    """Reveal one object per party; in local mode, give up after a time.

    Args:
        objects: Party -> PYUObject.
        seconds: The longest wait for all of them, where the host lets itself be timed.
        what: Named in the message.

    Raises:
        HostError: Some are not there in time; their parties are named.
    """
    if on_local_ray():
        ray = importlib.import_module("ray")
        refs = {obj.data: party for party, obj in objects.items()}
        _, late = ray.wait(list(refs), num_returns=len(refs), timeout=seconds)
        if late:
            raise HostError(
                f"Expected {what} within {seconds:.0f} s, still waiting for "
                f"{sorted(refs[ref] for ref in late)}; Ray has {logical_cpus()} logical CPUs. "
                "Start SecretFlow with more (`num_cpus`), or by `orchestra_strategy.session(...)`."
            )
    revealed: dict[str, Any] = reveal(dict(objects))
    return revealed


def load_builtin_strategies() -> None:
    """Import the host's own torch strategies, which registers them."""
    importlib.import_module(f"{host_root}.ml.nn.fl.backend.torch.strategy")
