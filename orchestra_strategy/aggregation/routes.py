"""The two forms in which a party's payload travels; which one is the parameter ``route``.

``server``: a dictionary, for :func:`~orchestra_strategy.server_aggregation`, which sees each one.
``secure``: one list of float32 arrays, for an aggregator, of which all parties get the mean.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from orchestra_strategy.errors import ParameterError, ReplyError
from orchestra_strategy.payload import Entry, Manifest, Payload, described, pack, unpack

__all__ = ["ROUTES", "Route", "SecureRoute", "Sent", "ServerRoute"]

_PHASES = ("init", "sync", "round")

# A sum is sent divided by the party's weight. Without this factor, sums of a party with many
# samples would vanish in the 18 bits behind the point that secure aggregators have.
_SUM_SCALE = 128.0

# Rounds are compared modulo this: small numbers survive fixed-point arithmetic.
_ROUND_MODULUS = 16
_CHECK_TOLERANCE = 5e-4

# Of SecretFlow's SecureAggregator, by default; the sign takes one of the 64 bits.
_RING_BITS = 63
_FRACTION_BITS = 18
_UNKNOWN_PARTIES = 64  # with SecretFlow's own FLModel nobody tells a party how many there are


class Sent(NamedTuple):
    """What a party sent last: the reply must belong to it."""

    round_index: int
    phase: str


class Route(Protocol):
    """How a payload becomes what travels, and a reply becomes a payload."""

    returns_all: ClassVar[bool]

    def address(self, entries: Sequence[Entry]) -> tuple[Entry, ...]:
        """Return a manifest's entries as they are on this route."""

    def pack(
        self,
        payload: Payload,
        manifest: Manifest,
        weighted: bool,
        who: str = "this party",
        finite: bool = True,
        ring_parties: int | None = None,
    ) -> Any:
        """Return what travels.

        Args:
            payload: What to send.
            manifest: What may be sent.
            weighted: Whether the mean will weigh by samples.
            who: The sender, named in messages.
            finite: Whether the sender refuses NaN and infinity; else the receiver looks for them.
            ring_parties: Of how many parties an aggregator adds up numbers in a ring; 0 where it
                has none, None where that is not known.
        """

    def unpack(self, wire: Any, sent: Sent, manifest_of: Callable[[bool], Manifest]) -> Payload:
        """Return a checked reply; ``manifest_of(trained)`` gives its form."""


class ServerRoute:
    """Dictionaries to and from a server of ours."""

    returns_all: ClassVar[bool] = False

    def address(self, entries: Sequence[Entry]) -> tuple[Entry, ...]:
        """Return the entries as they are."""
        return tuple(entries)

    def pack(
        self,
        payload: Payload,
        manifest: Manifest,
        weighted: bool,
        who: str = "this party",
        finite: bool = True,
        ring_parties: int | None = None,
    ) -> dict[str, Any]:
        """Return plain containers; the number of samples is among them."""
        return pack(payload, manifest, who, finite)

    def unpack(self, wire: Any, sent: Sent, manifest_of: Callable[[bool], Manifest]) -> Payload:
        """Return the server's reply.

        Raises:
            ReplyError: It has another form than the manifest's.
        """
        reply = unpack(wire, "the server", reply=True)
        if (reply.round_index, reply.phase) != sent:
            raise ReplyError(
                f"Expected the server's reply to round {sent.round_index}, phase '{sent.phase}', "
                f"got one to round {reply.round_index}, phase '{reply.phase}': it belongs to "
                "another exchange. After an interrupted round, build a new FLModel."
            )
        manifest_of(reply.phase == "round").check(reply.arrays, "the server")
        return reply


class SecureRoute:
    """Lists of arrays, at first one by which the parties see that all are at the same round."""

    returns_all: ClassVar[bool] = True

    def address(self, entries: Sequence[Entry]) -> tuple[Entry, ...]:
        """Return the entries with the aggregator as the receiver.

        Raises:
            ParameterError: Something is sent that has no meaning as a mean.
        """
        addressed = []
        for entry in entries:
            if entry.name == "round, phase":
                entry = entry._replace(shape=(2,), dtype="float32")
            elif entry.to == "server" and entry.combine not in ("weighted mean", "weight"):
                raise ParameterError(
                    f"Expected all that is sent on `route='secure'` to be averaged, got "
                    f"`{entry.name}`, which is '{entry.combine}': it needs a server, use "
                    "`route='server'`."
                )
            to = "aggregator" if entry.to == "server" else entry.to
            addressed.append(entry._replace(to=to))
        return tuple(addressed)

    def pack(
        self,
        payload: Payload,
        manifest: Manifest,
        weighted: bool,
        who: str = "this party",
        finite: bool = True,
        ring_parties: int | None = None,
    ) -> list[Any]:
        """Return the check and the manifest's arrays, in its order, all of at least one dimension.

        Sums are divided by the party's weight where the aggregator multiplies by it.

        Raises:
            ReplyError: The arrays are not the manifest's, or one does not fit the ring.
        """
        # Always finite: in a mean, nobody could find or leave out the party that is not.
        manifest.check(payload.arrays, who)
        factor = _SUM_SCALE / payload.num_samples if weighted else 1.0
        wire = [_check_of(Sent(payload.round_index, payload.phase))]
        for name, entry in manifest.arrays().items():
            scale = factor if entry.combine == "secure sum" else 1.0
            array = payload.arrays[name]
            wire.append(np.atleast_1d(array * np.float32(scale)).astype(np.float32))
            weight = payload.num_samples if weighted else 1
            _check_ring(name, wire[-1], max(weight, 1), ring_parties, who)
        return wire

    def unpack(self, wire: Any, sent: Sent, manifest_of: Callable[[bool], Manifest]) -> Payload:
        """Return the mean of all parties' arrays.

        Raises:
            ReplyError: It has another form than what was sent, or the parties do not agree on
                where they are. A party with less than a thousandth of the weight can hide that.
        """
        manifest = manifest_of(sent.phase == "round")
        entries = manifest.arrays()
        if not isinstance(wire, (list, tuple)) or len(wire) != len(entries) + 1:
            got = f"{len(wire)}" if isinstance(wire, (list, tuple)) else type(wire).__name__
            raise ReplyError(
                f"Expected the aggregator to return a list of {len(entries) + 1} arrays, got "
                f"{got}: all parties must run this strategy with `route='secure'`, with a "
                "SecretFlow aggregator."
            )
        wrong = [described(array) for array in wire if not _is_plain(array)]
        if wrong:
            raise ReplyError(
                "Expected the aggregator to return arrays of floating-point numbers, got "
                f"{wrong[0]}."
            )
        check, *means = (np.asarray(array, np.float32) for array in wire)
        want = _check_of(sent)
        if check.shape != want.shape or not np.allclose(check, want, 0, _CHECK_TOLERANCE):
            raise ReplyError(
                f"Expected all parties to be at round {sent.round_index}, phase '{sent.phase}', "
                f"got a mean check of {check.tolist()} for {want.tolist()}: parties are at "
                "different rounds. After an interrupted round, build a new FLModel."
            )
        # Zero-dimensional arrays travel as one-dimensional ones.
        arrays = {
            name: mean.reshape(()) if entry.shape == () and mean.size == 1 else mean
            for (name, entry), mean in zip(entries.items(), means, strict=True)
        }
        manifest.check(arrays, "the aggregator")
        return Payload(arrays, sent.round_index, sent.phase, 0)  # type: ignore[arg-type]


def _is_plain(array: Any) -> bool:
    return type(array) is np.ndarray and array.dtype.kind == "f"


def _check_ring(
    name: str, array: npt.NDArray[np.float32], weight: int, parties: int | None, who: str
) -> None:
    """Refuse numbers whose sum over the parties could leave the ring: it would wrap around, unseen.

    Secure aggregators compute with whole numbers of 64 bits, 18 of them behind the point, and
    multiply by the weights before they add.

    Raises:
        ReplyError: |w| x weight x parties x 2^18 does not fit.
    """
    if parties == 0 or array.size == 0:
        return
    count = _UNKNOWN_PARTIES if parties is None else parties
    limit = 2.0 ** (_RING_BITS - _FRACTION_BITS) / (weight * count)
    largest = float(np.abs(array).max())
    if not largest < limit:
        raise ReplyError(
            f"Expected `{name}` of {who} to be below {limit:.4g} in absolute value, got "
            f"{largest:.4g}: the sum of {count} parties, each times its weight (here {weight}), "
            "would leave the ring of the secure aggregator and come back as another number. "
            "Standardise the features, lower `lr`, use `norm='group'` in the model, or the route "
            "'server'."
        )


def _check_of(sent: Sent) -> Any:
    # Neither is ever zero, so that an array of zeros is seen, too.
    numbers = [sent.round_index % _ROUND_MODULUS + 1, _PHASES.index(sent.phase) + 1]
    return np.array(numbers, np.float32)


ROUTES: dict[str, Route] = {"server": ServerRoute(), "secure": SecureRoute()}
"""The forms by the parameter ``route``."""
