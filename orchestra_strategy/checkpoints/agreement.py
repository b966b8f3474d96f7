"""Which round a training goes on from: the newest that all parties have."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestra_strategy.errors import CheckpointError

__all__ = ["Offer", "choose_round", "common_rounds", "other_rounds"]


@dataclass(frozen=True)
class Offer:
    """What a party has on its disk.

    Attributes:
        digests: Of the averaged weights, by round.
        problems: What is wrong with the rounds that it cannot read.
        committed: The newest round that it had heard all parties to have; None if there is none.
    """

    digests: Mapping[int, str]
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

    >>> choose_round({"alice": Offer({1: "a", 2: "b"}), "bob": Offer({1: "a"})}, "run")
    (1, 'a')
    """
    if not any(o.digests or o.problems for o in offers.values()):
        raise CheckpointError(
            f"Expected checkpoints of this training in `{folder}`, got none at any party; call "
            "`train(...)` first, or set `checkpoint_dir` to the folder that it wrote in."
        )
    common = common_rounds(offers)
    wanted = round_index
    if wanted is None:
        committed = [o.committed for o in offers.values() if o.committed is not None]
        wanted = max([*common, *committed], default=None)
    if wanted is None:
        raise CheckpointError(
            f"Expected a round that all parties have in `{folder}`, got {_listed(offers)}: the "
            "training ended before its first checkpoint was whole; call `train(...)` to start anew."
        )
    if wanted in common:
        return wanted, next(iter(offers.values())).digests[wanted]
    if round_index is not None:
        raise CheckpointError(
            f"Expected `round_index` to be a round that all parties have, got {round_index}; "
            f"{_listed(offers)}."
        )
    raise CheckpointError(f"{_lost(offers, wanted)} {other_rounds(common, wanted)}")


def common_rounds(offers: Mapping[str, Offer]) -> Sequence[int]:
    """Return the rounds that all have with the same weights, ascending."""
    found = [set(offer.digests.items()) for offer in offers.values()]
    return sorted(round_index for round_index, _ in set.intersection(*found))


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
        if wanted not in o.digests
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
