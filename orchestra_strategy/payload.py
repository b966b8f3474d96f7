"""The upload manifest and the payload: all that leaves a party, by name.

A payload is a plain dictionary of plain dictionaries of numpy arrays and integers, so that nothing
but those types has to be unpickled by a peer. It is packed against a :class:`Manifest`; what the
manifest does not name cannot be packed.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from orchestra_strategy.errors import ReplyError
from orchestra_strategy.received import check_plain, check_values, described, listed, shown

__all__ = [
    "LONGEST_REASON",
    "WIRE_VERSION",
    "Entry",
    "Manifest",
    "Payload",
    "meta_entries",
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
Combine = Literal[
    "weighted mean",
    "secure sum",
    "clustered",
    "echo",
    "factor of the weight",
    "weight",
    "check",
    "mean in the log",
]


class Entry(NamedTuple):
    """One thing that leaves a party.

    Attributes:
        name: Key in the payload, or in the log.
        shape: Shape; None stands for "up to ``max_rows``".
        dtype: Its dtype on the wire.
        combine: What the receiver does with it.
        to: Who receives it: the server, SecretFlow's aggregator, or the driver that runs FLModel.
        meaning: One sentence for the auditor.
        max_rows: Upper limit of a None in ``shape``.
        per_sample: Whether a row of it belongs to one sample. Of what the strategies of this
            package send, nothing does; a strategy of one's own has to say so if it does.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    combine: Combine
    to: Literal["server", "aggregator", "driver"]
    meaning: str
    max_rows: int = 0
    per_sample: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes on the wire, at most."""
        sides = [self.max_rows if side is None else side for side in self.shape]
        return int(np.prod(sides, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    def accepts(self, array: Any) -> bool:
        """Whether ``array`` is a plain numpy array of this entry's shape and dtype.

        Not of a subclass: a masked array hides what is under its mask from every check.
        """
        return (
            type(array) is np.ndarray
            and array.dtype == self.dtype
            and array.dtype.isnative
            and array.ndim == len(self.shape)
            and all(
                got == want or (want is None and got <= self.max_rows)
                for got, want in zip(array.shape, self.shape, strict=True)
            )
        )


class Manifest(NamedTuple):
    """The list of everything that leaves a party in a round."""

    entries: tuple[Entry, ...]

    @property
    def nbytes(self) -> int:
        """Bytes a party sends in a round, at most."""
        return sum(entry.nbytes for entry in self.entries)

    def arrays(self) -> dict[str, Entry]:
        """Return the entries that are arrays of the payload, by name, in their order."""
        scalars = ("weight", "check", "mean in the log")
        return {e.name: e for e in self.entries if e.to != "driver" and e.combine not in scalars}

    def check(
        self,
        arrays: Mapping[str, npt.NDArray[Any]],
        who: str = "this party",
        finite: bool = True,
        no_centroids: bool = False,
    ) -> None:
        """Refuse arrays that differ from the manifest.

        Args:
            arrays: The payload's arrays by name.
            who: Named in the message.
            finite: Whether values are looked at, too.
            no_centroids: See :func:`~orchestra_strategy.received.check_values`.

        Raises:
            ReplyError: A name is missing or unknown, or a type, shape, dtype or value is not
                allowed. Values are looked at last.
        """
        expected = self.arrays()
        missing, extra = expected.keys() - arrays.keys(), arrays.keys() - expected.keys()
        if missing or extra:
            raise ReplyError(
                f"Expected the payload of {who} to have exactly the manifest's arrays; "
                f"missing: {listed(missing)}, not in the manifest: {listed(extra)}."
            )
        for name, entry in expected.items():
            if not entry.accepts(arrays[name]):
                raise ReplyError(
                    f"Expected `{name}` of {who} to be {entry.dtype} {entry.shape}, "
                    f"got {described(arrays[name])}."
                )
        if finite:
            check_values(arrays, who, no_centroids)

    def rows(self) -> list[dict[str, Any]]:
        """Return the manifest as plain dictionaries, for a table or a JSON file."""
        return [{**entry._asdict(), "bytes": entry.nbytes} for entry in self.entries]


class Payload(NamedTuple):
    """A payload in its typed form.

    Attributes:
        arrays: Float32 arrays by name.
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
    manifest.check(payload.arrays, who, finite, no_centroids=payload.phase == "init")
    meta = {
        "version": WIRE_VERSION,
        "round": int(payload.round_index),
        "phase": payload.phase,
        "num_samples": int(payload.num_samples),
    }
    return {"meta": meta, "arrays": dict(payload.arrays)}


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
        check_plain(name, array, who)
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


def meta_entries(
    metric_names: Iterable[str], num_weights: int = 0, streams: str = ""
) -> tuple[Entry, ...]:
    """Return the entries for what leaves a party beside its payload's arrays.

    Args:
        metric_names: Names of the losses and of the health that are logged.
        num_weights: How many numbers the averaged model has.
        streams: What the party's randomness follows from, in words.
    """
    metrics = tuple(
        Entry(
            *(name, (), "float64", "mean in the log", "driver"),
            (
                "measured on some of the party's samples after its local steps"
                if name.startswith("health_")
                else "mean over the round's local steps"
            ),
        )
        for name in metric_names
    )
    return (
        Entry("num_samples", (), "int64", "weight", "server", "number of the party's samples"),
        Entry("round, phase", (), "int64", "check", "server", "where the party is in the training"),
        Entry(
            *("data description", (), "int64", "check", "driver"),
            "number, shape and dtype of samples, how many values are not finite, whether pixels "
            "are in [0, 1]; rounds and rows done; rounds it was left out of, and why",
        ),
        Entry(
            *("random streams", (), "int64", "check", "driver"),
            "what views, order of batches and draws of users follow from: " + streams,
        ),
        Entry(
            *("averaged weights", (num_weights,), "float32", "check", "driver"),
            "the model that all parties have, where the driver asks for the encoder",
        ),
        Entry(
            *("checkpoint", (), "float32", "check", "driver"),
            "where checkpoints are on: the averaged weights and the global centroids, which all "
            "parties have; of the party which rounds it has written, or why it could not",
        ),
        Entry(
            *("collapse found", (), "float64", "check", "driver"),
            "why the party votes to stop the training, with its health; else nothing",
        ),
        Entry(
            *("evaluation", (), "float64", "mean in the log", "driver"),
            "health and cluster scores, where the driver calls `evaluate`",
        ),
        *metrics,
    )
