"""Calls between parties: one port, mutual TLS, and a sender who is who he says he is."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import grpc

from orchestra_strategy.cluster.settings import ClusterSettings, is_loopback
from orchestra_strategy.cluster.tls_files import TlsBytes, read_tls
from orchestra_strategy.errors import ClusterError

__all__ = ["Calls", "Handlers", "UnreachableError", "Wire"]

# SecretFlow's own limit of 500 MB is short for big encoders; this is as much as gRPC can send.
_SIZES = [
    ("grpc.max_send_message_length", 2**31 - 1),
    ("grpc.max_receive_message_length", 2**31 - 1),
]
_SERVICE = "orchestra.Cluster"


class UnreachableError(ClusterError):
    """A call did not get through; the text says what the transport knows of it."""


@dataclass(frozen=True)
class Handlers:
    """Who gets what comes from peers; called in threads of the transport.

    Attributes:
        answer: Answers a peer's message; called with the peer's name.
        store: Takes data that a peer sends: its name, a key, bytes.
        alive: Hears that something has come from a peer that is neither.
        knock: Hears that an absent party calls.
    """

    answer: Callable[[str, dict[str, Any]], dict[str, Any]]
    store: Callable[[str, str, bytes], None]
    alive: Callable[[str], None]
    knock: Callable[[str], None]


class Calls(Protocol):
    """What a party needs of a transport."""

    def ask(self, peer: str, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Send a peer a message, and return what it answers."""

    def send(self, peer: str, key: str, data: bytes, seconds: float) -> None:
        """Hand data to a peer."""

    def stop(self) -> None:
        """End."""


class Wire:
    """A party's server, and its channels to the others.

    Args:
        settings: Of the cluster.
        handlers: Who gets what comes.

    Raises:
        ClusterError: The key files cannot be used, or the address cannot be bound to.
    """

    def __init__(self, settings: ClusterSettings, handlers: Handlers) -> None:
        self._settings, self._handlers = settings, handlers
        tls = None if settings.tls is None else read_tls(settings.tls, settings.self_party)
        self._server = self._listen(tls)
        self._channels = {peer: self._channel(peer, tls) for peer in settings.peers}

    def ask(self, peer: str, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Send a peer a message, and return what it answers.

        Raises:
            UnreachableError: No answer within the time.
        """
        data = json.dumps(message).encode()
        reply: dict[str, Any] = json.loads(self._call(peer, "Ask", data, (), seconds))
        return reply

    def send(self, peer: str, key: str, data: bytes, seconds: float) -> None:
        """Hand data to a peer.

        Raises:
            UnreachableError: It has not taken it within the time.
        """
        self._call(peer, "Data", data, (("key", key),), seconds)

    def stop(self) -> None:
        """Close the port and the channels; calls under way end."""
        self._server.stop(grace=0.2).wait(5)
        for channel in self._channels.values():
            channel.close()

    def _call(
        self, peer: str, method: str, data: bytes, more: tuple[tuple[str, str], ...], seconds: float
    ) -> bytes:
        metadata = (("party", self._settings.self_party), ("job", self._job), *more)
        call = self._channels[peer].unary_unary(f"/{_SERVICE}/{method}")
        try:
            reply: bytes = call(data, metadata=metadata, timeout=seconds)
        except grpc.RpcError as error:
            raise UnreachableError(f"{error.code().name}: {error.details()}") from None
        except ValueError as error:  # the channel was closed while a thread was about to call
            raise UnreachableError(str(error)) from None
        return reply

    @property
    def _job(self) -> str:
        """What a call has to be for: parties that go on without one are another job than before."""
        absent = "".join(f" without {name}" for name in sorted(self._settings.absent))
        return f"{self._settings.job}{absent}"

    def _listen(self, tls: TlsBytes | None) -> Any:
        # Two threads a peer: one for signs of life while the other takes data in.
        workers = ThreadPoolExecutor(2 * len(self._settings.parties) + 2, "wire")
        server = grpc.server(workers, options=[*_SIZES, ("grpc.so_reuseport", 0)])
        handlers = {
            "Ask": grpc.unary_unary_rpc_method_handler(self._on_ask),
            "Data": grpc.unary_unary_rpc_method_handler(self._on_data),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
        listen = self._settings.listen
        try:
            if tls is None:
                port = server.add_insecure_port(listen)
            else:
                pair = [(tls.key, tls.cert)]
                port = server.add_secure_port(
                    listen, grpc.ssl_server_credentials(pair, tls.ca, require_client_auth=True)
                )
        except RuntimeError:
            port = 0
        if port == 0:
            raise ClusterError(
                f"Expected `listen` of {self._settings.self_party} to be a free address of this "
                f"machine, got {listen!r}, which cannot be bound to: another process has the "
                "port, or the address is another machine's."
            )
        server.start()
        return server

    def _channel(self, peer: str, tls: TlsBytes | None) -> Any:
        address = self._settings.parties[peer].address
        # A party that was away is called again at once, not after minutes of growing pauses.
        options: list[tuple[str, int | str]] = [*_SIZES, ("grpc.max_reconnect_backoff_ms", 2_000)]
        if is_loopback(address):
            options.append(("grpc.enable_http_proxy", 0))
        if tls is None:
            return grpc.insecure_channel(address, options=options)
        # The certificate has to be the party's, whatever machine it runs on.
        options += [("grpc.ssl_target_name_override", peer), ("grpc.default_authority", peer)]
        credentials = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.cert)
        return grpc.secure_channel(address, credentials, options=options)

    def _on_ask(self, data: bytes, context: Any) -> bytes:
        sender = self._sender(context)
        return json.dumps(self._handlers.answer(sender, json.loads(data))).encode()

    def _on_data(self, data: bytes, context: Any) -> bytes:
        sender = self._sender(context)
        self._handlers.store(sender, dict(context.invocation_metadata())["key"], data)
        return b""

    def _sender(self, context: Any) -> str:
        """Return who calls, or end the call: unknown, of another job, or not who he says."""
        said = dict(context.invocation_metadata())
        party, job = str(said.get("party")), said.get("job")
        problem = ""
        names = context.auth_context().get("x509_subject_alternative_name", [])
        if party == self._settings.self_party or party not in self._settings.parties:
            problem = f"{party!r} is no party of this job"
        elif self._settings.tls is not None and party.encode() not in names:
            problem = f"{party!r} called with a certificate that does not name it"
        elif party in self._settings.absent and job == self._settings.job:
            self._handlers.knock(party)
            problem = f"the job goes on without {party!r}, which is taken in after a checkpoint"
        elif job != self._job:
            problem = f"expected `job` {self._job!r}, got {job!r}"
        if problem:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, problem)
        return party
