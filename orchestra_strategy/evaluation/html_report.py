"""A report for people: one HTML file with everything inside, to send, to keep, to print.

All reports are one template, ``templates/report.html``. Pictures are embedded and nothing is loaded
from elsewhere; the file forbids the browser to. All text is escaped.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from orchestra_strategy.errors import DataError, ParameterError
from orchestra_strategy.evaluation.protocol import CONTROLS, MEASURES, ProbeResult
from orchestra_strategy.files import PathLike, write_private

__all__ = [
    "HtmlNote",
    "HtmlPicture",
    "HtmlRow",
    "HtmlSection",
    "HtmlTable",
    "results_html_table",
    "write_html",
]

_PNG = b"\x89PNG\r\n\x1a\n"
_NUMBER = re.compile(r"[-+<~]?=? ?\d")
_NO_NUMBERS = ("few", "inf", "nan", "none", "None")  # may stand between numbers
_DPI_RATIO = 1.5  # pictures have 150 pixels per inch, a page 96: sharp on most screens


@dataclass(frozen=True)
class HtmlNote:
    """A paragraph that must not be missed.

    Attributes:
        text: What it says.
    """

    text: str


@dataclass(frozen=True)
class HtmlTable:
    """A table; columns of numbers stand right, others left.

    Attributes:
        headers: One per column.
        rows: Cells, shown as ``str`` shows them; format numbers first.
        caption: Above the table.
        totals: Rows below the others, in bold.
        folded: Of a table that few will read, the line that unfolds it.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str = ""
    totals: Sequence[Sequence[object]] = ()
    folded: str = ""


@dataclass(frozen=True)
class HtmlPicture:
    """A PNG picture that goes into the file.

    Attributes:
        path: Where the picture is; it is read when the report is written.
        caption: Below it, and what is read out in its place.
    """

    path: PathLike
    caption: str


@dataclass(frozen=True)
class HtmlRow:
    """Pictures side by side; in a narrow window one below the other.

    Attributes:
        pictures: From left to right.
    """

    pictures: Sequence[HtmlPicture]


@dataclass(frozen=True)
class HtmlSection:
    """A heading and what stands below it.

    Attributes:
        heading: Of the section.
        blocks: Paragraphs of text, notes, tables, pictures and rows of them, in order.
    """

    heading: str
    blocks: "Sequence[str | HtmlNote | HtmlTable | HtmlPicture | HtmlRow]"


def write_html(path: PathLike, title: str, sections: Sequence[HtmlSection]) -> None:
    """Write a report as one self-contained HTML file; ``path`` is never half written.

    Args:
        path: The file; missing folders are made.
        title: Of the page.
        sections: In order.

    Raises:
        DataError: A picture is no PNG.
        ParameterError: A row has not one cell for each header, or a block is of an unknown kind.
        OSError: A picture cannot be read, or the file cannot be written.
    """
    shown = [
        {"heading": section.heading, "blocks": [_block(block) for block in section.blocks]}
        for section in sections
    ]
    page = _template().render(title=title, sections=shown)
    write_private(path, page.encode("utf-8"))


def results_html_table(
    results: Mapping[str, Mapping[str, ProbeResult]], caption: str = "Accuracy on the test set, %"
) -> HtmlTable:
    """Lay out the results of a protocol: methods above, the controls that they must beat below.

    Args:
        results: Name of a feature set -> results by probe, the same probes for all of them.
        caption: Above the table.

    Raises:
        ParameterError: No results, or feature sets that were measured by different probes.

    >>> results_html_table({"pixels": {"knn": ProbeResult.from_values([0.5])}}).rows
    [['pixels', '50.0']]
    """
    if not results or len({tuple(sorted(by_probe)) for by_probe in results.values()}) > 1:
        raise ParameterError(
            "Expected `results` to have feature sets with the same probes, got "
            f"{ {name: sorted(by_probe) for name, by_probe in results.items()} }."
        )
    names = sorted(results, key=lambda name: name in CONTROLS)  # stable: order is kept otherwise
    probes = list(results[names[0]])
    rows = [[name, *(results[name][probe].percent() for probe in probes)] for name in names]
    return HtmlTable(["features", *(_header(probe) for probe in probes)], rows, caption)


def _header(probe: str) -> str:
    labels, _, measure = probe.partition(" ")
    header = "kNN" if labels == "knn" else f"{labels} label{'' if labels == '1' else 's'}"
    return f"{header}, {MEASURES[measure]}" if measure else header


@lru_cache(maxsize=1)
def _template() -> Template:
    loader = PackageLoader("orchestra_strategy.evaluation")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    return environment.get_template("report.html")


def _block(block: Any) -> dict[str, Any]:
    """Return a block as the template takes it."""
    if isinstance(block, str):
        return {"kind": "text", "text": block}
    if isinstance(block, HtmlNote):
        return {"kind": "note", "text": block.text}
    if isinstance(block, HtmlTable):
        return _table(block)
    if isinstance(block, HtmlPicture):
        return {"kind": "picture", **_picture(block)}
    if isinstance(block, HtmlRow):
        return {"kind": "row", "pictures": [_picture(one) for one in block.pictures]}
    raise ParameterError(
        "Expected `blocks` to hold strings, HtmlNote, HtmlTable, HtmlPicture and HtmlRow, got "
        f"{type(block).__name__}."
    )


def _table(table: HtmlTable) -> dict[str, Any]:
    for row in (*table.rows, *table.totals):
        if len(row) != len(table.headers):
            raise ParameterError(
                f"Expected every row of a table to have {len(table.headers)} cells, one for each "
                f"header, got {len(row)}: {list(row)!r}."
            )
    rows, totals = ([[str(c) for c in row] for row in part] for part in (table.rows, table.totals))
    return {
        "kind": "table",
        "headers": list(table.headers),
        "rows": rows,
        "totals": totals,
        "caption": table.caption,
        "folded": table.folded,
        "numeric": [_numeric([row[i] for row in rows]) for i in range(len(table.headers))],
    }


def _numeric(cells: Sequence[str]) -> bool:
    """Whether a column's cells are numbers, or stand for one.

    >>> _numeric(["93.1 ± 0.4", "", "none", "-1"]), _numeric(["2 rounds", "yes"]), _numeric([""])
    (True, False, False)
    """
    given = [cell for cell in cells if cell and cell not in _NO_NUMBERS]
    return bool(given) and all(_NUMBER.match(cell) for cell in given)


def _picture(picture: HtmlPicture) -> dict[str, Any]:
    content = Path(picture.path).read_bytes()
    if not content.startswith(_PNG):
        raise DataError(
            f"Expected the picture {str(picture.path)!r} to be a PNG, got another file."
        )
    # The header's size, so that the page does not jump while it is drawn.
    width, height = (int.from_bytes(content[i : i + 4], "big") for i in (16, 20))
    return {
        "data": base64.b64encode(content).decode(),
        "caption": picture.caption,
        "width": round(width / _DPI_RATIO),
        "height": round(height / _DPI_RATIO),
    }
