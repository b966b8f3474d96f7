"""What an auditor calls: what leaves a party, what it has done, and what it has spent."""

from collections.abc import Mapping
from typing import Any, ClassVar

from orchestra_strategy.exchange.manifest import Manifest, meta_entries
from orchestra_strategy.exchange.payload import FloatArray
from orchestra_strategy.exchange.weights import read_weights, weight_entries
from orchestra_strategy.party.health import HEALTH_NAMES
from orchestra_strategy.party.privacy_units import EPSILON
from orchestra_strategy.rng import Streams

__all__ = ["Disclosure"]

_SOURCES = {
    True: "a secret of the party, which nobody else can repeat",
    False: "a seed, so that whoever knows it can repeat them: for simulations and tests",
}


class Disclosure:
    """The part of a strategy that tells of it; nothing here changes a party's state."""

    metric_names: ClassVar[tuple[str, ...]]
    config: Any
    model: Any
    privacy: Any
    route: Any
    user_type: Any
    extra_entries: Any
    reply_entries: Any
    rounds_done: int
    rows_trained: int
    streams: Streams
    awaits_average: bool
    _left_out: dict[int, str]

    def manifest(self, trained: bool = True) -> Manifest:
        """Return the list of all that leaves this party after training, or before any."""
        entries = self.user_type.entries(trained)
        metrics = (*self.metric_names, *HEALTH_NAMES) if self._tells_all() else ()
        if self.privacy is not None:
            metrics += (EPSILON,)
        shared = sum(entry.nbytes for entry in weight_entries(self.model)) // 4
        told = meta_entries(metrics, shared, _SOURCES[self.streams.secret])
        entries = (*entries, *self.extra_entries(), *told)
        return Manifest(self.route.address(entries))

    def reply_manifest(self, trained: bool = True) -> Manifest:
        """Return the list of all that comes back."""
        if self.route.returns_all:
            return self.manifest(trained)
        return Manifest((*self.user_type.entries(trained), *self.reply_entries()))

    def manifest_rows(self) -> list[dict[str, Any]]:
        """Return all that ever leaves this party as plain dictionaries.

        ``when`` says whether a thing leaves at the ``start`` (the first exchange of a fit, without
        training), in each ``round``, in ``both``, or where the driver has ``asked`` for it.
        """
        rounds = {row["name"]: row for row in self.manifest(trained=True).rows()}
        start = {row["name"]: row for row in self.manifest(trained=False).rows()}
        return [
            {**row, "when": _when(row, name in rounds and name in start, when)}
            for rows, when in ((rounds, "round"), (start, "start"))
            for name, row in rows.items()
            if when == "round" or name not in rounds
        ]

    def note_average(self) -> None:
        """Keep the present weights as those that every party has: they have just come in."""
        self._average = read_weights(self.model)
        self.awaits_average = False

    def averaged_weights(self) -> dict[str, FloatArray]:
        """Return the model that every party has after the last exchange.

        Never this party's own: between its local training and the exchange it has other weights,
        which on route ``secure`` nobody else may see.
        """
        return {name: array.copy() for name, array in self._average.items()}

    def work_done(self) -> dict[str, int]:
        """Return this party's rounds, the rows of all of them, and how many left it out."""
        done = {"rounds": self.rounds_done, "rows": self.rows_trained}
        return done | {"left_out": len(self._left_out)}

    def left_out_of(self) -> dict[int, str]:
        """Return the rounds that this party was left out of, and why; 0 is the one before any."""
        return dict(self._left_out)

    def privacy_spent(self) -> dict[str, float]:
        """Return epsilon at delta of all that this party has released; empty without privacy."""
        if self.privacy is None:
            return {}
        return {"epsilon": self.privacy.epsilon(), "delta": self.config.delta}

    def privacy_rounds_left(self, num_samples: int) -> int | None:
        """Return how many rounds the budget allows on so many samples; None without a budget."""
        return None if self.privacy is None else self.privacy.rounds_left(num_samples)

    def _tells_all(self) -> bool:
        """Whether losses and health, which no noise protects, may leave this party."""
        return bool(self.config.privacy == "none" or self.config.log_unprotected)


def _when(row: Mapping[str, Any], both: bool, when: str) -> str:
    if row["to"] == "driver" and row["combine"] == "check":
        return "asked"
    return "both" if both else when
