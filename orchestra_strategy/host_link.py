"""SecretFlow's own line between the parties of a platform's job, as a link for our calls.

A platform (``secretflow component run``, Kuscia) starts SecretFlow itself, over gRPC or brpc,
before a component is asked to work: without an allow-list, and with a week's patience for a peer
that is gone. While ours works, what SecretFlow sends goes through
:class:`~orchestra_strategy.cluster.members.Members` over that same line, so that there are signs of
life, limits, and the allow-list of our own cluster mode.
"""

import importlib
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, TimeoutError
from contextlib import contextmanager
from typing import Any

from orchestra_strategy.cluster.lane import Link
from orchestra_strategy.cluster.members import Members
from orchestra_strategy.cluster.wire import UnreachableError
from orchestra_strategy.errors import ClusterError, HostError
from orchestra_strategy.host_cluster import members_proxy

__all__ = ["end_waits", "leave", "platform_addresses", "platform_link", "taken_over"]

_FED = "secretflow.distributed.fed"
_SEND_SECONDS = 60.0  # of one frame, a mebibyte at most
_MANY = 1_000_000  # tries
_GONE = 1.0  # seconds after which nobody's old line takes a message any more


def _context() -> Any:
    """Return SecretFlow's state of a job over several machines; None in its simulations."""
    fed = importlib.import_module(f"{_FED}.global_context")
    return fed.get_global_context(assert_none=False)


def platform_addresses() -> Mapping[str, str] | None:
    """Return the address of each party; None if all parties are simulated in this process."""
    context = _context()
    return None if context is None else dict(context.get_addresses())


def platform_link(seconds: float) -> Link:
    """Return a link over the line that SecretFlow has opened.

    Args:
        seconds: The longest wait for the other parties.

    Raises:
        ClusterError: They do not come to this point in time.
        HostError: The line is of a kind that is not known.
    """
    proxy = _context()._proxy
    kinds = importlib.import_module(f"{_FED}.proxy")
    if isinstance(proxy, kinds.GrpcProxy):
        return _GrpcLink(proxy)
    if isinstance(proxy, kinds.BrpcLinkProxy):
        return _BrpcLink(proxy, seconds)
    raise HostError(
        "Expected SecretFlow's backend `grpc` or `brpc_link` between the parties, got "
        f"{type(proxy).__name__}; a component of this package can run once in a process."
    )


class _GrpcLink:
    """Frames as numbered messages of SecretFlow's gRPC service; its own have numbers from 1 on."""

    def __init__(self, proxy: Any) -> None:
        self._proxy = proxy
        self._pb2 = importlib.import_module(f"{_FED}.proxy.grpc.fed_pb2")
        self._parties = list(proxy._addresses)
        self._sent = dict.fromkeys(self._parties, 0)
        self._taken = dict.fromkeys(self._parties, 0)

    def send(self, peer: str, frame: bytes) -> None:
        number = self._number(self._proxy._party, self._sent[peer])
        request = self._pb2.SfFedProxySendData(
            data=frame, seq_id=number, job_name=self._proxy._job_name
        )
        grpc = importlib.import_module("grpc")
        try:
            reply = self._proxy._stubs[peer].SendData(
                request, metadata=self._proxy._grpc_metadata, timeout=_SEND_SECONDS
            )
        except grpc.RpcError as error:
            raise UnreachableError(f"{error.code().name}: {error.details()}") from None
        if reply.code != 200:
            raise UnreachableError(f"{reply.code}: {reply.result}")
        self._sent[peer] += 1

    def receive(self, peer: str) -> bytes:
        proxy, number = self._proxy, self._number(peer, self._taken[peer])
        with proxy._lock:
            come = proxy._data_events.setdefault(number, threading.Event())
        come.wait()
        with proxy._lock:
            proxy._data_events.pop(number)
            frame: bytes = proxy._all_data.pop(number)
        self._taken[peer] += 1
        return frame

    def _number(self, sender: str, place: int) -> int:
        return -(place * len(self._parties) + self._parties.index(sender) + 1)


class _BrpcLink:
    """Frames as they are; brpc keeps their order.

    The line is closed and opened again: SecretFlow's gives a message up after some nine seconds,
    and brpc then ends the process without a word. This one tries on; who is gone, say the signs of
    life.
    """

    def __init__(self, proxy: Any, seconds: float) -> None:
        self._proxy, self._ranks = proxy, proxy._parties_rank
        opened: Future[None] = Future()
        # In a thread, as brpc waits for the others as long as it has been told by SecretFlow.
        threading.Thread(target=self._reopen, args=(opened, seconds), daemon=True).start()
        try:
            opened.result(seconds)
        except TimeoutError:
            others = ", ".join(party for party in self._ranks if party != proxy._party)
            raise ClusterError(
                f"Expected all of {others} to come to the start within {seconds:g} s "
                "(`start_timeout`), still waiting: one of them has not been started, or has "
                "stopped before."
            ) from None

    def send(self, peer: str, frame: bytes) -> None:
        try:
            self._proxy._linker.send_async(self._ranks[peer], frame)
        except RuntimeError as error:
            raise UnreachableError(str(error).splitlines()[0]) from None

    def receive(self, peer: str) -> bytes:
        frame: bytes = self._proxy._linker.recv(self._ranks[peer])
        return frame

    def _reopen(self, opened: "Future[None]", seconds: float) -> None:
        try:
            proxy, desc = self._proxy, self._proxy._desc
            retry = desc.retry_opts
            retry.max_retry, retry.aggressive_retry = _MANY, True
            retry.retry_interval_ms = retry.retry_interval_incr_ms = 1_000
            retry.max_retry_interval_ms = 5_000
            desc.retry_opts = retry
            desc.connect_retry_interval_ms = 500
            desc.connect_retry_times = int(seconds * 2) + 1
            proxy.stop()  # returns when the others have come here, too
            time.sleep(_GONE)
            proxy._linker = importlib.import_module("spu.libspu.link").create_brpc(
                desc, proxy._rank
            )
            opened.set_result(None)
        except Exception as error:  # whatever brpc raises belongs to the thread that waits
            opened.set_exception(error)


def end_waits(error: Exception) -> None:
    """Have the main thread raise an error, where it waits for a peer from now on."""
    context = _context()
    if context is not None:
        context.set_remote_exception(error)


def leave() -> None:
    """End SecretFlow's part after an error.

    Its own shutdown ends the process before the platform can note why.
    """
    fed = importlib.import_module(f"{_FED}.global_context")
    fed.clear_global_context(wait_for_sending=False, on_error=True)
    importlib.import_module("secretflow.distributed").shutdown(on_error=True)


@contextmanager
def taken_over(members: Members) -> Iterator[None]:
    """Have SecretFlow send through the members, for good: its line has their frames from now on.

    Args:
        members: The job's parties, over :func:`platform_link`.
    """
    context = _context()
    stock = context._proxy

    def stop() -> None:
        members.close()
        stock.stop()

    context._proxy = members_proxy(members, stop)
    # Whoever holds this flag ends the session; otherwise a message that cannot be sent ends the
    # process by a signal before anybody can say why.
    context.acquire_shutdown_flag()
    members.liveness.on_failure = context.set_remote_exception
    try:
        members.liveness.check()
        yield
    except BaseException:
        leave()
        raise
    finally:
        members.liveness.on_failure = None
    with context._lock:
        context._atomic_shutdown_flag = True  # all is well: SecretFlow ends it
