"""Start and stop SecretFlow: in process (debug), on a local Ray, or as one party of a cluster."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

from orchestra_strategy import host
from orchestra_strategy.cluster.settings import ClusterSettings
from orchestra_strategy.errors import HostError
from orchestra_strategy.runtime.cluster_session import cluster_session

__all__ = ["logical_cpus", "quiet_host_logs", "session"]

Mode = Literal["debug", "local", "cluster"]

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
    parties: Sequence[str] | None = None,
    mode: Mode = "local",
    quiet: bool = True,
    cluster: ClusterSettings | Mapping[str, Any] | None = None,
    common: Mapping[str, str] | None = None,
) -> Iterator[list[Any]]:
    """Run SecretFlow for the length of a block.

    Args:
        parties: Names of the parties, each once; name the server too if it is no party. Not in
            cluster mode, where they stand in ``cluster``.
        mode: ``"debug"`` runs everything in this process, one thing after the other; ``"local"``
            starts a Ray on this machine with one process per party; ``"cluster"`` is one party of
            several, each with its own process running the same script.
        quiet: Silence the logs that are not this package's.
        cluster: Addresses, keys and limits for cluster mode, see
            :class:`~orchestra_strategy.cluster.settings.ClusterSettings`.
        common: In cluster mode, what must be the same at all parties, a text by name; compared
            before anything else. A trainer compares its own settings, too.

    Yields:
        One PYU per name, in order.

    Raises:
        HostError: Bad names or an unknown mode.
        ClusterError: In cluster mode, parties do not come, differ, are lost, or have stopped.

    Example:
        ``with session(["alice", "bob"]) as (alice, bob): ...``
    """
    if mode not in ("debug", "local", "cluster"):
        raise HostError(f"Expected `mode` to be 'debug', 'local' or 'cluster', got {mode!r}.")
    if (mode == "cluster") != (cluster is not None) or (mode == "cluster" and parties is not None):
        raise HostError(
            "Expected `cluster` with `mode='cluster'`, in place of `parties`, and with no other "
            f"mode, got mode={mode!r} with parties={parties!r}."
        )
    level = "error" if quiet else "info"
    with quiet_host_logs() if quiet else nullcontext():
        if cluster is not None:
            with cluster_session(cluster, level, common) as devices:
                yield devices
            return
        names = _names(parties)
        _init(names, mode, quiet, level)
        try:
            yield [host.PYU(name) for name in names]
        finally:
            host.secretflow.shutdown()


def _names(parties: Any) -> list[str]:
    names = [parties] if isinstance(parties, str) else list(parties or [])
    if not names or len(set(names)) != len(names) or not all(isinstance(n, str) for n in names):
        raise HostError(f"Expected `parties` to be different names, at least one, got {names!r}.")
    return names


def _init(names: list[str], mode: Mode, quiet: bool, level: str) -> None:
    root_level = logging.getLogger().level
    common = {"parties": names, "logging_level": level}
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
