"""A party's checkpoints on its disk, written in the two phases of a commit.

A round's file is *prepared* (written and synced, under a name that says so) at every party before
it is *committed* (renamed) at any, and committed at every party before an older one goes at any. So
whenever the parties die, each at its own moment, there is a round that all of them have.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestra_strategy.checkpoints.file import (
    Label,
    read_checkpoint,
    read_label,
    write_checkpoint,
)
from orchestra_strategy.errors import CheckpointError
from orchestra_strategy.files import remove_leftovers, rename

__all__ = ["RoundFiles"]

_COMMITTED, _PREPARED = "ckpt", "prepared"


class RoundFiles:
    """The files of one party, which may be of a folder that is not there yet.

    Args:
        folder: The party's.
        owner: The party's name.

    >>> RoundFiles(Path("run"), "alice").path(7).as_posix()
    'run/round-000007.ckpt'
    """

    def __init__(self, folder: Path, owner: str) -> None:
        self.folder, self.owner = folder, owner

    def path(self, round_index: int, ending: str = _COMMITTED) -> Path:
        """Return where the file of a round is."""
        return self.folder / f"round-{round_index:06d}.{ending}"

    def committed(self) -> list[int]:
        """Return the rounds that all parties had prepared, ascending."""
        return self._rounds(_COMMITTED)

    # ---- Writing ---------------------------------------------------------------------------

    def prepare(self, label: Label, state: Mapping[str, Any]) -> None:
        """Write a round; what was written before stays.

        Raises:
            CheckpointError: The state has other things than tensors and plain values.
            OSError: The file cannot be written.
        """
        write_checkpoint(self.path(label.round_index, _PREPARED), label, state)

    def commit(self, round_index: int) -> None:
        """Give a prepared round its name, after all parties have prepared it.

        Raises:
            OSError: It has not been prepared, or cannot be renamed.
        """
        rename(self.path(round_index, _PREPARED), self.path(round_index))

    def prune(self, keep: int) -> None:
        """Remove all but the newest ``keep``, after all parties have committed to those."""
        for round_index in self.committed()[:-keep]:
            self.path(round_index).unlink(missing_ok=True)
        self._remove_prepared(above=-1)

    # ---- Reading ---------------------------------------------------------------------------

    def offered(self) -> tuple[dict[int, Label], dict[int, str]]:
        """Return labels of the rounds that can be read, and what is wrong with the others.

        A prepared round counts: where the other parties have it, too, it can be gone on from.
        """
        labels, problems = {}, {}
        for round_index in sorted({*self.committed(), *self._rounds(_PREPARED)}):
            try:
                label = read_label(self._found(round_index))
                self._check(label, round_index)
                labels[round_index] = label
            except CheckpointError as error:
                problems[round_index] = str(error)
        return labels, problems

    def read(self, round_index: int) -> tuple[Label, dict[str, Any]]:
        """Return a round.

        Raises:
            CheckpointError: It is missing, damaged, or of another party or round.
        """
        label, state = read_checkpoint(self._found(round_index))
        self._check(label, round_index)
        return label, state

    # ---- Going back ------------------------------------------------------------------------

    def demote(self, round_index: int) -> None:
        """Take back the commit of all rounds above one, the newest first; no file goes."""
        for later in reversed(self.committed()):
            if later > round_index:
                rename(self.path(later), self.path(later, _PREPARED))

    def settle(self, round_index: int) -> None:
        """Commit to a round, after all parties have demoted what is above it, which goes."""
        if self.path(round_index, _PREPARED).exists():
            self.commit(round_index)
        self._remove_prepared(above=round_index)

    # ---- Inside ----------------------------------------------------------------------------

    def _rounds(self, ending: str) -> list[int]:
        if not self.folder.is_dir():
            return []
        name = re.compile(rf"round-(\d{{6,}})\.{ending}")
        found = (name.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def _found(self, round_index: int) -> Path:
        prepared = self.path(round_index, _PREPARED)
        committed = self.path(round_index)
        return prepared if prepared.exists() and not committed.exists() else committed

    def _check(self, label: Label, round_index: int) -> None:
        if (label.owner, label.round_index) != (self.owner, round_index):
            raise CheckpointError(
                f"Expected `{self._found(round_index)}` to be of party `{self.owner}`, round "
                f"{round_index}, got `{label.owner}`, {label.round_index}."
            )

    def _remove_prepared(self, above: int) -> None:
        for later in reversed(self._rounds(_PREPARED)):
            if later > above:
                self.path(later, _PREPARED).unlink(missing_ok=True)
        remove_leftovers(self.folder, "round-*")
