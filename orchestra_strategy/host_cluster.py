"""SecretFlow's cluster mode over our own port: the other half of the border to SecretFlow.

SecretFlow's gRPC proxy (``secretflow/distributed/fed/proxy/grpc``, 1.11 to 1.13) waits without
limit for what a peer sends, reads it by a block-list, listens on all interfaces, hands server
credentials to its client channels (so TLS does not start), and ends the process by a signal when a
message cannot be sent. Here SecretFlow gets a proxy that goes over
:class:`~orchestra_strategy.cluster.members.Members` instead.
"""

import importlib
import logging
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any

from orchestra_strategy import host
from orchestra_strategy.cluster.allow_list import loads
from orchestra_strategy.cluster.failure import failure_of
from orchestra_strategy.cluster.members import Members
from orchestra_strategy.errors import ClusterError, HostError
from orchestra_strategy.host_metrics import PartyMean

__all__ = [
    "FROM_PEERS",
    "failures_told",
    "joined",
    "members_proxy",
    "plain_error",
    "process_settings_kept",
]

_FED = "secretflow.distributed.fed"
# What FLModel sends beside arrays: each epoch's metrics.
FROM_PEERS = frozenset({f"{PartyMean.__module__}.{PartyMean.__qualname__}"})


class _NotCancelled(logging.Filter):
    """Keeps back that a message to a peer was cancelled: the training's own error says why."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, CancelledError)


# SecretFlow logs it with its stack, in a thread that may still run when the training has ended.
logging.getLogger(f"{_FED}.global_context").addFilter(_NotCancelled())


def _fed(module: str) -> Any:
    try:
        return importlib.import_module(f"{_FED}.{module}")
    except ModuleNotFoundError:
        raise HostError(
            "Expected a SecretFlow whose cluster mode works without Ray (1.11 to 1.13), got one "
            f"without `{_FED}`; install `secretflow==1.13.0b0`."
        ) from None


@contextmanager
def joined(members: Members, logging_level: str) -> Iterator[None]:
    """Run SecretFlow's production mode, without Ray, for the length of a block.

    Args:
        members: The job's parties, who have agreed to begin.
        logging_level: SecretFlow's.
    """
    on_error = True
    try:
        with failures_told(members):
            with process_settings_kept():
                _start(members, logging_level)
            yield
            on_error = False
    finally:
        members.liveness.on_failure = None
        # Not ``secretflow.shutdown()``: after an error it would wait for a barrier with peers.
        _fed("global_context").clear_global_context(
            wait_for_sending=not on_error, on_error=on_error
        )
        importlib.import_module("secretflow.distributed").shutdown(on_error=on_error)


@contextmanager
def failures_told(members: Members) -> Iterator[None]:
    """Tell the other parties of an error, and wait for no more mail; the error goes on."""
    try:
        yield
    except BaseException as error:
        members.liveness.fail(failure_of(plain_error(error), members.settings.self_party))
        members.mailbox.close()
        raise


@contextmanager
def process_settings_kept() -> Iterator[None]:
    """Put back what SecretFlow and Ray replace for the whole process.

    Ctrl-C and SIGTERM have to reach the user's code, and its log its handlers.
    """
    root = logging.getLogger()
    signals = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        for number, handler in signals.items():
            signal.signal(number, handler)
        root.handlers[:] = handlers
        root.setLevel(level)


def plain_error(error: BaseException) -> BaseException:
    """Return the error that SecretFlow has wrapped for its caller, or the error itself."""
    wrapped = _fed("exception").FedLocalError
    while isinstance(error, wrapped):
        error = error.cause()
    return error


def _start(members: Members, logging_level: str) -> None:
    settings = members.settings
    api = _fed("api")
    stock = api.GrpcProxy
    api.GrpcProxy = lambda *_: members_proxy(members)
    try:
        host.secretflow.init(
            cluster_config={
                "parties": {
                    name: {"address": at.address}
                    for name, at in settings.parties.items()
                    if name in settings.present
                },
                "self_party": settings.self_party,
            },
            ray_mode=False,
            logging_level=logging_level,
            job_name=settings.job,
            cross_silo_comm_backend="grpc",
            enable_waiting_for_other_parties_ready=False,
        )
    finally:
        api.GrpcProxy = stock
    context = _fed("global_context").get_global_context()
    # Whoever holds this flag ends the session; otherwise a message that cannot be sent ends the
    # process by a signal before anybody can say why.
    context.acquire_shutdown_flag()
    members.liveness.on_failure = context.set_remote_exception
    members.liveness.check()


def _note(error: ClusterError) -> None:
    """Have the main thread raise an error of a sending thread, where it waits."""
    context = _fed("global_context").get_global_context(assert_none=False)
    if context is not None and context.get_last_exception() is None:
        context.set_remote_exception(error)


def members_proxy(members: Members, stop: Callable[[], None] = lambda: None) -> Any:
    """Return a proxy for SecretFlow that sends and receives through the members.

    Args:
        members: The job's parties.
        stop: Called when SecretFlow ends in good order.
    """
    base: Any = _fed("proxy.base").SenderReceiverProxy
    error_class: Any = _fed("exception").FedRemoteError
    dumps: Any = importlib.import_module("secretflow.utils.secure_pickle").dumps

    class MembersProxy(base):  # type: ignore[misc]
        """Sends and receives over the port that the job's parties already share."""

        def concurrent(self) -> bool:
            """Several threads may use it."""
            return True

        def start(self) -> None:
            """Nothing to do: the port is open since the handshake."""

        def stop(self) -> None:
            """End, if it is not for the session to do that."""
            stop()

        def recv(self, src_party: str, seq_id: Any) -> Any:
            """Wait for an object of a peer."""
            data = members.take(src_party, str(seq_id))
            return loads(data, src_party, FROM_PEERS)

        def send(self, dest_party: str, data: Any, seq_id: Any) -> bool:
            """Send an object; an error is not sent, but ends the job at every party."""
            if isinstance(data, error_class):
                me = members.settings.self_party
                members.liveness.fail(failure_of(plain_error(data.cause()), me))
                return True
            try:
                members.send(dest_party, str(seq_id), dumps(data))
            except ClusterError as error:
                _note(error)
                # The one kind that SecretFlow does not print the stack of: the main thread raises.
                raise error_class(dest_party, error) from None
            return True

    settings = members.settings
    addresses = {name: at.address for name, at in settings.parties.items()}
    return MembersProxy(settings.job, addresses, settings.self_party, None)
