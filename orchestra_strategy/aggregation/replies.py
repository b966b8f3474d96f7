"""The parties' replies: those that can be combined, and what is wrong with the others.

A reply is looked at twice: by itself, and beside the others. Where they disagree, those that most
parties agree on are right; where there is no such majority, nobody can say who is wrong.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from orchestra_strategy.aggregation.agreement import other_centroids, other_forms
from orchestra_strategy.errors import ParameterError, ReplyError
from orchestra_strategy.exchange.payload import Payload, unpack
from orchestra_strategy.exchange.received import check_values
from orchestra_strategy.exchange.rounded import check_steps

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
    wires: Sequence[Any], labels: Sequence[str], with_quality: bool, max_local_centroids: int
) -> Replies:
    """Sort replies into those that can be combined and those that cannot.

    Types, shapes and numbers of rows of all replies come first, and only then values: nobody makes
    the server work on what does not belong there.

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
            payload = unpack(wire, who)
            _check_quality_form(payload.arrays, who, with_quality)
            check_steps(payload.arrays, who)
            _check_centroid_forms(payload.arrays, who, max_local_centroids)
            sound[i] = payload
        except ReplyError as error:
            refused[i] = str(error)
    refused |= other_forms(sound, labels)
    for i, payload in sound.items():
        try:
            check_values(payload.arrays, labels[i], no_centroids=payload.phase == "init")
            _check_quality(payload.arrays, labels[i])
        except ReplyError as error:
            refused.setdefault(i, str(error))
    sound = {i: payload for i, payload in sound.items() if i not in refused}
    refused |= other_centroids(sound, labels)
    sound = {i: payload for i, payload in sound.items() if i not in refused}
    return Replies(sound, dict(sorted(refused.items())))


def _check_centroid_forms(arrays: Mapping[str, Any], who: str, max_local_centroids: int) -> None:
    """Refuse centroids that the server cannot cluster, or that would take it too long."""
    if "local_centroids" not in arrays:
        return
    local, echo = arrays["local_centroids"], arrays.get("global_centroids")
    if echo is None or local.ndim != 2 or echo.ndim != 2 or local.shape[1] != echo.shape[1]:
        raise ReplyError(
            f"Expected `local_centroids` and `global_centroids` of {who} to have two axes each, "
            f"and the same width, got shapes {local.shape} and "
            f"{'none' if echo is None else echo.shape}."
        )
    if len(local) > max_local_centroids:
        raise ReplyError(
            f"Expected at most {max_local_centroids} `local_centroids` of {who}, got {len(local)}; "
            "`max_local_centroids` of `server_aggregation(...)` sets the limit."
        )


def _check_quality_form(arrays: Mapping[str, Any], who: str, with_quality: bool) -> None:
    quality = arrays.get("quality")
    if (quality is not None) != with_quality:
        raise ReplyError(
            f"Expected {'a' if with_quality else 'no'} `quality` from {who}, got "
            f"{'none' if with_quality else 'one'}: `aggregation` has to be 'quality' at all "
            "parties and in `server_aggregation(...)`, or nowhere."
        )
    if quality is not None and quality.shape != (1,):
        raise ReplyError(
            f"Expected `quality` of {who} to be one number in [0, 1], got shape {quality.shape}."
        )


def _check_quality(arrays: Mapping[str, Any], who: str) -> None:
    # Within these limits a party can lower its own weight, but not raise it.
    if "quality" in arrays and not 0 <= arrays["quality"][0] <= 1:
        raise ReplyError(
            f"Expected `quality` of {who} to be one number in [0, 1], got {arrays['quality'][0]}."
        )
