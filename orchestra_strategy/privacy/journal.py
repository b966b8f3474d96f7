"""The journal of what a party has released, on disk before it leaves the party.

A checkpoint is older than the rounds that came after it: a run that crashes has spent more than its
last checkpoint knows. So the ledger is also written in every round, before the payload is handed
out, and a resumed party starts from the larger of the two. It cannot spend the same budget twice;
nor can two runs at once, since the folder belongs to one at a time
(:mod:`orchestra_strategy.checkpoints.folder_lock`), and each adds to what it finds.
"""

import json
from pathlib import Path
from typing import Any

from orchestra_strategy.errors import CheckpointError
from orchestra_strategy.files import parse_json, write_bytes

__all__ = ["PrivacyJournal"]

_SCHEMA = 1


class PrivacyJournal:
    """The file ``privacy.json`` in a party's folder.

    Args:
        folder: The party's folder of checkpoints.
    """

    def __init__(self, folder: Path) -> None:
        self.path = self.path_in(folder)

    @staticmethod
    def path_in(folder: Path) -> Path:
        """Return where it is in a folder."""
        return folder / "privacy.json"

    def exists(self) -> bool:
        """Whether anything has been noted."""
        return self.path.exists()

    def write(self, state: dict[str, Any]) -> None:
        """Replace the state; it is on the disk when this returns.

        Raises:
            OSError: It cannot be written.
        """
        write_bytes(self.path, json.dumps({"schema": _SCHEMA, **state}).encode(), mode=0o600)

    def read(self) -> dict[str, Any]:
        """Return the state of :meth:`write`.

        Raises:
            CheckpointError: It is missing, damaged, or of a newer schema.
        """
        try:
            state: Any = parse_json(self.path.read_bytes())
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"Expected `{self.path}` to say what this party has released, got {error}; without "
                "it nobody knows what is left of the budget. Start anew, with other data or with "
                "the former epsilon added by hand."
            ) from None
        schema = state.pop("schema", None) if isinstance(state, dict) else None
        if isinstance(schema, int) and schema > _SCHEMA:
            raise CheckpointError(
                f"Expected `{self.path}` to have a schema of at most {_SCHEMA}, got {schema}: a "
                "newer version of orchestra-strategy has written it; install that one."
            )
        if isinstance(state, dict):
            state.pop("assumes", None)  # for people
        if not isinstance(schema, int) or sorted(state) != ["draws", "failures", "ledger"]:
            raise CheckpointError(f"Expected `{self.path}` to be a ledger, got another content.")
        return dict(state)
