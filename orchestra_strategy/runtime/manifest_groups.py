"""The upload manifest in few lines: what differs in name, shape and bytes alone stands together."""

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any, NamedTuple

__all__ = ["ManifestGroup", "bytes_by_time", "manifest_groups", "shape_in_words"]

_FAMILIES = ("weights/", "gradients/", "sums/", "rounded/", "train_", "health_")


class ManifestGroup(NamedTuple):
    """Entries of a manifest that are told in one line.

    Attributes:
        name: Of the entry, or ``family* (number)`` of several.
        shape: In words; ``various`` of several that have one.
        dtype: On the wire.
        size: Bytes in words, of all together and at most; ``few`` of a description.
        when: ``start``, ``round``, ``both`` or ``asked``.
        combine: What the receiver does with it.
        per_sample: ``yes`` if a row of it belongs to one sample, else ``no``.
        seen_by: Who sees it.
    """

    name: str
    shape: str
    dtype: str
    size: str
    when: str
    combine: str
    per_sample: str
    seen_by: str


def manifest_groups(rows: Iterable[Mapping[str, Any]]) -> list[ManifestGroup]:
    """Return a manifest's lines; no entry is left out, and no byte.

    Args:
        rows: What ``OrchestraFLModel.manifest`` returns.
    """
    return [_group(key, list(members)) for key, members in groupby(rows, key=_kind)]


def bytes_by_time(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return the bytes that a party sends at most, by ``start``, ``round`` and ``asked``.

    Args:
        rows: What ``OrchestraFLModel.manifest`` returns; ``both`` counts for start and round.
    """
    rows = list(rows)
    return {
        when: sum(int(row["bytes"]) for row in rows if row["when"] in whens)
        for when, whens in {
            "start": ("start", "both"),
            "round": ("round", "both"),
            "asked": ("asked",),
        }.items()
    }


def shape_in_words(row: Mapping[str, Any]) -> str:
    """Return an entry's shape.

    >>> shape_in_words({"shape": [None, 3], "max_rows": 7, "when": "round"})
    '<=7 x 3'
    """
    if _few(row):
        return "values"
    sides = [f"<={row['max_rows']}" if side is None else str(side) for side in row["shape"]]
    return " x ".join(sides) or "number"


def _group(key: tuple[Any, ...], group: list[Mapping[str, Any]]) -> ManifestGroup:
    family, dtype, when, combine, per_sample, seen_by = key
    one, several = group[0], len(group) > 1
    return ManifestGroup(
        f"{family}* ({len(group)})" if several else str(one["name"]),
        "various" if several and one["shape"] else shape_in_words(one),
        dtype,
        "few" if _few(one) else f"{sum(int(row['bytes']) for row in group):,}",
        when,
        combine,
        "yes" if per_sample else "no",
        seen_by,
    )


def _kind(row: Mapping[str, Any]) -> tuple[Any, ...]:
    name = str(row["name"])
    family = next((f for f in _FAMILIES if name.startswith(f)), name)
    return (family, *(row[k] for k in ("dtype", "when", "combine", "per_sample", "seen_by")))


def _few(row: Mapping[str, Any]) -> bool:
    """Whether it is a description, of a few values, that the driver asks for."""
    return bool(row["when"] == "asked" and not row["shape"])
