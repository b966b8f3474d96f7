"""Start and stop SecretFlow for one machine: in process (debug) or on a local Ray (local)."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

from orchestra_strategy import host
from orchestra_strategy.errors import HostError

__all__ = ["logical_cpus", "quiet_host_logs", "session"]

Mode = Literal["debug", "local"]

_NOT_OURS = frozenset({"absl", "fed", "jax", "ray", "secretflow", "secretflow_fl", "sfl", "spu"})


def logical_cpus(num_parties: int) -> int:
    """Return a number of Ray's logical CPUs with which no actor waits for ever.

    Ray starts an actor only when a logical CPU is free, and otherwise waits silently. A party needs
    one for its worker, one for the masker of a SecureAggregator and some for tasks; the server
    likewise. The number may be far above the physical cores, at no cost.

    >>> logical_cpus(4)
    24
    """
    return 4 * num_parties + 8


class _DropHostRecords(logging.Filter):
    """Drops what the host logs straight to the root logger, such as every argument of ``fit``."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep errors, and whatever was not logged from the host's files."""
        return record.levelno >= logging.ERROR or not _NOT_OURS & set(Path(record.pathname).parts)


@contextmanager
def quiet_host_logs() -> Iterator[None]:
    """Show only errors of SecretFlow and the libraries under it, for the length of a block."""
    root, drop = logging.getLogger(), _DropHostRecords()
    levels = {name: logging.getLogger(name).level for name in _NOT_OURS}
    root.addFilter(drop)
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="os.fork", category=RuntimeWarning)
            warnings.filterwarnings("ignore", category=FutureWarning)
            yield
    finally:
        root.removeFilter(drop)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


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
        HostError: Bad names or an unknown mode.

    Example:
        ``with session(["alice", "bob"]) as (alice, bob): ...``
    """
    names = [parties] if isinstance(parties, str) else list(parties)
    if not names or len(set(names)) != len(names) or not all(isinstance(n, str) for n in names):
        raise HostError(f"Expected `parties` to be different names, at least one, got {names!r}.")
    if mode not in ("debug", "local"):
        raise HostError(f"Expected `mode` to be 'debug' or 'local', got {mode!r}.")
    with quiet_host_logs() if quiet else nullcontext():
        _init(names, mode, quiet)
        try:
            yield [host.PYU(name) for name in names]
        finally:
            host.secretflow.shutdown()


def _init(names: list[str], mode: Mode, quiet: bool) -> None:
    root_level = logging.getLogger().level
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
    logging.getLogger().setLevel(root_level)  # init sets it for the whole process
