"""The upload manifest as a table, for who reads it before training starts."""

from collections.abc import Iterable, Mapping
from itertools import groupby
from string import ascii_uppercase
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

__all__ = ["manifest_table"]

_COLUMNS = (
    *("leaves a party", "shape", "dtype", "bytes", "when"),
    *("combined", "per sample", "seen by"),
)
_FAMILIES = ("weights/", "gradients/", "train_", "health_")


def manifest_table(rows: Iterable[Mapping[str, Any]]) -> Group:
    """Return all that leaves a party, a line per entry, and below it who sees what.

    Weights, gradients, losses and health make one line each, with their number and their bytes
    together, where they differ in name, shape and bytes alone.

    Args:
        rows: What ``OrchestraFLModel.manifest`` returns.
    """
    table = Table(*_COLUMNS, title="Upload manifest", title_justify="left", box=None)
    letters: dict[str, str] = {}
    for key, members in groupby(rows, key=_kind):
        group = list(members)
        family, dtype, when, combine, per_sample, seen_by = key
        one, several = group[0], len(group) > 1
        letter = letters.setdefault(seen_by, ascii_uppercase[len(letters) % 26])
        table.add_row(
            f"{family}* ({len(group)})" if several else str(one["name"]),
            "various" if several and one["shape"] else _shape(one),
            dtype,
            "few" if _few(one) else f"{sum(int(row['bytes']) for row in group):,}",
            *(when, combine, "yes" if per_sample else "no", letter),
        )
    return Group(table, *(Text(f"{letter}: {who}") for who, letter in letters.items()))


def _kind(row: Mapping[str, Any]) -> tuple[Any, ...]:
    name = str(row["name"])
    family = next((f for f in _FAMILIES if name.startswith(f)), name)
    return (family, *(row[k] for k in ("dtype", "when", "combine", "per_sample", "seen_by")))


def _few(row: Mapping[str, Any]) -> bool:
    """Whether it is a description, of a few values, that the driver asks for."""
    return bool(row["when"] == "asked" and not row["shape"])


def _shape(row: Mapping[str, Any]) -> str:
    if _few(row):
        return "values"
    sides = [f"<={row['max_rows']}" if side is None else str(side) for side in row["shape"]]
    return " x ".join(sides) or "number"
