"""The round that a training goes on from: the newest that all who took part in it have."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestra_strategy.errors import CheckpointError

__all__ = ["Offer", "choose_round", "other_rounds", "whole_rounds"]


@dataclass(frozen=True)
class Offer:
    """What a party has on its disk.

    Attributes:
        digests: Of the averaged weights, by round.
        parties: Who took part in the round, by round.
        problems: What is wrong with the rounds that it cannot read.
        committed: The newest round that it had heard all parties to have; None if there is none.
    """

    digests: Mapping[int, str]
    parties: Mapping[int, Sequence[str]] = field(default_factory=dict)
    problems: Mapping[int, str] = field(default_factory=dict)
    committed: int | None = None


def choose_round(
    offers: Mapping[str, Offer], folder: str, round_index: int | None = None
) -> tuple[int, str]:
    """Return the round to go on from, and the digest of its weights.

    Args:
        offers: By party.
        folder: Where they were looked for.
        round_index: One that is asked for; None asks for the newest.

    Raises:
        CheckpointError: There is none; not all have the one that is asked for; or a party has lost
            one that all had: then an older one is not chosen silently, but offered.

    >>> both = {1: ["alice", "bob"], 2: ["alice", "bob"]}
    >>> alice, bob = Offer({1: "a", 2: "b"}, both), Offer({1: "a"}, both)
    >>> choose_round({"alice": alice, "bob": bob}, "run")
    (1, 'a')
    """
    if not any(o.digests or o.problems for o in offers.values()):
        raise CheckpointError(
            f"Expected checkpoints of this training in `{folder}`, got none at any party; call "
            "`train(...)` first, or set `checkpoint_dir` to the folder that it wrote in."
        )
    whole = whole_rounds(offers)
    wanted = round_index
    if wanted is None:
        committed = [o.committed for o in offers.values() if o.committed is not None]
        wanted = max([*whole, *committed], default=None)
    if wanted is None:
        raise CheckpointError(
            f"Expected a round that all parties have in `{folder}`, got {_listed(offers)}: the "
            "training ended before its first checkpoint was whole; call `train(...)` to start anew."
        )
    if wanted in whole:
        return wanted, whole[wanted]
    if round_index is not None:
        raise CheckpointError(
            f"Expected `round_index` to be a round that all parties have, got {round_index}; "
            f"{_listed(offers)}."
        )
    raise CheckpointError(f"{_lost(offers, wanted)} {other_rounds(whole, wanted)}")


def whole_rounds(offers: Mapping[str, Offer]) -> dict[int, str]:
    """Return the rounds that all who took part in them have with the same weights, with digests.

    A party that was away has older rounds alone, and one that is away now is not asked.
    """
    whole: dict[int, str] = {}
    for offer in offers.values():
        for round_index, digest in offer.digests.items():
            parties = [p for p in offer.parties[round_index] if p in offers]
            if all(offers[p].digests.get(round_index) == digest for p in parties):
                whole[round_index] = digest
    return whole


def other_rounds(rounds: Iterable[int], failed: int) -> str:
    """Return the sentence that offers the newest of the rounds that are left."""
    left = sorted(r for r in rounds if r != failed)
    if not left:
        return "No other round is kept; start anew."
    return f"Round {left[-1]} is kept, too: `resume(..., round_index={left[-1]})`."


def _lost(offers: Mapping[str, Offer], wanted: int) -> str:
    missing = [
        f"Expected party `{party}` to have its state of round {wanted}, got: "
        f"{o.problems.get(wanted, 'no file of it.')} It has the rounds {sorted(o.digests)}."
        for party, o in offers.items()
        if wanted not in o.digests and party in _who(offers, wanted)
    ]
    if missing:
        return " ".join(missing)
    weights = ", ".join(f"{party} {o.digests[wanted][:12]}" for party, o in offers.items())
    return (
        f"Expected all parties to have round {wanted} with the same weights, got the digests "
        f"{weights}: one of them belongs to another training."
    )


def _listed(offers: Mapping[str, Offer]) -> str:
    return ", ".join(f"{party} has {sorted(o.digests)}" for party, o in offers.items())


def _who(offers: Mapping[str, Offer], round_index: int) -> set[str]:
    """Return who took part in a round, as far as anybody has it."""
    found = {p for offer in offers.values() for p in offer.parties.get(round_index, ())}
    return found or set(offers)
