"""All that a party keeps between rounds, as one value: what its checkpoint holds.

It stays on the party's own disk. Of random streams it needs the party's secret, if there is one,
and counters: each is derived from seed or secret, party, round and purpose
(:mod:`orchestra_strategy.rng`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

from torch import nn

from orchestra_strategy.errors import CheckpointError

__all__ = ["KeptParty", "PartyState", "restore", "state_of"]


@dataclass(frozen=True)
class PartyState:
    """What a party keeps.

    Attributes:
        data: Fingerprint of its samples; None if it had none.
        progress: Rounds done, place in the data order, rows trained on, rounds it was left out of.
        model: All weights and buffers of the online network.
        objective: Target network, memory and global centroids, where the method has them.
        user: The optimizer's state, momentum for instance, and the counters of queries and batches.
        kept: What the strategy keeps beside all this, see ``FederatedStrategy.all_kept_state``.
        privacy: The ledger of all that has been released, and the number of draws; None without.
        streams: The secret that its random streams follow from; None where that is a seed.
    """

    data: str | None
    progress: dict[str, Any]
    model: dict[str, Any]
    objective: dict[str, Any]
    user: dict[str, Any]
    kept: dict[str, Any]
    privacy: dict[str, Any] | None
    streams: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, without copying them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PartyState":
        """Return the state of :meth:`as_dict`.

        Raises:
            CheckpointError: It has other fields.
        """
        names = [field.name for field in fields(cls)]
        if sorted(values) != sorted(names):
            raise CheckpointError(
                f"Expected the state of a party to have {sorted(names)}, got {sorted(values)}."
            )
        return cls(**values)


class KeptParty(Protocol):
    """What a checkpoint asks of a strategy.

    Attributes:
        party: Its name.
        config: Its parameters.
        model: The online network.
        objective: The loss, with what the party keeps for it.
        user_type: The kind of user, with its optimizer.
        privacy: What protects its data.
        streams: Where its randomness comes from.
        reports: What it has told and been sent.
        fingerprint: Of its samples; None before it has some.
        rounds_done: Rounds of training done.
        round_index: The round under way.
        epoch: Its place in the order of its data.
    """

    party: str
    config: Any
    model: nn.Module
    objective: Any
    user_type: Any
    privacy: Any
    streams: Any
    reports: Any
    fingerprint: str | None
    rounds_done: int
    round_index: int
    epoch: int

    def all_kept_state(self) -> dict[str, Any]:
        """Return what the strategy keeps beside all this."""

    def load_all_kept_state(self, state: dict[str, Any]) -> None:
        """Take the state of :meth:`all_kept_state`."""

    def common_state(self) -> dict[str, Any]:
        """Return the arrays beside the weights that all parties have."""

    def load_common_state(self, state: dict[str, Any]) -> None:
        """Take the arrays of :meth:`common_state`."""

    def averaged_weights(self) -> Mapping[str, Any]:
        """Return the model that all parties have."""


def state_of(party: KeptParty) -> PartyState:
    """Return what a party keeps now, between two rounds."""
    objective: dict[str, Any] = getattr(party.objective, "state_dict", dict)()
    return PartyState(
        data=party.fingerprint,
        progress={
            "rounds_done": party.rounds_done,
            "round_index": party.round_index,
            "epoch": party.epoch,
            "rows_trained": party.reports.rows_trained,
            "left_out": dict(party.reports.left_out),
        },
        model=party.model.state_dict(),
        objective=objective,
        user=party.user_type.state(),
        kept=party.all_kept_state(),
        privacy=party.privacy.state(),
        streams=party.streams.state(),
    )


def restore(party: KeptParty, state: PartyState) -> None:
    """Put a party where it was; its data have to come afterwards, and to be the same.

    Raises:
        CheckpointError: The state is that of a party with privacy, and this one has none, or the
            reverse; or its random streams followed from something else.
        RuntimeError: The weights are those of another model.
    """
    if (state.privacy is not None) != party.privacy.protected:
        raise CheckpointError(
            f"Expected `privacy` to be as in the checkpoint, got {party.config.privacy!r}."
        )
    if (state.streams is None) == party.streams.secret:
        kind = "a seed" if state.streams is None else "a secret of the party"
        raise CheckpointError(
            f"Expected `streams` to be as in the checkpoint, where they follow from {kind}, got "
            f"{party.config.streams!r}, which here means the other; set `streams`, or resume in "
            "the same mode of SecretFlow."
        )
    if state.streams is not None:
        party.streams.load_state(state.streams)
    party.model.load_state_dict(state.model)
    party.reports.note_average()
    if state.objective:
        party.objective.load_state_dict(state.objective)
    party.user_type.load_state(state.user)
    party.load_all_kept_state(state.kept)
    if state.privacy is not None:
        party.privacy.load_state(state.privacy)
    progress = state.progress
    party.rounds_done, party.round_index = progress["rounds_done"], progress["round_index"]
    party.epoch, party.reports.rows_trained = progress["epoch"], progress["rows_trained"]
    party.reports.left_out = dict(progress["left_out"])
