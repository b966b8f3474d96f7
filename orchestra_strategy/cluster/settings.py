"""Settings of a party that joins a cluster: addresses, keys, and how long it waits."""

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from orchestra_strategy.cluster.ray_settings import Backend, RaySettings, check_ray
from orchestra_strategy.config import FrozenConfig
from orchestra_strategy.errors import did_you_mean

__all__ = [
    "ClusterSettings",
    "Limits",
    "PartyAddress",
    "TlsFiles",
    "is_loopback",
]

# A party's name is also the DNS name in its certificate.
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?")


def _host_and_port(address: str) -> str:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(
            f"Expected an address to be `host:port` with a port from 1 to 65535, got {address!r}"
        )
    return address


Address = Annotated[str, AfterValidator(_host_and_port)]


def is_loopback(address: str) -> bool:
    """Whether an address never leaves its machine.

    >>> is_loopback("127.0.0.1:9000"), is_loopback("10.0.0.7:9000")
    (True, False)
    """
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class PartyAddress(FrozenConfig):
    """Where a party is.

    Attributes:
        address: ``host:port`` that the others call.
        listen: ``host:port`` that it binds to, exactly; ``address`` by default. It may differ
            between parties' files, as behind a gateway.
    """

    address: Address
    listen: Address | None = None


class TlsFiles(FrozenConfig):
    """Paths of PEM files of one party.

    Attributes:
        ca: The authority's certificate, which all parties' are signed by.
        cert: The party's own; its name stands among the subject's alternative names.
        key: The private key of it.
    """

    ca: str
    cert: str
    key: str


class Limits(FrozenConfig):
    """How long the parties of a job wait for each other, and what goes with it.

    Attributes:
        job: Name of the job; calls of another are refused.
        plain_text: Whether to do without TLS where an address is not on this machine alone.
        start_timeout: Seconds to wait for late parties.
        heartbeat: Seconds between two signs of life.
        peer_timeout: Seconds without a sign of life after which a party counts as lost.
        step_timeout: Seconds to wait for what a living party computes.
    """

    job: str = "orchestra"
    plain_text: bool = False
    start_timeout: float = Field(300.0, gt=0)
    heartbeat: float = Field(2.0, gt=0)
    peer_timeout: float = Field(30.0, gt=0)
    step_timeout: float = Field(6 * 3600.0, gt=0)

    @model_validator(mode="after")
    def _beats_fit(self) -> "Limits":
        if self.peer_timeout < 2 * self.heartbeat:
            raise ValueError(
                "Expected `peer_timeout` to be at least two heartbeats, got "
                f"{self.peer_timeout:g} with `heartbeat={self.heartbeat:g}`"
            )
        return self


class ClusterSettings(Limits):
    """How the parties of a job reach each other.

    Attributes:
        parties: Address of each by name; the same names in each party's file.
        self_party: Which of them this process is.
        tls: Keys for mutual TLS.
        backend: Where the work is done: ``"threads"`` of this process, or processes of a ``"ray"``;
            the same at all parties.
        ray: This party's Ray, if there is one.
        absent: Those that the others go on without; they may come back.
    """

    parties: dict[str, PartyAddress]
    self_party: str
    tls: TlsFiles | None = None
    backend: Backend = "threads"
    ray: RaySettings | None = None
    absent: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _can_be_reached(self) -> "ClusterSettings":
        wrong = [name for name in self.parties if not _NAME.fullmatch(name)]
        if wrong:
            raise ValueError(
                "Expected names of `parties` to be letters, digits, '.' and '-' in cluster mode "
                f"(they stand in certificates), got {wrong[0]!r}"
            )
        unknown = [name for name in self.absent if name not in self.parties]
        if unknown:
            hint = did_you_mean(unknown[0], self.parties)
            raise ValueError(
                f"Expected `absent` to be parties of the job, got {unknown[0]!r}; {hint}"
            )
        if len(self.present) < 2:
            rest = f" without {', '.join(self.absent)}" if self.absent else ""
            raise ValueError(f"Expected at least 2 `parties`, got {len(self.present)}{rest}")
        if self.self_party not in self.present:
            raise ValueError(
                f"Expected `self_party` to be one of {sorted(self.present)}, got "
                f"{self.self_party!r}"
            )
        addresses = [party.address for party in self.parties.values()]
        if len(set(addresses)) < len(addresses):
            raise ValueError(f"Expected each of `parties` to have its own address, got {addresses}")
        return self

    @model_validator(mode="after")
    def _has_a_ray(self) -> "ClusterSettings":
        check_ray(self.backend, self.ray)
        return self

    @model_validator(mode="after")
    def _is_encrypted(self) -> "ClusterSettings":
        public = [p for p, at in self.parties.items() if not is_loopback(at.address)]
        if self.tls is None and public and not self.plain_text:
            raise ValueError(
                f"Expected `tls` with an address that others can reach ({public[0]}: "
                f"{self.parties[public[0]].address}), got None; `orchestra-fl certs` makes keys to "
                "try it with, and `plain_text: true` does without where a gateway encrypts"
            )
        return self

    @property
    def present(self) -> list[str]:
        """The names of all parties that take part, in order."""
        return [name for name in self.parties if name not in self.absent]

    @property
    def peers(self) -> list[str]:
        """The other parties' names that take part, in order."""
        return [name for name in self.present if name != self.self_party]

    @property
    def listen(self) -> str:
        """What this process binds to."""
        own = self.parties[self.self_party]
        return own.listen or own.address
