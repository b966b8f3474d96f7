"""The payload: what travels between a party and the server, and how it is packed.

A payload is a plain dictionary of plain dictionaries of numpy arrays and integers, so that nothing
but those types has to be unpickled by a peer. It is packed against a :class:`Manifest`; what the
manifest does not name cannot be packed.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from orchestra_strategy.errors import ReplyError
from orchestra_strategy.exchange.half import narrowed
from orchestra_strategy.exchange.manifest import Manifest
from orchestra_strategy.exchange.received import check_plain, described, listed, shown

__all__ = [
    "LONGEST_REASON",
    "WIRE_VERSION",
    "FloatArray",
    "Payload",
    "pack",
    "unpack",
]

WIRE_VERSION = 1

LONGEST_REASON = 1000
"""Of a reply that was left out, in characters."""

# More samples than that nobody has; sums of several thousand parties' stay exact in float64.
_SAMPLES_END = 2**40
_INTEGERS_END = 2**53

FloatArray = npt.NDArray[np.float32]


class Payload(NamedTuple):
    """A payload in its typed form.

    Attributes:
        arrays: Float32 arrays by name; weights that have just come in may be float16.
        round_index: Rounds that the sender has done.
        phase: ``"init"`` (round 0 or no state yet), ``"sync"`` (nothing new since the last
            exchange) or ``"round"`` (after local training).
        num_samples: The sender's number of samples: its weight in the mean.
        left_out: In a reply of the server, what was wrong with what its receiver had sent, if that
            was left out of the round; else None.
    """

    arrays: dict[str, FloatArray]
    round_index: int
    phase: Literal["init", "sync", "round"]
    num_samples: int
    left_out: str | None = None


def pack(
    payload: Payload, manifest: Manifest, who: str = "this party", finite: bool = True
) -> dict[str, Any]:
    """Turn a payload into plain containers, after a check against the manifest.

    Args:
        payload: What to send.
        manifest: What may be sent.
        who: The sender, named in the messages.
        finite: Whether the sender refuses values; without, the receiver has to look for them.

    Raises:
        ReplyError: It differs from the manifest in any way.
    """
    arrays = narrowed(payload.arrays, manifest.arrays(), who, finite)
    manifest.check(arrays, who, finite, no_centroids=payload.phase == "init")
    meta = {
        "version": WIRE_VERSION,
        "round": int(payload.round_index),
        "phase": payload.phase,
        "num_samples": int(payload.num_samples),
    }
    return {"meta": meta, "arrays": arrays}


def unpack(wire: Any, who: str = "the sender", reply: bool = False) -> Payload:
    """Turn plain containers back into a payload, refusing any other form.

    Of the arrays, types are looked at, but neither shapes nor values.

    Args:
        wire: What came in.
        who: Named in the messages.
        reply: Whether it comes from the server, which may say why it left out what it was sent.

    Raises:
        ReplyError: Not our form, or of another version.
    """
    if type(wire) is not dict or set(wire) != {"meta", "arrays"}:
        got = listed(wire) if type(wire) is dict else described(wire)
        raise ReplyError(
            f"Expected {who} to send a payload of orchestra_strategy ('meta', 'arrays'), got "
            f"{got}. All parties must run a strategy of this package, and the server its "
            "`server_aggregation(...)`."
        )
    meta, arrays = wire["meta"], wire["arrays"]
    _check_meta(meta, who, reply)
    if type(arrays) is not dict:
        raise ReplyError(
            f"Expected `arrays` of {who} to be arrays by name, got {described(arrays)}."
        )
    for name, array in arrays.items():
        if type(name) is not str:
            raise ReplyError(
                f"Expected the names of arrays of {who} to be texts, got {shown(name)}."
            )
        check_plain(name, array, who, on_wire=True)
    counts = meta["round"], meta["phase"], meta["num_samples"]
    return Payload(dict(arrays), *counts, meta.get("left_out"))


def _check_meta(meta: Any, who: str, reply: bool) -> None:
    expected = {"version", "round", "phase", "num_samples"}
    optional = {"left_out"} if reply else set()
    if type(meta) is not dict or set(meta) - optional != expected:
        got = listed(meta) if type(meta) is dict else described(meta)
        raise ReplyError(
            f"Expected `meta` of {who} to have the keys {sorted(expected)}, got {got}."
        )
    version, phase, left_out = meta["version"], meta["phase"], meta.get("left_out", "")
    if type(version) is not int or version != WIRE_VERSION:
        raise ReplyError(
            f"Expected payload version {WIRE_VERSION} from {who}, got {shown(version)}: "
            "install the same version of orchestra-strategy at every party."
        )
    _check_counts(meta, who, reply)
    if type(phase) is not str or phase not in ("init", "sync", "round"):
        raise ReplyError(
            f"Expected `phase` of {who} to be 'init', 'sync' or 'round', got {shown(phase)}."
        )
    # It goes into logs, so it must not be able to look like further lines of theirs.
    if type(left_out) is not str or len(left_out) > LONGEST_REASON or not left_out.isprintable():
        raise ReplyError(
            f"Expected `left_out` of {who} to be a reason of at most {LONGEST_REASON} characters "
            f"in one line, got {shown(left_out)}."
        )


def _check_counts(meta: Mapping[str, Any], who: str, reply: bool) -> None:
    ends = {"round": _INTEGERS_END, "num_samples": _INTEGERS_END if reply else _SAMPLES_END}
    for key, end in ends.items():
        value = meta[key]
        if type(value) is not int or not 0 <= value < end:
            raise ReplyError(
                f"Expected `{key}` of {who} to be an integer of at least 0 and below "
                f"2**{end.bit_length() - 1}, got {shown(value)}."
            )
