"""The two forms in which a party's payload travels; which one is the parameter ``route``.

``server``: a dictionary, for :func:`~orchestra_strategy.server_aggregation`, which sees each one.
``secure``: one list of float32 arrays, for an aggregator, of which all parties get the mean.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from orchestra_strategy.errors import ParameterError, ReplyError
from orchestra_strategy.exchange.half import widened
from orchestra_strategy.exchange.manifest import Entry, Manifest
from orchestra_strategy.exchange.payload import Payload, pack, unpack
from orchestra_strategy.exchange.received import described
from orchestra_strategy.exchange.ring import Ring

__all__ = ["ROUTES", "SERVER_ROUTE", "Route", "SecureRoute", "Sent", "ServerRoute"]

SERVER_ROUTE = "`route='server'` (`OrchestraFLModel` with `server=` in place of `aggregator=`)"
"""The way out that messages name for what route ``secure`` cannot do."""

_PHASES = ("init", "sync", "round")

# A sum is sent divided by the party's weight. Without this factor, sums of a party with many
# samples would vanish in the 18 bits behind the point that secure aggregators have.
_SUM_SCALE = 128.0

# Rounds are compared modulo this: small numbers survive fixed-point arithmetic.
_ROUND_MODULUS = 16
_CHECK_TOLERANCE = 5e-4

# Shares of secrets are rounded by a few units of 2**-18: a variance of zero can come back below it.
_ROUNDED_BELOW_ZERO = 2.0**-14


class Sent(NamedTuple):
    """What a party sent last: the reply must belong to it.

    Attributes:
        round_index: Rounds that the party had done.
        phase: As in :class:`~orchestra_strategy.exchange.payload.Payload`.
        num_samples: The party's weight.
    """

    round_index: int
    phase: str
    num_samples: int = 0


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
        ring: Ring = Ring(),  # noqa: B008  # immutable
    ) -> Any:
        """Return what travels.

        Args:
            payload: What to send.
            manifest: What may be sent.
            weighted: Whether the mean will weigh by samples.
            who: The sender, named in messages.
            finite: Whether the sender refuses NaN and infinity; else the receiver looks for them.
            ring: How much an aggregator can add up.
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
        ring: Ring = Ring(),  # noqa: B008  # immutable
    ) -> dict[str, Any]:
        """Return plain containers; the number of samples is among them."""
        return pack(payload, manifest, who, finite)

    def unpack(self, wire: Any, sent: Sent, manifest_of: Callable[[bool], Manifest]) -> Payload:
        """Return the server's reply.

        Raises:
            ReplyError: It has another form than the manifest's.
        """
        reply = unpack(wire, "the server", reply=True)
        if (reply.round_index, reply.phase) != (sent.round_index, sent.phase):
            raise ReplyError(
                f"Expected the server's reply to round {sent.round_index}, phase '{sent.phase}', "
                f"got one to round {reply.round_index}, phase '{reply.phase}': it belongs to "
                "another exchange. After an interrupted round, build a new FLModel."
                + ("" if reply.left_out is None else f" It was left out: {reply.left_out}")
            )
        if reply.left_out is None and reply.num_samples < sent.num_samples:
            raise ReplyError(
                "Expected `num_samples` of the server to be those of all parties, at least "
                f"{sent.num_samples}, which this one has sent, got {reply.num_samples}."
            )
        manifest_of(reply.phase == "round").check(reply.arrays, "the server")
        return reply._replace(arrays={name: widened(a) for name, a in reply.arrays.items()})


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
                    f"{SERVER_ROUTE}."
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
        ring: Ring = Ring(),  # noqa: B008  # immutable
    ) -> list[Any]:
        """Return the check and the manifest's arrays, in its order, all of at least one dimension.

        Sums are divided by the party's weight where the aggregator multiplies by it.

        Raises:
            ReplyError: The arrays are not the manifest's, or one does not fit the ring.
        """
        # Always finite: in a mean, nobody could find or leave out the party that is not.
        manifest.check(payload.arrays, who)
        factor = _SUM_SCALE / payload.num_samples if weighted else 1.0
        wire = {"round, phase": _check_of(Sent(payload.round_index, payload.phase))}
        for name, entry in manifest.arrays().items():
            scale = factor if entry.combine == "secure sum" else 1.0
            array = payload.arrays[name]
            wire[name] = np.atleast_1d(array * np.float32(scale)).astype(np.float32)
        ring.check(wire, payload.num_samples if weighted else 1, who)
        return list(wire.values())

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
        for array in wire:
            if type(array) is not np.ndarray or array.dtype not in (np.float32, np.float64):
                raise ReplyError(
                    "Expected the aggregator to return plain numpy arrays of float32 or float64, "
                    f"got {described(array)}."
                )
        _check_agreement(wire[0], sent)
        with np.errstate(over="ignore"):  # what overflows is refused by its name
            means = [array.astype(np.float32) for array in wire[1:]]
        # Zero-dimensional arrays travel as one-dimensional ones.
        arrays = {
            name: mean.reshape(()) if entry.shape == () and mean.size == 1 else _mended(name, mean)
            for (name, entry), mean in zip(entries.items(), means, strict=True)
        }
        manifest.check(arrays, "the aggregator")
        return Payload(arrays, sent.round_index, sent.phase, 0)  # type: ignore[arg-type]


def _check_agreement(check: npt.NDArray[Any], sent: Sent) -> None:
    want = _check_of(sent)
    if check.shape == want.shape and not check.any():
        raise ReplyError(
            "Expected the aggregator to return a mean, got zeros: the parties' samples together "
            "are too many for it to divide by; use an SPU with `field` FM128, a SecureAggregator, "
            f"or {SERVER_ROUTE}."
        )
    if check.shape != want.shape or not np.allclose(check, want, 0, _CHECK_TOLERANCE):
        got = f"a mean check of {check.tolist()}" if check.size <= want.size else described(check)
        raise ReplyError(
            f"Expected all parties to be at round {sent.round_index}, phase '{sent.phase}', "
            f"got {got} for {want.tolist()}: parties are at different rounds. After an interrupted "
            "round, build a new FLModel."
        )


def _mended(name: str, mean: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    if name.endswith("running_var") and mean.size and mean.min() >= -_ROUNDED_BELOW_ZERO:
        return np.maximum(mean, np.float32(0.0))
    return mean


def _check_of(sent: Sent) -> Any:
    # Neither is ever zero, so that an array of zeros is seen, too.
    numbers = [sent.round_index % _ROUND_MODULUS + 1, _PHASES.index(sent.phase) + 1]
    return np.array(numbers, np.float32)


ROUTES: dict[str, Route] = {"server": ServerRoute(), "secure": SecureRoute()}
"""The forms by the parameter ``route``."""
