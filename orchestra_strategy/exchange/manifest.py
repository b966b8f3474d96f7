"""The upload manifest: the list of all that leaves a party, by name."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from orchestra_strategy.errors import ReplyError
from orchestra_strategy.exchange.received import check_values, described, listed

__all__ = ["Entry", "Manifest", "meta_entries"]

Combine = Literal[
    "weighted mean",
    "secure sum",
    "clustered",
    "echo",
    "factor of the weight",
    "unit of others",
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
            no_centroids: See :func:`~orchestra_strategy.exchange.received.check_values`.

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


def meta_entries(
    metric_names: Iterable[str],
    evaluation: Sequence[str] = (),
    num_weights: int = 0,
    streams: str = "",
) -> tuple[Entry, ...]:
    """Return the entries for what leaves a party beside its payload's arrays.

    Args:
        metric_names: Names of the losses and of the health that are logged.
        evaluation: Names of the numbers of an evaluation.
        num_weights: How many numbers the averaged model has.
        streams: What the party's randomness follows from, in words.
    """
    metrics = tuple(_metric_entry(name) for name in metric_names)
    return (
        Entry("num_samples", (), "int64", "weight", "server", "number of the party's samples"),
        Entry("round, phase", (), "int64", "check", "server", "where the party is in the training"),
        _answer(
            "data description",
            "number, shape and dtype of samples, how many values are not finite, whether pixels "
            "are in [0, 1], whether labels can be used where training needs some; rounds and rows "
            "done; rounds it was left out of, and why",
        ),
        _answer(
            "random streams",
            "what views, order of batches and draws of users follow from: " + streams,
        ),
        _answer(
            "averaged weights",
            "the model that all parties have, where the driver asks for the encoder",
            shape=(num_weights,),
            dtype="float32",
        ),
        _answer(
            "checkpoint",
            "where checkpoints are on: which rounds the party has written, each with a digest of "
            "the averaged weights, or why it could not; what the driver gave it to keep; for a "
            "party that was away, the averaged weights and the global centroids",
        ),
        _answer(
            "reading and embedding",
            "where the driver hands out paths, or asks for features: fingerprints of the names of "
            "columns and classes, how many files were skipped, and what cannot be read, embedded "
            "or written, by file, column and row; the samples and features stay",
        ),
        _answer(
            "agreed columns",
            "with `categories='agree'` the names of the categories in the columns given, without "
            "numbers of how often; with `standardise='agree'` of each column the number of cells, "
            "their sum, and that of squared deviations from the mean: each party's to the first "
            "party, the union, means and deviations to all",
        ),
        _answer(
            "collapse found",
            "why the party votes to stop the training, with its health; else nothing",
            dtype="float64",
        ),
        Entry(
            "evaluation",
            (len(evaluation),),
            "float64",
            "mean in the log",
            "driver",
            "where the driver calls `evaluate` or gives `validation_data` (logged as val_*), some "
            "of: " + ", ".join(evaluation),
        ),
        *metrics,
    )


def _answer(name: str, meaning: str, shape: tuple[int, ...] = (), dtype: str = "int64") -> Entry:
    """Return the entry of an answer that the driver gets where it asks."""
    return Entry(name, shape, dtype, "check", "driver", meaning)


def _metric_entry(name: str) -> Entry:
    """Return the entry of a loss, or of a number of the encoder's health."""
    meaning = "mean over the round's local steps"
    if name.startswith("health_"):
        meaning = "measured on some of the party's samples after its local steps"
    if name.startswith("privacy_"):
        meaning = "follows from sizes, parameters and what has been released with noise"
    return Entry(name, (), "float64", "mean in the log", "driver", meaning)
