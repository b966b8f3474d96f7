"""Checkpoints of a training: each party writes its own state, the driver what all have in common.

A round's checkpoint is complete when the driver's file is there: it is written after those of all
parties, and only then do older ones go. So a crash at any moment leaves the one before, or this.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestra_strategy import host
from orchestra_strategy.checkpoints.file import (
    Label,
    checkpoint_path,
    kept_rounds,
    prune,
    read_checkpoint,
    remove_after,
    write_checkpoint,
)
from orchestra_strategy.errors import CheckpointError
from orchestra_strategy.files import private_folder

__all__ = ["Checkpoints", "SharedState", "tell_how_to_resume"]

_log = logging.getLogger(__name__)

_SHARED = "shared"

# A party's state is tens of megabytes; with many virtual users more, on a slow disk.
_DISK_SECONDS = 600.0


@dataclass(frozen=True)
class SharedState:
    """What all parties have in common.

    Attributes:
        label: Round, and digest of the averaged weights.
        settings: What decides the numbers of the training, see ``runtime.checkpoint_settings``.
        arrays: The averaged weights by name, and the global centroids where there are some.
        ledger: What each round cost, and its losses, one row per round.
    """

    label: Label
    settings: dict[str, Any]
    arrays: dict[str, Any]
    ledger: list[dict[str, Any]]


class Checkpoints(host.Callback):  # type: ignore[misc]
    """FLModel callback: writes a checkpoint every few rounds, and reads it back.

    Args:
        folder: Below it are ``shared`` and a folder for each party; each on its owner's disk.
        every: Rounds between two checkpoints.
        keep: How many are kept.
        settings: See :class:`SharedState`.

    Attributes:
        ledger: The rows of all rounds so far, see :meth:`follow`.
        last: The newest checkpoint that is complete, None if there is none.
    """

    def __init__(
        self, folder: str | Path, every: int, keep: int, settings: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.folder = str(folder)
        self.every, self.keep, self.settings = every, keep, dict(settings)
        self.ledger: list[dict[str, Any]] = []
        self._written = 0  # rows of the ledger at the last checkpoint
        self._restored: int | None = None  # the round whose successors are still to be removed
        rounds = kept_rounds(self._shared)
        self.last = checkpoint_path(self._shared, rounds[-1]) if rounds else None

    @property
    def _shared(self) -> Path:
        return Path(self.folder) / _SHARED

    # ---- Writing ---------------------------------------------------------------------------

    def begin(self, workers: Mapping[Any, Any]) -> None:
        """Get ready for a new training.

        Raises:
            CheckpointError: The folder has the checkpoints of another one.
        """
        if self.last is not None:
            raise CheckpointError(
                f"Expected `checkpoint_dir` to have no checkpoints of another training, got "
                f"`{self.last}`; call `resume(...)` to go on from it, or give another folder."
            )
        self._take_folders(workers, lambda w: w.begin_checkpoints(self.folder))

    def reopen(self, workers: Mapping[Any, Any]) -> None:
        """Get ready to go on with the training that wrote here last.

        Raises:
            CheckpointError: Another training uses the folder, or has gone on in it since.
        """
        self._take_folders(workers, lambda w: w.reopen_checkpoints(self.folder))

    def close(self, workers: Mapping[Any, Any]) -> None:
        """Give the folders back, without a wait: a party does so when it has done its round."""
        for worker in workers.values():
            worker.close_checkpoints()

    def _take_folders(self, workers: Mapping[Any, Any], take: Any) -> None:
        private_folder(self._shared)
        reports = self._ask(workers, take)
        try:
            self._refuse(reports, "to be ready for checkpoints", "give another `checkpoint_dir`")
        except CheckpointError:
            self.close(workers)
            raise

    def follow(self, ledger: list[dict[str, Any]]) -> None:
        """Take the rows of the rounds so far, to which more will be appended."""
        self.ledger, self._written = ledger, len(ledger)

    def on_train_begin(self, logs: Any = None) -> None:
        """Remove the rounds that come after the one that the training goes on from."""
        if self._restored is not None:
            # The driver's first: a later round is no longer offered, wherever this is interrupted.
            remove_after(self._shared, self._restored)
            asked = [
                w.abandon_checkpoints(self.folder, self._restored) for w in self._workers.values()
            ]
            host.reveal(asked)
            self._restored = None

    def on_epoch_end(self, epoch: Any = None, logs: Any = None) -> None:
        """Write, if it is time."""
        if len(self.ledger) - self._written >= self.every:
            self.write(self._workers)

    def write(self, workers: Mapping[Any, Any]) -> Path:
        """Write a checkpoint of the present state; return the driver's file.

        Raises:
            CheckpointError: A party cannot write, or parties are not at the same round.
        """
        reports = self._ask(workers, lambda w: w.save_checkpoint(self.folder))
        self._refuse(reports, "to write its checkpoint", "look at its disk")
        label = self._agreed(reports)
        state: dict[str, Any] = host.reveal(next(iter(workers.values())).shared_state())
        path = checkpoint_path(private_folder(self._shared), label.round_index)
        content = {"settings": self.settings, "arrays": state, "ledger": self.ledger}
        write_checkpoint(path, label, content)
        self.last, self._written = path, len(self.ledger)
        host.reveal([w.prune_checkpoints(self.folder, self.keep) for w in workers.values()])
        prune(self._shared, self.keep)
        return path

    def finish(self, workers: Mapping[Any, Any]) -> None:
        """Write what has not been written of the rounds done."""
        if len(self.ledger) > self._written:
            self.write(workers)

    # ---- Reading ---------------------------------------------------------------------------

    def read(self, round_index: int | None = None) -> SharedState:
        """Return the driver's part of a checkpoint, by default of the newest.

        Raises:
            CheckpointError: There is none, or it cannot be used.
        """
        rounds = kept_rounds(self._shared)
        if not rounds:
            raise CheckpointError(
                f"Expected a checkpoint in `{self._shared}`, got none; call `train(...)` first."
            )
        private_folder(self._shared)
        if round_index is not None and round_index not in rounds:
            raise CheckpointError(
                f"Expected `round_index` to be one of the kept rounds {rounds}, got {round_index}."
            )
        chosen = rounds[-1] if round_index is None else round_index
        try:
            label, state = read_checkpoint(checkpoint_path(self._shared, chosen))
        except CheckpointError as error:
            raise CheckpointError(f"{error} {self._offer(rounds, chosen)}") from None
        return SharedState(label, state["settings"], state["arrays"], state["ledger"])

    def restore(self, workers: Mapping[Any, Any], shared: SharedState) -> None:
        """Put all parties where they were.

        Checkpoints of later rounds are abandoned: they go when training goes on, not before, so
        that data which are refused cost nothing.

        Raises:
            CheckpointError: A party has no such checkpoint, or it cannot be used.
        """
        round_index, digest = shared.label.round_index, shared.label.digest
        reports = self._ask(workers, lambda w: w.load_checkpoint(self.folder, round_index, digest))
        try:
            self._refuse_unrestored(reports, round_index)
            self._agreed(reports, digest)
        except CheckpointError:
            self.close(workers)
            raise
        self.last = checkpoint_path(self._shared, round_index)
        self._restored = round_index

    # ---- Inside ----------------------------------------------------------------------------

    @staticmethod
    def _ask(workers: Mapping[Any, Any], question: Any) -> dict[str, dict[str, Any]]:
        asked = {device.party: question(worker) for device, worker in workers.items()}
        answers: dict[str, dict[str, Any]]
        answers = host.reveal_within(asked, _DISK_SECONDS, "the parties' checkpoints")
        return answers

    @staticmethod
    def _refuse(reports: Mapping[str, Mapping[str, Any]], rule: str, remedy: str) -> None:
        problems = [
            f"Expected party `{party}` {rule}, got: {report['problem']}; {remedy}."
            for party, report in reports.items()
            if report["problem"] is not None
        ]
        if problems:
            raise CheckpointError(" ".join(problems))

    def _refuse_unrestored(self, reports: Mapping[str, Any], round_index: int) -> None:
        problems = []
        for party, report in reports.items():
            problem = report["problem"]
            if problem is None and report["round"] != round_index:
                problem = f"round {report['round']}: the drivers have read different checkpoints."
            if problem is not None:
                problems.append(
                    f"Expected party `{party}` to have its state of round {round_index}, got: "
                    f"{problem} It has the rounds {report['kept']}."
                )
        if problems:
            everywhere = set(kept_rounds(self._shared))
            everywhere = everywhere.intersection(*(r["kept"] for r in reports.values()))
            offer = self._offer(sorted(everywhere), round_index)
            raise CheckpointError(f"{' '.join(problems)} {offer}")

    @staticmethod
    def _agreed(reports: Mapping[str, Mapping[str, Any]], digest: str | None = None) -> Label:
        """Return the round and the weights that all parties are at."""
        first, *others = reports.items()
        wanted = first[1]["round"], first[1]["digest"] if digest is None else digest
        for party, report in (first, *others):
            if (report["round"], report["digest"]) != wanted:
                raise CheckpointError(
                    f"Expected all parties to be at one round with the same weights, got round "
                    f"{report['round']}, weights {report['digest'][:12]} at party `{party}` and "
                    f"round {wanted[0]}, weights {wanted[1][:12]} elsewhere."
                )
        return Label(_SHARED, *wanted)

    @staticmethod
    def _offer(rounds: Sequence[int], failed: int) -> str:
        left = [r for r in rounds if r != failed]
        if not left:
            return "No other round is kept; start anew."
        return f"Round {left[-1]} is kept, too: `resume(..., round_index={left[-1]})`."


def tell_how_to_resume(error: BaseException, last: Path | None) -> None:
    """Add to an error that has ended a training what is left of it, and say so in the log.

    Args:
        error: Its message is extended where it has one of its own.
        last: The newest checkpoint.
    """
    told = "No checkpoint has been written so far."
    if last is not None:
        told = (
            f"The state up to the last checkpoint is in `{last}`: "
            "`FederatedOrchestraTrainer(config, devices).resume(federated_data)` goes on from it."
        )
    _log.error("Training ended by %s. %s", type(error).__name__, told)
    if not error.args:
        error.args = (told,)
    elif isinstance(error.args[0], str):
        error.args = (f"{error.args[0]} {told}", *error.args[1:])
