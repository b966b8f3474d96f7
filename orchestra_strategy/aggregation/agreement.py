"""Agreement of the replies of one round; the majority says which of them are right."""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from orchestra_strategy.errors import ReplyError
from orchestra_strategy.exchange.payload import Payload
from orchestra_strategy.exchange.received import UPDATE_PREFIX, listed, named

__all__ = ["other_centroids", "other_forms"]


def other_forms(replies: Mapping[int, Payload], labels: Sequence[str]) -> dict[int, str]:
    """Return which replies have another round, phase, names or shapes; no value is looked at.

    Args:
        replies: By the party's position.
        labels: How messages call the parties.

    Returns:
        What sets a reply apart from the majority's, by position; empty if all agree.

    Raises:
        ReplyError: There is no majority.
    """
    return _apart_from_most(replies, labels, _form, _difference)


def other_centroids(replies: Mapping[int, Payload], labels: Sequence[str]) -> dict[int, str]:
    """Return which replies echo other global centroids than most; see :func:`other_forms`."""

    def difference(_: Payload, who: str, __: Payload, reference_who: str) -> str:
        return f"Expected `global_centroids` of {who} to be those of {reference_who}."

    return _apart_from_most(replies, labels, _echo, difference)


def _apart_from_most(
    replies: Mapping[int, Payload],
    labels: Sequence[str],
    key: Callable[[Payload], Hashable],
    difference: Callable[[Payload, str, Payload, str], str],
) -> dict[int, str]:
    keys = {i: key(payload) for i, payload in replies.items()}
    ranked = Counter(keys.values()).most_common()  # equal counts in the order of the parties
    if len(ranked) < 2:
        return {}
    reference = next(i for i, found in keys.items() if found == ranked[0][0])
    apart = {
        i: difference(replies[i], labels[i], replies[reference], labels[reference])
        for i, found in keys.items()
        if found != ranked[0][0]
    }
    if ranked[0][1] == ranked[1][1]:
        raise ReplyError(" ".join(apart.values()))
    return apart


def _shape(name: str, array: Any) -> tuple[int, ...]:
    # How many clusters a party has is its own affair.
    shape: tuple[int, ...] = array.shape
    return shape[1:] if name == "local_centroids" else shape


def _form(payload: Payload) -> Hashable:
    shapes = tuple((n, _shape(n, a), a.dtype.name) for n, a in payload.arrays.items())
    return payload.round_index, payload.phase, shapes


def _is_rounded(payload: Payload) -> bool:
    return any(name.startswith(UPDATE_PREFIX) for name in payload.arrays)


def _echo(payload: Payload) -> Hashable:
    echo = payload.arrays.get("global_centroids")
    return None if echo is None else (np.asarray(echo) + 0.0).tobytes()  # -0.0 equals 0.0


def _difference(payload: Payload, who: str, reference: Payload, reference_who: str) -> str:
    rounded, others_rounded = _is_rounded(payload), _is_rounded(reference)
    if rounded != others_rounded:
        with_bits, without = (who, reference_who) if rounded else (reference_who, who)
        return (
            f"Expected `payload_bits` of all parties to be the same, got some from {with_bits} "
            f"and none from {without}."
        )
    for what, got, want in (
        ("round", payload.round_index, reference.round_index),
        ("phase", payload.phase, reference.phase),
        ("names", *_beyond(payload.arrays, reference.arrays)),
    ):
        if got != want:
            return (
                f"Expected the `{what}` of all parties to agree, got {got!r} from {who} and "
                f"{want!r} from {reference_who}. After an interrupted round, build a new FLModel."
            )
    for name, array in payload.arrays.items():
        shape, other = _shape(name, array), _shape(name, reference.arrays[name])
        dtype, others = array.dtype, reference.arrays[name].dtype
        if dtype != others:
            which = "payload_bits" if name.startswith(UPDATE_PREFIX) else "payload_dtype"
            return (
                f"Expected `{which}` of all parties to be the same, got `{named(name)}` as "
                f"{dtype} from {who} and as {others} from {reference_who}."
            )
        if shape != other:
            return (
                f"Expected `{named(name)}` of all parties to have the same shapes, got {shape} "
                f"from {who} and {other} from {reference_who}."
            )
    raise AssertionError("forms that differ have a difference")


def _beyond(names: Mapping[str, Any], others: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return what either has beyond the other, for a message; the order if that is all."""
    more, missing = names.keys() - others.keys(), others.keys() - names.keys()
    if more or missing or list(names) == list(others):
        return listed(more), listed(missing)
    return ["another order"], ["this order"]
