"""A component's work among the parties of a platform's job: limits on waiting, and its end."""

import _thread
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from orchestra_strategy import host_link
from orchestra_strategy.cluster.framed_wire import FramedWire
from orchestra_strategy.cluster.members import Members
from orchestra_strategy.cluster.settings import ClusterSettings, Limits, PartyAddress
from orchestra_strategy.config import parse_config
from orchestra_strategy.errors import ClusterError
from orchestra_strategy.last_resort import ends_within
from orchestra_strategy.runtime.cluster_session import working_together
from orchestra_strategy.runtime.session import quiet_host_logs

__all__ = ["platform_job"]

_AGAIN = 1.0  # seconds until the next interrupt
_GRACE = 5.0  # seconds for the notes that SecretFlow and the platform make of an error


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
    with quiet_host_logs(), _Stopping() as stopping:
        addresses = host_link.platform_addresses()
        if addresses is None or len(addresses) == 1:
            yield
            return
        try:
            members = _members(ctx.self_party, addresses, limits)
            try:
                joining = host_link.taken_over(members)
                with working_together(members, {}, joining), stopping.repeatedly():
                    yield
            except BaseException:
                members.close()
                raise
        except BaseException:
            host_link.leave()
            ends_within(_GRACE, 1)
            raise


def _members(me: str, addresses: Mapping[str, str], limits: Limits) -> Members:
    settings = _settings(me, addresses, limits)
    link = host_link.platform_link(limits.start_timeout)
    return Members(settings, connect=lambda s, handlers: FramedWire(s, handlers, link))


def _settings(me: str, addresses: Mapping[str, str], limits: Limits) -> ClusterSettings:
    parties = {name: PartyAddress(address=_plain(at)) for name, at in addresses.items()}
    values = {**limits.model_dump(), "parties": parties, "self_party": me}
    return parse_config(ClusterSettings, values, "the platform's job")


def _plain(address: str) -> str:
    """Return ``host:port`` of an address that brpc writes with its protocol."""
    return address.rpartition("//")[2]


class _Stopping:
    """Interrupts where the platform ends this task, so that the other parties are told.

    Raises:
        ClusterError: In place of the interrupt, which SecretFlow would take for a good end.
    """

    def __init__(self) -> None:
        self._error = ClusterError("This party's task was stopped, by its platform or user.")
        self._before: dict[int, Any] = {}
        self._at_work = False

    def __enter__(self) -> "_Stopping":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if kind is KeyboardInterrupt:
            raise self._error from None

    @contextmanager
    def repeatedly(self) -> Iterator[None]:
        """Interrupt again and again, until the work has ended.

        A signal is handled between any two steps of the program; in a callback of the garbage
        collector, for one, the exception would be ignored.
        """
        self._at_work = True
        try:
            yield
        finally:
            self._at_work = False

    def _stop(self, *_: Any) -> None:
        host_link.end_waits(self._error)  # also those of code that cleans up
        again = threading.Timer(_AGAIN, self._once_more)
        again.daemon = True
        again.start()
        raise KeyboardInterrupt

    def _once_more(self) -> None:
        if self._at_work:
            _thread.interrupt_main()
