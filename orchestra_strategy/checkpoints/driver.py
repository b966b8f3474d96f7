"""Checkpoints of a training: each party writes its own state on its own disk, all in step.

The driver keeps nothing itself. It asks all parties for a step, and for the next one when all have
done it; what it knows of the rounds so far, each party keeps for it.
"""

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from orchestra_strategy import host
from orchestra_strategy.checkpoints.common_round import (
    Offer,
    choose_round,
    other_rounds,
    whole_rounds,
)
from orchestra_strategy.checkpoints.settings import refuse_other_settings
from orchestra_strategy.errors import CheckpointError

__all__ = ["Checkpoints"]

_log = logging.getLogger(__name__)

# A party's state is tens of megabytes; with many virtual users more, on a slow disk.
_DISK_SECONDS = 600.0


class Checkpoints(host.Callback):  # type: ignore[misc]
    """FLModel callback: writes a checkpoint every few rounds, and reads it back.

    Args:
        folder: Below it is a folder for each party, on its owner's disk.
        every: Rounds between two checkpoints.
        keep: How many are kept.
        settings: What decides the numbers of the training, see
            :func:`~orchestra_strategy.checkpoints.settings.numbers_settings`.

    Attributes:
        ledger: The rows of all rounds so far, see :meth:`follow`.
        last: The round of the newest checkpoint that all parties have; None if there is none.
    """

    def __init__(
        self,
        folder: str | Path,
        every: int,
        keep: int,
        settings: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.folder = str(folder)
        self.every, self.keep, self.settings = every, keep, dict(settings)
        self.ledger: list[dict[str, Any]] = []
        self.last: int | None = None
        self._written = 0  # rows of the ledger at the last checkpoint
        self._open = False  # whether the folders are this run's
        self._restored: int | None = None  # the round whose successors are still to be removed

    # ---- Folders ---------------------------------------------------------------------------

    def begin(self, workers: Mapping[Any, Any]) -> None:
        """Get ready for a new training.

        Raises:
            CheckpointError: A party's folder has checkpoints of another one, or cannot be used.
        """
        self._take_folders(workers, "begin")
        self._go_back(workers, 0)  # what was prepared, and never a checkpoint

    def reopen(self, workers: Mapping[Any, Any]) -> None:
        """Get ready to go on with the training that wrote here last.

        Raises:
            CheckpointError: Another training uses the folder, or has gone on in it since.
        """
        self._take_folders(workers, "reopen")

    def close(self, workers: Mapping[Any, Any]) -> None:
        """Give the folders back, without a wait: a party does so when it has done its round."""
        for worker in workers.values():
            worker.close_checkpoints()
        self._open = False

    def _take_folders(self, workers: Mapping[Any, Any], step: str) -> None:
        try:
            self._ask(workers, step)
        except CheckpointError:
            self.close(workers)
            raise
        self._open = True

    # ---- Writing ---------------------------------------------------------------------------

    def follow(self, ledger: list[dict[str, Any]]) -> None:
        """Take the rows of the rounds so far, to which more will be appended."""
        self.ledger, self._written = ledger, len(ledger)

    def on_train_begin(self, logs: Any = None) -> None:
        """Remove the rounds that come after the one that the training goes on from."""
        if self._restored is not None:
            self._go_back(self._workers, self._restored)
            self._restored = None

    def on_epoch_end(self, epoch: Any = None, logs: Any = None) -> None:
        """Write, if it is time."""
        if len(self.ledger) - self._written >= self.every:
            self.write(self._workers)

    def write(self, workers: Mapping[Any, Any]) -> int:
        """Write a checkpoint of the present state; return its round.

        Raises:
            CheckpointError: A party cannot write, or parties are not at the same round.
        """
        if self._open:
            return self._write(workers)
        self.reopen(workers)
        try:
            return self._write(workers)
        finally:
            self.close(workers)

    def finish(self, workers: Mapping[Any, Any]) -> None:
        """Write what has not been written of the rounds done."""
        if len(self.ledger) > self._written:
            self.write(workers)

    def _write(self, workers: Mapping[Any, Any]) -> int:
        common = {"settings": self.settings, "ledger": self.ledger}
        parties = [device.party for device in workers]
        round_index = _agreed(self._ask(workers, "prepare", parties, common))
        self._ask(workers, "commit", round_index)
        self.last, self._written = round_index, len(self.ledger)
        self._ask(workers, "prune", self.keep)
        return round_index

    # ---- Reading ---------------------------------------------------------------------------

    def restore(
        self, workers: Mapping[Any, Any], round_index: int | None = None
    ) -> list[dict[str, Any]]:
        """Put all parties where they were, by default at the newest round that all have.

        Checkpoints of later rounds are abandoned: they go when training goes on, not before, so
        that data which are refused cost nothing.

        Returns:
            The ledger of the rounds so far.

        Raises:
            CheckpointError: There is none, a party's is missing or damaged, or it belongs to
                another training: the first setting that differs is named.
        """
        try:
            ledger = self._restore(workers, round_index)
        except CheckpointError:
            self.close(workers)
            raise
        self._open = True
        return ledger

    @property
    def up_to_date(self) -> bool:
        """Whether there is a checkpoint of the last round done."""
        return self._written == len(self.ledger) > 0

    def how_to_resume(self) -> str:
        """Return the sentence that says what is left of a training which has ended by an error."""
        if self.last is None:
            return "No checkpoint has been written so far."
        return (
            f"The state after round {self.last} is in `{self.folder}`: "
            "`FederatedOrchestraTrainer(config, devices).resume(federated_data)` goes on from it."
        )

    def tell_how_to_resume(self, error: BaseException) -> None:
        """Add to an error's message what is left of the training, and say so in the log."""
        told = self.how_to_resume()
        _log.error("Training ended by %s. %s", type(error).__name__, told)
        if not error.args:
            error.args = (told,)
        elif isinstance(error.args[0], str):
            error.args = (f"{error.args[0]} {told}", *error.args[1:])

    def _restore(self, workers: Mapping[Any, Any], round_index: int | None) -> list[dict[str, Any]]:
        offers = {p: Offer(**found) for p, found in self._ask(workers, "offer").items()}
        chosen, digest = choose_round(offers, self.folder, round_index)
        away = {d: w for d, w in workers.items() if offers[d.party].digests.get(chosen) != digest}
        there = {device: worker for device, worker in workers.items() if device not in away}
        others = whole_rounds(offers)
        told = self._ask(there, "tell", chosen, offered=others)
        for common in told.values():
            refuse_other_settings(common["settings"], self.settings)
        _agreed(self._ask(there, "load", chosen, offered=others), (chosen, digest))
        for device, worker in away.items():
            self._catch_up(offers[device.party], device, worker, there, (chosen, digest))
        self.last = self._restored = chosen
        ledger: list[dict[str, Any]] = next(iter(told.values()))["ledger"]
        return ledger

    def _catch_up(
        self, offer: Offer, device: Any, worker: Any, there: Mapping[Any, Any], at: tuple[int, str]
    ) -> None:
        """Put a party that was away where the others are: its own last state, and what all have."""
        older = max((r for r in offer.digests if r <= at[0]), default=None)
        if older is None:
            raise CheckpointError(
                f"Expected party `{device.party}` to have a round up to {at[0]}, from which it "
                f"catches up with the others, got {sorted(offer.digests)}; look for its "
                "`checkpoint_dir`, or go on without it."
            )
        _log.warning(
            "%s has been away since round %d, and goes on from round %d with the others.",
            *(device.party, older, at[0]),
        )
        self._ask({device: worker}, "load", older)
        source = next(iter(there.values()))
        common = source.common_to_all().to(device)
        _agreed(self._ask({device: worker}, "catch up", at[0], common), at)

    # ---- Inside ----------------------------------------------------------------------------

    def _go_back(self, workers: Mapping[Any, Any], round_index: int) -> None:
        # In two steps, so that no party lacks a round that another one takes for whole.
        self._ask(workers, "demote", round_index)
        self._ask(workers, "settle", round_index)

    def _ask(
        self,
        workers: Mapping[Any, Any],
        step: str,
        *arguments: Any,
        offered: Collection[int] | None = None,
    ) -> dict[str, Any]:
        """Have all parties do a step; return what each has found.

        Raises:
            CheckpointError: One could not, and why; with ``offered``, the rounds that are left.
        """
        asked = {d.party: w.checkpoint(step, self.folder, *arguments) for d, w in workers.items()}
        reports = host.reveal_within(asked, _DISK_SECONDS, "the parties' checkpoints")
        rule, remedy = _RULES[step]
        problems = [
            f"Expected party `{party}` {rule.format(*arguments)}, got: "
            f"{report['problem'].rstrip('.')}; {remedy}."
            for party, report in reports.items()
            if report["problem"] is not None
        ]
        if problems:
            more = [] if offered is None else [other_rounds(offered, arguments[0])]
            raise CheckpointError(" ".join([*problems, *more]))
        return {party: report["found"] for party, report in reports.items()}


_DISK = "look at its disk"
# By step: what was expected of a party, and what to do where it could not.
_RULES = {
    "begin": ("to be ready for checkpoints", "give another `checkpoint_dir`"),
    "reopen": ("to be ready for checkpoints", "call `resume(...)`, or give another folder"),
    **dict.fromkeys(("prepare", "commit"), ("to write its checkpoint", _DISK)),
    **dict.fromkeys(("prune", "demote", "settle"), ("to remove old checkpoints", _DISK)),
    "offer": ("to have checkpoints that can be read", "see to it, and resume again"),
    "catch up": ("to catch up with round {}", "go on without it"),
    **dict.fromkeys(("tell", "load"), ("to have its state of round {}", _DISK)),
}


def _agreed(found: Mapping[str, Any], wanted: tuple[int, str] | None = None) -> int:
    """Return the round that all parties are at, with the same weights."""
    for party, (round_index, digest) in found.items():
        wanted = (round_index, digest) if wanted is None else wanted
        if (round_index, digest) != wanted:
            raise CheckpointError(
                f"Expected all parties to be at one round with the same weights, got round "
                f"{round_index}, weights {digest[:12]} at party `{party}` and round {wanted[0]}, "
                f"weights {wanted[1][:12]} elsewhere."
            )
    assert wanted is not None
    return wanted[0]
