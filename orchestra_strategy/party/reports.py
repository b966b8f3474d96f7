"""Reports of a party for its auditor: what leaves it, what it has done, what all have."""

from collections.abc import Mapping
from typing import Any, Protocol

from orchestra_strategy import host
from orchestra_strategy.exchange.half import halved
from orchestra_strategy.exchange.manifest import Entry, Manifest, meta_entries
from orchestra_strategy.exchange.payload import FloatArray
from orchestra_strategy.exchange.routes import Route
from orchestra_strategy.exchange.told import check_told
from orchestra_strategy.exchange.weights import buffer_names, read_weights, weight_entries
from orchestra_strategy.party.health import EVALUATION_NAMES, health_names
from orchestra_strategy.party.roles import Party

__all__ = ["Reports"]

_SOURCES = {
    True: "a secret of the party, which nobody else can repeat",
    False: "a seed, so that whoever knows it can repeat them: for simulations and tests",
}


class ReportedParty(Party, Protocol):
    """A strategy with its route.

    Attributes:
        route: How its payload travels.
    """

    @property
    def route(self) -> Route:
        """How its payload travels."""


class Reports:
    """Tells of a party; nothing here changes its state but what it has been sent.

    Args:
        party: The strategy.

    Attributes:
        awaits_average: Whether the party has trained, and no average has come back so far.
        rows_trained: Rows of all local steps.
        left_out: Rounds that the party was left out of, and why.
        told: The numbers of the last round, as the driver gets them.
        validated: Those of ``validation_data`` after that round, and how many samples it has.
    """

    def __init__(self, party: ReportedParty) -> None:
        self.party = party
        self.awaits_average = False
        self.rows_trained = 0
        self.left_out: dict[int, str] = {}
        self.told: dict[str, float] = {}
        self.validated: tuple[dict[str, float], int] = ({}, 0)
        self.note_average()

    def manifest(self, trained: bool = True) -> Manifest:
        """Return the list of all that leaves this party after training, or before any."""
        party = self.party
        shared = sum(entry.nbytes for entry in weight_entries(party.model)) // 4
        told = meta_entries(
            self._declared(), EVALUATION_NAMES, shared, _SOURCES[party.streams.secret]
        )
        sent = self.payload_manifest(trained).entries
        return Manifest((*sent, *party.route.address(told)))

    def payload_manifest(self, trained: bool = True) -> Manifest:
        """Return the part of :meth:`manifest` that each round's payload is checked against."""
        party = self.party
        return Manifest(party.route.address((*self._moved(trained), *party.sent_entries())))

    def reply_manifest(self, trained: bool = True) -> Manifest:
        """Return the list of all that comes back."""
        if self.party.route.returns_all:
            return self.payload_manifest(trained)
        return Manifest((*self._moved(trained), *self.party.returned_entries()))

    def _moved(self, trained: bool) -> tuple[Entry, ...]:
        """Return the entries of what is averaged, as it travels."""
        party = self.party
        kept = party.user_type.entries(trained)
        entries: tuple[Entry, ...] = party.privacy.outgoing_entries(kept, trained)
        if party.config.payload_dtype == "float32":
            return entries
        return halved(entries, buffer_names(party.model))

    def _declared(self) -> tuple[str, ...]:
        """Return the names of the numbers that the driver gets in each round."""
        party = self.party
        losses = (*party.metric_names, *health_names(party)) if party.privacy.tells_all else ()
        return (*losses, *party.privacy.metric_names)

    def tell(self, numbers: Mapping[str, float]) -> None:
        """Have numbers of a round ready for the driver.

        Raises:
            ReplyError: One is not in the manifest.
        """
        check_told(host.plain_class(self.party).__name__, self._declared(), numbers)
        self.told, self.validated = dict(numbers), ({}, 0)

    def tell_more(self, numbers: Mapping[str, float]) -> None:
        """Have further numbers of the round ready, which are known once the average is back.

        Raises:
            ReplyError: One is not in the manifest.
        """
        check_told(host.plain_class(self.party).__name__, self._declared(), numbers)
        self.told |= numbers

    def tell_validation(self, numbers: Mapping[str, float], samples: int) -> None:
        """Have the numbers of an evaluation ready for the driver, as those of a validation.

        Raises:
            ReplyError: One is not in the manifest.
        """
        check_told(host.plain_class(self.party).__name__, EVALUATION_NAMES, numbers)
        self.validated = {f"val_{name}": value for name, value in numbers.items()}, samples

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

    def reply_bytes(self) -> dict[str, int]:
        """Return the bytes that come back in the first exchange and in a round."""
        return {
            when: sum(entry.nbytes for entry in self.reply_manifest(trained).arrays().values())
            for when, trained in (("start", False), ("round", True))
        }

    def note_average(self) -> None:
        """Keep the present weights as those that every party has: they have just come in."""
        self._average = read_weights(self.party.model)
        self.awaits_average = False

    @property
    def average(self) -> Mapping[str, FloatArray]:
        """The averaged weights, to be read."""
        return self._average

    def averaged_weights(self) -> dict[str, FloatArray]:
        """Return the model that every party has after the last exchange.

        Never this party's own: between its local training and the exchange it has other weights,
        which on route ``secure`` nobody else may see.
        """
        return {name: array.copy() for name, array in self._average.items()}

    def work_done(self) -> dict[str, int]:
        """Return this party's rounds, the rows of all of them, and how many left it out."""
        done = {"rounds": self.party.rounds_done, "rows": self.rows_trained}
        return done | {"left_out": len(self.left_out)}

    def left_out_of(self) -> dict[int, str]:
        """Return the rounds that this party was left out of, and why; 0 is the one before any."""
        return dict(self.left_out)


def _when(row: Mapping[str, Any], both: bool, when: str) -> str:
    if row["to"] == "driver" and row["combine"] == "check":
        return "asked"
    return "both" if both else when
