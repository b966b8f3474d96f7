"""A component's work among the parties of a platform's job: limits on waiting, and its end."""

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from orchestra_strategy import host_link
from orchestra_strategy.cluster.framed_wire import FramedWire
from orchestra_strategy.cluster.members import Members
from orchestra_strategy.cluster.settings import ClusterSettings, Limits, PartyAddress
from orchestra_strategy.errors import ClusterError
from orchestra_strategy.last_resort import ends_within
from orchestra_strategy.runtime.cluster_session import working_together
from orchestra_strategy.runtime.session import quiet_host_logs

__all__ = ["platform_job"]

_GRACE = 60.0  # seconds for what comes after an error: the platform's notes of it


@contextmanager
def platform_job(ctx: Any, limits: Limits) -> Iterator[None]:
    """Work together with the other parties for the length of a block.

    In SecretFlow's simulations, where all parties are in this process, nothing is added.

    Args:
        ctx: SecretFlow's context of the component.
        limits: On waiting.

    Raises:
        ClusterError: A party does not come, differs, is lost, or has stopped.
    """
    with quiet_host_logs(), _signals_are_errors():
        addresses = host_link.platform_addresses()
        if addresses is None or len(addresses) == 1:
            yield
            return
        members = Members(
            _settings(ctx.self_party, addresses, limits),
            connect=lambda settings, handlers: FramedWire(
                settings, handlers, host_link.platform_link()
            ),
        )
        try:
            with working_together(members, {}, host_link.taken_over(members)):
                yield
        except BaseException:
            members.close()
            ends_within(_GRACE, 1)
            raise


def _settings(me: str, addresses: Mapping[str, str], limits: Limits) -> ClusterSettings:
    parties = {name: PartyAddress(address=_plain(at)) for name, at in addresses.items()}
    return ClusterSettings(**limits.model_dump(), parties=parties, self_party=me)


def _plain(address: str) -> str:
    """Return ``host:port`` of an address that brpc writes with its protocol."""
    return address.rpartition("//")[2]


@contextmanager
def _signals_are_errors() -> Iterator[None]:
    """Raise an error where the platform ends this task, so that the other parties are told."""

    def stop(number: int, _: Any) -> None:
        raise ClusterError(
            f"Interrupted by {signal.Signals(number).name}: this party's task was stopped."
        )

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
