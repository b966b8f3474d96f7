"""A worker's part in checkpoints: it writes its own state on its own disk, and reads it back.

The driver asks and gets a report, never the state. A report names what went wrong in ``problem``,
so that the driver can refuse in one sentence for all parties, in every mode of SecretFlow.
"""

import secrets
from pathlib import Path
from typing import Any
from urllib.parse import quote

from orchestra_strategy.checkpoints.file import (
    Label,
    checkpoint_path,
    kept_rounds,
    prune,
    read_checkpoint,
    remove_after,
    write_checkpoint,
)
from orchestra_strategy.checkpoints.folder_lock import FolderLock
from orchestra_strategy.checkpoints.state import PartyState, restore, state_of
from orchestra_strategy.errors import CheckpointError, DataError, OrchestraError
from orchestra_strategy.exchange.weights import digest_of
from orchestra_strategy.files import private_folder
from orchestra_strategy.privacy.journal import PrivacyJournal

__all__ = ["Checkpointing", "party_folder"]


def party_folder(folder: str, party: str) -> Path:
    """Return where a party writes below ``checkpoint_dir``, whatever characters its name has.

    >>> party_folder("run", "a/b").as_posix()
    'run/party-a%2Fb'
    """
    return Path(folder) / f"party-{quote(party, safe='')}"


class Checkpointing:
    """The part of a worker that keeps its state."""

    privacy: Any
    party: str
    rounds_done: int
    awaits_average: bool
    _expected_data: str | None = None
    _lock: FolderLock | None = None

    # ---- Hooks -----------------------------------------------------------------------------

    def kept_state(self) -> dict[str, Any]:
        """Return what a subclass keeps between rounds beside model, objective and optimizer.

        Tensors and plain values, in nested dictionaries and lists.
        """
        return {}

    def load_kept_state(self, state: dict[str, Any]) -> None:
        """Take the state of :meth:`kept_state`."""

    def shared_arrays(self) -> dict[str, Any]:
        """Return what all parties have in common beside the weights, for the driver's file."""
        return {}

    # ---- What the driver calls -------------------------------------------------------------

    def begin_checkpoints(self, folder: str) -> dict[str, Any]:
        """Get ready to write below ``folder``, which must have no checkpoint of this party so far.

        The folder belongs to this run from now on, until :meth:`close_checkpoints`. What a training
        has spent that was cut off before its first one is added to what this worker has spent,
        unless it was this worker's.
        """
        own = party_folder(folder, self.party)

        def begin() -> None:
            self._lock_folder(own)
            known = PrivacyJournal.path_in(own).exists()
            if kept_rounds(own) or (known and self.privacy is None):
                raise CheckpointError(f"it has the checkpoints of another training in `{own}`")
            self._open_journal(own)

        return self._guarded(own, begin)

    def reopen_checkpoints(self, folder: str) -> dict[str, Any]:
        """Go on in a folder that this party has written in before, and has given back since."""
        own = party_folder(folder, self.party)

        def reopen() -> None:
            self._lock_folder(own, as_last=True)
            self._open_journal(own)

        return self._guarded(own, reopen)

    def close_checkpoints(self) -> None:
        """Give the folder back: another run may use it from now on."""
        if self._lock is not None:
            self._lock.release()

    def save_checkpoint(self, folder: str) -> dict[str, Any]:
        """Write what this party keeps; what was written before stays."""
        own = party_folder(folder, self.party)

        def write() -> None:
            held = self._lock is not None and self._lock.held
            self._lock_folder(own, as_last=True)
            try:
                save()
            finally:
                if not held:
                    self.close_checkpoints()

        def save() -> None:
            if self.awaits_average:
                raise CheckpointError(
                    f"Expected the end of a round, got the middle of round {self.rounds_done}: "
                    "this party has trained, and no average has come back. The last checkpoint "
                    "holds; go on from it by `resume(...)`."
                )
            path = checkpoint_path(own, self.rounds_done)
            write_checkpoint(path, self._label(), state_of(self).as_dict())

        return self._guarded(own, write)

    def load_checkpoint(self, folder: str, round_index: int, digest: str) -> dict[str, Any]:
        """Go back to a round, whose averaged weights have ``digest``."""
        own = party_folder(folder, self.party)

        def load() -> None:
            self._lock_folder(own)
            label, values = read_checkpoint(checkpoint_path(own, round_index))
            if label != (self.party, round_index, digest):
                raise CheckpointError(
                    f"Expected `{checkpoint_path(own, round_index)}` to be of party "
                    f"`{self.party}`, round {round_index}, with the weights {digest[:12]} of the "
                    f"shared file, got `{label.owner}`, {label.round_index}, {label.digest[:12]}: "
                    "it belongs to another training."
                )
            restore(self, PartyState.from_dict(values))
            # Rounds after this one have been paid for, too.
            self._open_journal(own, restored=True)

        return self._guarded(own, load)

    def prune_checkpoints(self, folder: str, keep: int) -> None:
        """Remove all but the newest ``keep``, after all parties have written those."""
        prune(party_folder(folder, self.party), keep)

    def abandon_checkpoints(self, folder: str, round_index: int) -> None:
        """Remove the rounds above the one that the training goes on from; its ledger stays."""
        remove_after(party_folder(folder, self.party), round_index)

    def shared_state(self) -> dict[str, Any]:
        """Return what all parties have in common, for the driver's file."""
        weights = self.averaged_weights()  # type: ignore[attr-defined]
        return {"weights": weights, **self.shared_arrays()}

    # ---- Inside ----------------------------------------------------------------------------

    def expect_data(self, fingerprint: str | None) -> None:
        """Refuse other data than those of the checkpoint from now on."""
        self._expected_data = fingerprint

    def refuse_other_data(self, fingerprint: str) -> None:
        """Refuse samples that the restored state does not belong to.

        Raises:
            DataError: They are not those of the checkpoint.
        """
        if self._expected_data not in (None, fingerprint):
            raise DataError(
                f"Expected the data of party `{self.party}` to be those of the checkpoint, got "
                "others: its memory and its place in the data order belong to them. Give the same "
                "samples in the same order, or start anew."
            )
        self._expected_data = None

    def _lock_folder(self, own: Path, as_last: bool = False) -> None:
        """Make a folder this run's.

        Raises:
            CheckpointError: Another run has it; or, with ``as_last``, has had it since this one; or
                others could write in it.
        """
        private_folder(own)
        if self._lock is None or self._lock.path.parent != own:
            self.close_checkpoints()
            self._lock = FolderLock(own, run=secrets.token_hex(8))
        self._lock.acquire(as_last=as_last)

    def _open_journal(self, own: Path, restored: bool = False) -> None:
        if self.privacy is not None:
            self.privacy.open_journal(PrivacyJournal(own), restored)

    def _label(self) -> Label:
        weights = self.averaged_weights()  # type: ignore[attr-defined]
        return Label(self.party, self.rounds_done, digest_of(weights))

    def _guarded(self, own: Path, action: Any) -> dict[str, Any]:
        try:
            action()
        except (OrchestraError, OSError, RuntimeError) as error:
            return self._report(own, str(error))
        return self._report(own, None)

    def _report(self, own: Path, problem: str | None) -> dict[str, Any]:
        label = self._label()
        return {
            "round": label.round_index,
            "digest": label.digest,
            "kept": kept_rounds(own),
            "problem": problem,
        }
