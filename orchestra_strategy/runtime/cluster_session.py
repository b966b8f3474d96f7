"""SecretFlow over several machines: the parties meet, agree, work, and leave together."""

import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from orchestra_strategy import host
from orchestra_strategy.cluster.code_digest import digest_of_files
from orchestra_strategy.cluster.members import Members
from orchestra_strategy.cluster.settings import ClusterSettings
from orchestra_strategy.config import parse_config

__all__ = [
    "PROTOCOL",
    "absent_are_back",
    "agree",
    "cluster_session",
    "in_a_cluster",
    "plain_errors",
    "wire_bytes",
    "working_together",
]

# Raised when what parties say to each other changes.
PROTOCOL = 2

_OF_EVERY_PARTY = ("orchestra-strategy", "torch", "numpy")


class _Active:
    """The cluster that this process is in, if any; a process can be in one alone."""

    members: Members | None = None
    passed = 0


@contextmanager
def cluster_session(
    cluster: ClusterSettings | Mapping[str, Any],
    logging_level: str = "error",
    common: Mapping[str, str] | None = None,
) -> Iterator[list[Any]]:
    """Run this party of a cluster for the length of a block.

    Args:
        cluster: Settings, or a dictionary with their fields.
        logging_level: SecretFlow's.
        common: What has to be the same at all parties beside their versions, a text by name.

    Yields:
        One PYU per party that is not absent, in the order of ``parties``.

    Raises:
        ParameterError: The settings contradict each other.
        ClusterError: Key files or address cannot be used, parties do not come in time,
            differ, are lost, or have stopped.
    """
    settings = (
        cluster if isinstance(cluster, ClusterSettings) else parse_config(ClusterSettings, cluster)
    )
    with _on_ray(settings, logging_level) as joining:
        members = Members(settings)
        try:
            with working_together(members, common or {}, joining(members, logging_level)):
                yield [host.PYU(party) for party in settings.present]
        finally:
            members.close()


@contextmanager
def _on_ray(
    settings: ClusterSettings, logging_level: str
) -> Iterator[Callable[[Members, str], AbstractContextManager[None]]]:
    """Start this party's Ray, if it works on one, and give what joins SecretFlow then."""
    # Loaded here, as it is SecretFlow's inner part that the other modes do not need.
    if settings.backend == "ray":
        from orchestra_strategy.host_own_ray import own_ray
        from orchestra_strategy.host_ray import joined_on_ray

        with own_ray(settings, logging_level):
            yield joined_on_ray
    else:
        from orchestra_strategy.host_cluster import joined

        yield joined


@contextmanager
def working_together(
    members: Members, common: Mapping[str, str], joining: AbstractContextManager[None]
) -> Iterator[None]:
    """Agree to begin, work in a block, and end when all parties have; an error is told to them.

    Args:
        members: The parties.
        common: What has to be the same at all beside their versions, a text by name.
        joining: SecretFlow's own part, entered when all have agreed.

    Raises:
        ClusterError: See :func:`cluster_session`.
    """
    from orchestra_strategy.host_cluster import plain_error

    try:
        members.agree("start", {**_versions(members.settings), **common})
        _Active.members, _Active.passed = members, 0
        with joining:
            yield
        members.finish()
    except BaseException as error:
        plain = plain_error(error)
        members.abandon(plain)
        if plain is error:
            raise
        raise plain from error
    finally:
        _Active.members = None


def agree(topic: str, values: Mapping[str, str]) -> None:
    """Compare settings with all parties' of the cluster; without one, do nothing.

    Args:
        topic: What is about to begin, for messages.
        values: A text by name, the same at all parties.

    Raises:
        PeersDifferError: Something differs; all of it is named.
        ClusterError: A party does not come to this point in time.
    """
    members = _Active.members
    if members is not None:
        _Active.passed += 1
        limits = members.settings
        # All come to the first point right after the start; before a later one is work.
        seconds = limits.start_timeout if _Active.passed == 1 else limits.step_timeout
        members.agree(f"{topic} ({_Active.passed})", values, seconds)


def absent_are_back() -> bool:
    """Whether all parties that the cluster goes on without call this one to be taken in again."""
    return _Active.members is not None and _Active.members.absent_are_back()


def in_a_cluster() -> bool:
    """Whether this process is a party in cluster mode, or in a platform's job."""
    return _Active.members is not None


def wire_bytes() -> tuple[int, int] | None:
    """Return the bytes that this party has sent and received so far; None outside a cluster."""
    members = _Active.members
    return None if members is None else (members.sent, members.received)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raise an error of this party's own work as itself, not in SecretFlow's wrapping."""
    if _Active.members is None:
        yield
        return
    from orchestra_strategy.host_cluster import plain_error

    try:
        yield
    except Exception as error:
        plain = plain_error(error)
        if plain is error:
            raise
        raise plain from None


def _versions(settings: ClusterSettings) -> dict[str, str]:
    values = {f"version of {name}": metadata.version(name) for name in _OF_EVERY_PARTY}
    return {
        "protocol": str(PROTOCOL),
        **values,
        "code of orchestra-strategy": digest_of_files(Path(__file__).parents[1]),
        "version of SecretFlow": host.secretflow.__version__,
        "version of python": ".".join(platform.python_version_tuple()[:2]),
        "parties": ", ".join(settings.present),
        "backend": settings.backend,
        "tls": "mutual TLS" if settings.tls is not None else "plain text",
    }
