"""Files of FLModel's ``save_model`` and ``load_model``, on a party's own disk.

SecretFlow writes weights and the optimizer of its own strategies. Of ours that would leave out the
target network, the memory, the global centroids and the optimizer, and a further ``fit`` would
train towards a random target. So a file has, beside what SecretFlow writes, all that the party
keeps, for its owner's eyes alone.
"""

import io
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from orchestra_strategy.checkpoints.file import plain
from orchestra_strategy.checkpoints.state import KeptParty, PartyState, restore, state_of
from orchestra_strategy.errors import CheckpointError, ModelError
from orchestra_strategy.files import write_private

__all__ = ["ModelFiles"]

_log = logging.getLogger(__name__)

_WEIGHTS = "model_state_dict"
_KEPT = "orchestra_strategy"


class SavedParty(KeptParty, Protocol):
    """A strategy that can also start with weights alone.

    Attributes:
        method: Its work around local training.
    """

    method: Any


class ModelFiles:
    """Writes and reads a party's model.

    Args:
        party: The strategy.
    """

    def __init__(self, party: SavedParty) -> None:
        self.party = party

    def save(self, path: str) -> None:
        """Write weights, and all that the party keeps; an old file stays until the new is whole.

        Raises:
            OSError: The file cannot be written.
        """
        party: Any = self.party
        content = {
            _WEIGHTS: party.model.state_dict(),
            "optimizer_state_dict": party.model.optimizers_state_dict(),
            "epoch": party.rounds_done,
            _KEPT: {**plain(state_of(party).as_dict()), "method": _name(party)},
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        write_private(path, buffer.getvalue())

    def load(self, path: str) -> int:
        """Put the party where the file says, or start anew with its weights, and say so.

        Returns:
            Rounds done, 0 after a start with weights alone.

        Raises:
            CheckpointError: There is no such file, it is no model's, or it contradicts the party's
                ``privacy`` or ``streams``.
            ModelError: The weights are those of another model.
        """
        party: Any = self.party
        content = _read(path)
        kept = content.get(_KEPT)
        try:
            if isinstance(kept, dict) and kept.get("method") == _name(party):
                values = {name: value for name, value in kept.items() if name != "method"}
                state = PartyState.from_dict(values)
                restore(party, state)
                party.fingerprint = state.data  # with other data, the memory starts anew
                return int(party.rounds_done)
            party.model.load_state_dict(content[_WEIGHTS])
        except RuntimeError as error:
            raise ModelError(
                f"Expected the weights in `{path}` to be those of this model, got others: {error}"
            ) from None
        party.reports.note_average()
        party.method.start_anew()
        what = "weights alone" if kept is None else f"what {kept.get('method')} keeps"
        _log.warning(
            "`%s` has %s: the target network, where the method has one, starts from its weights, "
            "and memory, global clusters and optimizer start anew.",
            path,
            what,
        )
        return 0


def _name(party: Any) -> str:
    return f"{type(party.objective).__name__}, {type(party.method).__name__}"


def _read(path: str) -> Mapping[str, Any]:
    try:
        body = Path(os.fspath(path)).read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"Expected a model in `{path}`, got {error.strerror or error}; `save_model` adds the "
            "party's name to the path with `is_test=True`, and so has `load_model` to."
        ) from None
    try:
        content: Any = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # neither zipfile nor torch name an end to what they raise
        raise CheckpointError(
            f"Expected `{path}` to be a file of `save_model`, got one that cannot be loaded "
            f"({type(error).__name__})."
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get(_WEIGHTS), dict):
        raise CheckpointError(
            f"Expected `{path}` to be a file of `save_model` with `{_WEIGHTS}`, got another one."
        )
    return content
