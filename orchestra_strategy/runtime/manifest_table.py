"""The upload manifest as a table, for who reads it before training starts."""

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from rich.table import Table

__all__ = ["manifest_table"]

_COLUMNS = (
    *("leaves a party", "shape", "dtype", "bytes", "when"),
    *("combined", "per sample", "seen by"),
)


def manifest_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Return all that leaves a party, a line per entry.

    Entries that differ in name, shape and bytes alone and share a prefix, such as the weights of a
    model, make one line with their number and their bytes together.

    Args:
        rows: What ``OrchestraFLModel.manifest`` returns.
    """
    table = Table(*_COLUMNS, title="Upload manifest", title_justify="left")
    for key, members in groupby(rows, key=_kind):
        group = list(members)
        prefix, dtype, when, combine, per_sample, seen_by = key
        one = group[0]
        name = f"{prefix}/* ({len(group)} arrays)" if len(group) > 1 else str(one["name"])
        shape = "various" if len(group) > 1 else _shape(one)
        size = f"{sum(int(row['bytes']) for row in group):,}"
        table.add_row(
            *(name, shape, dtype, size, when, combine, "yes" if per_sample else "no", seen_by)
        )
    return table


def _kind(row: Mapping[str, Any]) -> tuple[Any, ...]:
    prefix, slash, _ = str(row["name"]).partition("/")
    own = prefix if slash and prefix in ("weights", "gradients") else row["name"]
    return (own, *(row[k] for k in ("dtype", "when", "combine", "per_sample", "seen_by")))


def _shape(row: Mapping[str, Any]) -> str:
    sides = [f"<={row['max_rows']}" if side is None else str(side) for side in row["shape"]]
    return " x ".join(sides) or "a number"
