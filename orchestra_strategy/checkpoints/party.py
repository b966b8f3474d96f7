"""A worker's part in checkpoints: it writes its own state on its own disk, and reads it back.

The driver asks and gets a report, never the state. A report names what went wrong in ``problem``,
so that the driver can refuse in one sentence for all parties, in every mode of SecretFlow.
"""

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from orchestra_strategy.checkpoints.file import Label
from orchestra_strategy.checkpoints.folder_lock import FolderLock
from orchestra_strategy.checkpoints.round_files import RoundFiles
from orchestra_strategy.checkpoints.state import KeptParty, PartyState, restore, state_of
from orchestra_strategy.errors import CheckpointError, DataError, OrchestraError, ReplyError
from orchestra_strategy.exchange.received import check_values
from orchestra_strategy.exchange.weights import digest_of, write_weights
from orchestra_strategy.files import private_folder
from orchestra_strategy.free_memory import free_memory
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
        self._steps: dict[str, Callable[..., Any]] = {
            "begin": self._begin,
            "reopen": self._reopen,
            "prepare": self._prepare,
            "commit": RoundFiles.commit,
            "prune": RoundFiles.prune,
            "offer": self._offer,
            "tell": self._tell,
            "load": self._load,
            "catch up": self._catch_up,
            "demote": RoundFiles.demote,
            "settle": RoundFiles.settle,
        }

    def do(self, step: str, folder: str, *arguments: Any) -> dict[str, Any]:
        """Do a step below ``folder``, in which it is the driver that keeps the parties together.

        Args:
            step: ``begin`` or ``reopen`` make the folder this run's, until :meth:`close`;
                ``prepare``, ``commit`` and ``prune`` write a round; ``offer``, ``tell`` and
                ``load`` read one, ``catch up`` takes what the others have since; ``demote`` and
                ``settle`` go back to it.
            folder: The training's; the party's own is below it.
            *arguments: The step's.

        Returns:
            ``found``, what the step returns, and ``problem``, why it could not; None if it could.
        """
        files = RoundFiles(party_folder(folder, self.party.party), self.party.party)
        try:
            return {"problem": None, "found": self._steps[step](files, *arguments)}
        except (OrchestraError, OSError, RuntimeError) as error:
            return {"problem": str(error), "found": None}

    def common(self) -> dict[str, Any]:
        """Return what all parties have, for one that was away."""
        return {"weights": self.party.averaged_weights(), "beside": self.party.common_state()}

    def close(self) -> None:
        """Give the folder back: another run may use it from now on."""
        if self._lock is not None:
            self._lock.release()

    # ---- Steps -----------------------------------------------------------------------------

    def _begin(self, files: RoundFiles) -> None:
        """Get ready to write where there is no checkpoint of this party so far.

        What a training has spent that was cut off before its first one is added to what this
        worker has spent, unless it was this worker's.
        """
        self._lock_folder(files.folder)
        known = PrivacyJournal.path_in(files.folder).exists()
        if files.committed() or (known and not self.party.privacy.protected):
            raise CheckpointError(f"it has the checkpoints of another training in `{files.folder}`")
        self._open_journal(files)

    def _reopen(self, files: RoundFiles) -> None:
        """Go on where this party has written before, and has given the folder back since."""
        self._lock_folder(files.folder, as_last=True)
        self._open_journal(files)

    def _prepare(
        self, files: RoundFiles, parties: list[str], common: dict[str, Any]
    ) -> tuple[int, str]:
        """Write what this party keeps, and what is common to all; what was there stays."""
        if self.party.reports.awaits_average:
            raise CheckpointError(
                "Expected the end of a round, got the middle of round "
                f"{self.party.rounds_done}: this party has trained, and no average has come "
                "back. The last checkpoint holds; go on from it by `resume(...)`."
            )
        round_index, digest = self._at()
        label = Label(self.party.party, round_index, digest, tuple(parties))
        files.prepare(label, {"common": common, "party": state_of(self.party).as_dict()})
        free_memory()
        return round_index, digest

    def _offer(self, files: RoundFiles) -> dict[str, Any]:
        """Return what can be gone on from; another run keeps out from now on."""
        if files.folder.exists():
            self._lock_folder(files.folder)
        labels, problems = files.offered()
        return {
            "digests": {n: label.digest for n, label in labels.items()},
            "parties": {n: label.parties for n, label in labels.items()},
            "problems": problems,
            "committed": max(files.committed(), default=None),
        }

    def _tell(self, files: RoundFiles, round_index: int) -> Any:
        """Return what the driver had this party keep."""
        return self._read(files, round_index)["common"]

    def _load(self, files: RoundFiles, round_index: int) -> tuple[int, str]:
        """Go back to a round."""
        state = PartyState.from_dict(self._read(files, round_index)["party"])
        restore(self.party, state)
        self._expected_data = state.data
        # Rounds after this one have been paid for, too.
        self._open_journal(files, restored=True)
        return self._at()

    def _catch_up(
        self, files: RoundFiles, round_index: int, common: Mapping[str, Any]
    ) -> tuple[int, str]:
        """Take what all parties had after a round that this one was away in."""
        party, own = self.party, self.party.averaged_weights()
        given = common["weights"]
        if {k: v.shape for k, v in own.items()} != {k: np.shape(v) for k, v in given.items()}:
            raise ReplyError("Expected the averaged weights of this model, got another model's")
        check_values({**given, **common["beside"]}, "a party that was not away")
        write_weights(party.model, given)
        party.reports.note_average()
        party.load_common_state(common["beside"])
        missed = range(party.rounds_done + 1, round_index + 1)
        party.reports.left_out.update(dict.fromkeys(missed, "It was away."))
        party.rounds_done = party.round_index = round_index
        return self._at()

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

    @staticmethod
    def _read(files: RoundFiles, round_index: int) -> dict[str, dict[str, Any]]:
        _, values = files.read(round_index)
        if sorted(values) != ["common", "party"]:
            raise CheckpointError(
                f"Expected the file of round {round_index} in `{files.folder}` to have `common` "
                f"and `party`, got {sorted(values)}"
            )
        return values

    def _open_journal(self, files: RoundFiles, restored: bool = False) -> None:
        self.party.privacy.open_journal(PrivacyJournal(files.folder), restored)

    def _at(self) -> tuple[int, str]:
        """Return the round that this party has done, and the digest of the averaged weights."""
        return self.party.rounds_done, digest_of(self.party.averaged_weights())
