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
from orchestra_strategy.checkpoints.state import KeptParty, PartyState, restore, state_of
from orchestra_strategy.errors import CheckpointError, DataError, OrchestraError
from orchestra_strategy.exchange.weights import digest_of
from orchestra_strategy.files import private_folder
from orchestra_strategy.privacy.journal import PrivacyJournal

__all__ = ["PartyCheckpoints", "party_folder"]


def party_folder(folder: str, party: str) -> Path:
    """Return where a party writes below ``checkpoint_dir``, whatever characters its name has.

    >>> party_folder("run", "a/b").as_posix()
    'run/party-a%2Fb'
    """
    return Path(folder) / f"party-{quote(party, safe='')}"


class PartyCheckpoints:
    """Keeps a party's state on its own disk; what the driver gets are reports.

    Args:
        party: The strategy.
    """

    def __init__(self, party: KeptParty) -> None:
        self.party = party
        self._expected_data: str | None = None
        self._lock: FolderLock | None = None

    def begin(self, folder: str) -> dict[str, Any]:
        """Get ready to write below ``folder``, which must have no checkpoint of this party so far.

        The folder belongs to this run from now on, until :meth:`close`. What a training
        has spent that was cut off before its first one is added to what this worker has spent,
        unless it was this worker's.
        """
        own = party_folder(folder, self.party.party)

        def begin() -> None:
            self._lock_folder(own)
            known = PrivacyJournal.path_in(own).exists()
            if kept_rounds(own) or (known and not self.party.privacy.protected):
                raise CheckpointError(f"it has the checkpoints of another training in `{own}`")
            self._open_journal(own)

        return self._guarded(own, begin)

    def reopen(self, folder: str) -> dict[str, Any]:
        """Go on in a folder that this party has written in before, and has given back since."""
        own = party_folder(folder, self.party.party)

        def reopen() -> None:
            self._lock_folder(own, as_last=True)
            self._open_journal(own)

        return self._guarded(own, reopen)

    def close(self) -> None:
        """Give the folder back: another run may use it from now on."""
        if self._lock is not None:
            self._lock.release()

    def save(self, folder: str) -> dict[str, Any]:
        """Write what this party keeps; what was written before stays."""
        own = party_folder(folder, self.party.party)

        def write() -> None:
            held = self._lock is not None and self._lock.held
            self._lock_folder(own, as_last=True)
            try:
                save()
            finally:
                if not held:
                    self.close()

        def save() -> None:
            if self.party.reports.awaits_average:
                raise CheckpointError(
                    "Expected the end of a round, got the middle of round "
                    f"{self.party.rounds_done}: this party has trained, and no average has come "
                    "back. The last checkpoint holds; go on from it by `resume(...)`."
                )
            path = checkpoint_path(own, self.party.rounds_done)
            write_checkpoint(path, self._label(), state_of(self.party).as_dict())

        return self._guarded(own, write)

    def load(self, folder: str, round_index: int, digest: str) -> dict[str, Any]:
        """Go back to a round, whose averaged weights have ``digest``."""
        own = party_folder(folder, self.party.party)

        def load() -> None:
            self._lock_folder(own)
            label, values = read_checkpoint(checkpoint_path(own, round_index))
            if label != (self.party.party, round_index, digest):
                raise CheckpointError(
                    f"Expected `{checkpoint_path(own, round_index)}` to be of party "
                    f"`{self.party.party}`, round {round_index}, with the weights {digest[:12]} of "
                    f"the shared file, got `{label.owner}`, {label.round_index}, "
                    f"{label.digest[:12]}: it belongs to another training."
                )
            restore(self.party, PartyState.from_dict(values))
            self._expected_data = values["data"]
            # Rounds after this one have been paid for, too.
            self._open_journal(own, restored=True)

        return self._guarded(own, load)

    def prune(self, folder: str, keep: int) -> None:
        """Remove all but the newest ``keep``, after all parties have written those."""
        prune(party_folder(folder, self.party.party), keep)

    def abandon(self, folder: str, round_index: int) -> None:
        """Remove the rounds above the one that the training goes on from; its ledger stays."""
        remove_after(party_folder(folder, self.party.party), round_index)

    def shared_state(self) -> dict[str, Any]:
        """Return what all parties have in common, for the driver's file."""
        return {"weights": self.party.averaged_weights(), **self.party.shared_arrays()}

    # ---- Inside ----------------------------------------------------------------------------

    def refuse_other_data(self, fingerprint: str) -> None:
        """Refuse samples that the restored state does not belong to.

        Raises:
            DataError: They are not those of the checkpoint.
        """
        if self._expected_data not in (None, fingerprint):
            raise DataError(
                f"Expected the data of party `{self.party.party}` to be those of the checkpoint, "
                "got others: its memory and its place in the data order belong to them. Give the "
                "same samples in the same order, or start anew."
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
            self.close()
            self._lock = FolderLock(own, run=secrets.token_hex(8))
        self._lock.acquire(as_last=as_last)

    def _open_journal(self, own: Path, restored: bool = False) -> None:
        self.party.privacy.open_journal(PrivacyJournal(own), restored)

    def _label(self) -> Label:
        weights = self.party.averaged_weights()
        return Label(self.party.party, self.party.rounds_done, digest_of(weights))

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
