"""Start and stop SecretFlow for one machine: in process (debug) or on a local Ray (local)."""

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from orchestra_strategy import host
from orchestra_strategy.errors import HostError

__all__ = ["logical_cpus", "quiet_host_logs", "session"]

Mode = Literal["debug", "local"]

_NOT_OURS = ("jax", "absl", "spu", "ray", "fed", "secretflow", "torchmetrics", "py.warnings")


def logical_cpus(num_parties: int) -> int:
    """Return a number of Ray's logical CPUs with which no actor waits for ever.

    Ray starts an actor only when a logical CPU is free, and otherwise waits silently. A party needs
    one for its worker, one for the masker of a SecureAggregator and some for tasks; the server
    likewise. The number may be far above the physical cores, at no cost.

    >>> logical_cpus(4)
    24
    """
    return 4 * num_parties + 8


def quiet_host_logs() -> None:
    """Show only warnings and errors of SecretFlow and the libraries under it."""
    for name in _NOT_OURS:
        logging.getLogger(name).setLevel(logging.ERROR)
    # SecretFlow logs every argument of `fit` to the root logger at INFO.
    logging.getLogger().setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray|torchmetrics|secretflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@contextmanager
def session(
    parties: Sequence[str], mode: Mode = "local", quiet: bool = True
) -> Iterator[list[Any]]:
    """Run SecretFlow for the length of a block.

    Args:
        parties: Names of the parties, each once; name the server too if it is no party.
        mode: ``"debug"`` runs everything in this process, one thing after the other; ``"local"``
            starts a Ray on this machine with one process per party.
        quiet: Silence the logs that are not this package's.

    Yields:
        One PYU per name, in order.

    Raises:
        HostError: Bad names, an unknown mode, or SecretFlow does not start.

    Example:
        ``with session(["alice", "bob"]) as (alice, bob): ...``
    """
    names = list(parties)
    if not names or len(set(names)) != len(names) or not all(isinstance(n, str) for n in names):
        raise HostError(f"Expected `parties` to be different names, at least one, got {names!r}.")
    if mode not in ("debug", "local"):
        raise HostError(f"Expected `mode` to be 'debug' or 'local', got {mode!r}.")
    if quiet:
        quiet_host_logs()
    common = {"parties": names, "logging_level": "error" if quiet else "info"}
    if mode == "debug":
        host.secretflow.init(**common, debug_mode=True)
    else:
        host.secretflow.init(
            **common,
            address="local",
            num_cpus=logical_cpus(len(names)),
            log_to_driver=not quiet,
            include_dashboard=False,
        )
    if quiet:
        quiet_host_logs()  # init sets the levels anew
    try:
        yield [host.PYU(name) for name in names]
    finally:
        host.secretflow.shutdown()
