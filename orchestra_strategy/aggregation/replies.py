"""Which of the parties' replies can be combined, and what is wrong with the others.

A reply is looked at twice: by itself, and beside the others. Where they disagree, those that most
parties agree on are right; where there is no such majority, nobody can say who is wrong.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from orchestra_strategy.errors import ParameterError, ReplyError
from orchestra_strategy.payload import (
    Payload,
    check_unit_rows,
    check_values,
    described,
    listed,
    unpack,
)

__all__ = ["Replies", "check_party_names", "party_labels", "read_replies"]


class Replies(NamedTuple):
    """What came in.

    Attributes:
        sound: The payloads that belong together, by the party's position.
        refused: What is wrong with each of the others, by the party's position.
    """

    sound: dict[int, Payload]
    refused: dict[int, str]


def party_labels(party_names: Sequence[str] | None, replies: int) -> list[str]:
    """Return how messages call the parties: by name, or else by position.

    Raises:
        ReplyError: Another number of replies than of names.

    >>> party_labels(["alice", "bob"], 2), party_labels(None, 1)
    (['party `alice`', 'party `bob`'], ['party 0'])
    """
    if party_names is None:
        return [f"party {i}" for i in range(replies)]
    if len(party_names) != replies:
        raise ReplyError(
            f"Expected one reply from each of {len(party_names)} parties "
            f"({', '.join(party_names)}), got {replies}."
        )
    return [f"party `{name}`" for name in party_names]


def check_party_names(party_names: Any) -> tuple[str, ...] | None:
    """Return the names as a tuple, or None if there are none.

    Raises:
        ParameterError: They are no names, or one comes twice.
    """
    if party_names is None:
        return None
    names = () if isinstance(party_names, str) else tuple(party_names)
    if not names or not all(isinstance(n, str) for n in names) or len(set(names)) < len(names):
        raise ParameterError(
            "Expected `party_names` to be the names of the parties in the order of `device_list`, "
            f"each once, got {party_names!r}."
        )
    return names


def read_replies(
    wires: Sequence[Any],
    labels: Sequence[str],
    with_quality: bool,
    max_local_centroids: int = 4096,
) -> Replies:
    """Sort replies into those that can be combined and those that cannot.

    Args:
        wires: What came in, one per party.
        labels: How messages call the parties.
        with_quality: Whether every party has to send how good its clusters are, or none may.
        max_local_centroids: How many rows of ``local_centroids`` a party may send.

    Raises:
        ReplyError: The sound ones disagree, and no majority says which of them is right.
    """
    sound: dict[int, Payload] = {}
    refused: dict[int, str] = {}
    for i, (wire, who) in enumerate(zip(wires, labels, strict=True)):
        try:
            sound[i] = unpack(wire, who)
            _check_forms(sound[i].arrays, who, max_local_centroids)
            _check_contents(sound[i].arrays, who)
            _check_quality(sound[i].arrays, who, with_quality)
        except ReplyError as error:
            sound.pop(i, None)
            refused[i] = str(error)
    if sound:
        refused |= _disagreeing(sound, labels)
    return Replies({i: p for i, p in sound.items() if i not in refused}, refused)


def _check_forms(arrays: Mapping[str, Any], who: str, max_local_centroids: int) -> None:
    """Refuse what is no plain float32 array, or too many rows: before any value is looked at."""
    for name, array in arrays.items():
        plain = type(array) is np.ndarray and array.dtype == np.float32 and array.dtype.isnative
        if not plain:
            raise ReplyError(
                f"Expected `{name}` of {who} to be finite float32, got {described(array)}."
            )
    for name in ("local_centroids", "global_centroids"):
        if name in arrays and arrays[name].ndim != 2:
            raise ReplyError(
                f"Expected `{name}` of {who} to have two axes, got shape {arrays[name].shape}."
            )
    rows = len(arrays.get("local_centroids", ()))
    if rows > max_local_centroids:
        raise ReplyError(
            f"Expected at most {max_local_centroids} `local_centroids` of {who}, got {rows}; "
            "`max_local_centroids` of `server_aggregation(...)` sets the limit."
        )


def _check_contents(arrays: Mapping[str, Any], who: str) -> None:
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ReplyError(
                f"Expected `{name}` of {who} to be finite float32, got float32 with NaN or "
                "infinity."
            )
        check_values(name, array, who)
    if "local_centroids" in arrays:
        check_unit_rows("local_centroids", arrays["local_centroids"], who)
    echo = arrays.get("global_centroids")
    if echo is not None and echo.any():  # zeros: there have been none so far
        check_unit_rows("global_centroids", echo, who)


def _check_quality(arrays: Mapping[str, Any], who: str, with_quality: bool) -> None:
    quality = arrays.get("quality")
    if (quality is not None) != with_quality:
        raise ReplyError(
            f"Expected {'a' if with_quality else 'no'} `quality` from {who}, got "
            f"{'none' if with_quality else 'one'}: `aggregation` has to be 'quality' at all "
            "parties and in `server_aggregation(...)`, or nowhere."
        )
    # Within these limits a party can lower its own weight, but not raise it.
    if quality is not None and (quality.shape != (1,) or not 0 <= quality[0] <= 1):
        raise ReplyError(
            f"Expected `quality` of {who} to be one number in [0, 1], got {quality.tolist()}."
        )


def _disagreeing(sound: Mapping[int, Payload], labels: Sequence[str]) -> dict[int, str]:
    """Return what sets replies apart from the majority's, by position; empty if all agree."""
    forms = {i: _form(payload) for i, payload in sound.items()}
    ranked = Counter(forms.values()).most_common()  # equal counts in the order of the parties
    reference = next(i for i, form in forms.items() if form == ranked[0][0])
    found = {
        i: _difference(sound[i], labels[i], sound[reference], labels[reference])
        for i, form in forms.items()
        if form != ranked[0][0]
    }
    if len(ranked) > 1 and ranked[0][1] == ranked[1][1]:
        raise ReplyError(" ".join(found.values()))
    return found


def _apart(names: Mapping[str, Any], others: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return what either has beyond the other, for a message; the order if that is all."""
    beyond, missing = names.keys() - others.keys(), others.keys() - names.keys()
    if beyond or missing or list(names) == list(others):
        return listed(beyond), listed(missing)
    return ["another order"], ["this order"]


def _shape(name: str, array: Any) -> tuple[int, ...]:
    # How many clusters a party has is its own affair.
    shape: tuple[int, ...] = array.shape
    return shape[1:] if name == "local_centroids" else shape


def _form(payload: Payload) -> Hashable:
    """Return all that must be the same in the replies of one round of one model."""
    shapes = tuple((name, _shape(name, array)) for name, array in payload.arrays.items())
    echo = payload.arrays.get("global_centroids")
    echoed = None if echo is None else (np.asarray(echo) + 0.0).tobytes()  # -0.0 equals 0.0
    return payload.round_index, payload.phase, shapes, echoed


def _difference(payload: Payload, who: str, reference: Payload, reference_who: str) -> str:
    for what, got, want in (
        ("round", payload.round_index, reference.round_index),
        ("phase", payload.phase, reference.phase),
        ("names", *_apart(payload.arrays, reference.arrays)),
    ):
        if got != want:
            return (
                f"Expected the `{what}` of all parties to agree, got {got!r} from {who} and "
                f"{want!r} from {reference_who}. After an interrupted round, build a new FLModel."
            )
    for name, array in payload.arrays.items():
        shape, other = _shape(name, array), _shape(name, reference.arrays[name])
        if shape != other:
            return (
                f"Expected `{name}` of all parties to have the same shapes, got {shape} from {who} "
                f"and {other} from {reference_who}."
            )
    return f"Expected `global_centroids` of {who} to be those of {reference_who}."
