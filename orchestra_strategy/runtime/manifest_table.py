"""The upload manifest as a table, for who reads it before training starts."""

from collections.abc import Iterable, Mapping
from string import ascii_uppercase
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from orchestra_strategy.runtime.manifest_groups import (
    ManifestGroup,
    bytes_by_time,
    manifest_groups,
)

__all__ = ["ManifestTable", "manifest_table"]

_COLUMNS = (
    *("leaves a party", "shape", "dtype", "bytes", "when"),
    *("combined", "per sample", "seen by"),
)
_NARROW = ("leaves a party", "bytes", "when", "seen by")


class ManifestTable:
    """All that leaves a party, a line per entry, and below it who sees what.

    Where the window is too narrow for all columns, what is less looked for stands in a second line
    under the name; nothing is cut off.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        rows = list(rows)
        self.groups = manifest_groups(rows)
        self.total = bytes_by_time(rows)
        seen = dict.fromkeys(group.seen_by for group in self.groups)
        self.letters = {who: ascii_uppercase[i % 26] for i, who in enumerate(seen)}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the table for the width there is."""
        wide = self._table(_COLUMNS, self._wide)
        needed = Measurement.get(console, options.update(max_width=1000), wide).maximum
        fits = needed <= options.max_width
        yield wide if fits else self._table(_NARROW, self._narrow)
        yield Text(
            f"A party sends at most {self.total['start']:,} bytes at the start and "
            f"{self.total['round']:,} in a round."
        )
        for who, letter in self.letters.items():
            yield Text(f"{letter}: {who}")

    def _table(self, columns: tuple[str, ...], cells: Any) -> Table:
        table = Table(title="Upload manifest", title_justify="left", box=None)
        for column in columns:
            justify: Any = "right" if column == "bytes" else "left"
            # What is not a name is never broken; a name that is too long goes on in a next line.
            broken = column in ("leaves a party", "combined")
            table.add_column(column, justify=justify, overflow="fold", no_wrap=not broken)
        for group in self.groups:
            table.add_row(*cells(group))
        return table

    def _wide(self, group: ManifestGroup) -> tuple[str, ...]:
        return (*group[:-1], self.letters[group.seen_by])

    def _narrow(self, group: ManifestGroup) -> tuple[RenderableType, ...]:
        per_sample = ", a row per sample" if group.per_sample == "yes" else ""
        told = f"{group.shape} {group.dtype}, {group.combine}{per_sample}"
        name = Group(group.name, Padding(Text(told, style="dim"), (0, 0, 0, 2)))
        return (name, group.size, group.when, self.letters[group.seen_by])


def manifest_table(rows: Iterable[Mapping[str, Any]]) -> ManifestTable:
    """Return what rich prints of a manifest.

    Args:
        rows: What ``OrchestraFLModel.manifest`` returns.
    """
    return ManifestTable(rows)
