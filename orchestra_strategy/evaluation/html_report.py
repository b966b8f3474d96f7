"""A report for people: one HTML file with everything inside, to send, to keep, to print.

Pictures are embedded and nothing is loaded from elsewhere; the file forbids the browser to. All
text is escaped.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from orchestra_strategy.errors import DataError, ParameterError
from orchestra_strategy.evaluation.protocol import CONTROLS, MEASURES, ProbeResult
from orchestra_strategy.files import PathLike, write_private

__all__ = ["HtmlPicture", "HtmlSection", "HtmlTable", "results_html_table", "write_html"]

_PNG = b"\x89PNG\r\n\x1a\n"

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --muted: #777; }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 60rem; margin: 2.5rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.7rem; line-height: 1.2; }
h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
p { max-width: 44rem; white-space: pre-line; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption, figcaption { color: var(--muted); font-size: .9rem; text-align: left; padding: .3rem 0; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; background: white; }
@media print { h2, figure, table { break-inside: avoid; } }
""".strip()

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class HtmlTable:
    """A table; the first column stands left, the others right.

    Attributes:
        headers: One per column.
        rows: Cells, shown as ``str`` shows them; format numbers first.
        caption: Above the table.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str = ""


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
class HtmlSection:
    """A heading and what stands below it.

    Attributes:
        heading: Of the section.
        blocks: Paragraphs of text, tables and pictures, in order.
    """

    heading: str
    blocks: Sequence[str | HtmlTable | HtmlPicture]


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
    body = "\n".join(_section(section) for section in sections)
    page = (
        "<!doctype html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_STYLE}\n</style>\n</head>\n"
        f"<body>\n<h1>{escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )
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
    header = "kNN" if labels == "knn" else f"{labels} labels"
    return f"{header}, {MEASURES[measure]}" if measure else header


def _section(section: HtmlSection) -> str:
    blocks = "\n".join(_block(block) for block in section.blocks)
    return f"<section>\n<h2>{escape(section.heading)}</h2>\n{blocks}\n</section>"


def _block(block: str | HtmlTable | HtmlPicture) -> str:
    if isinstance(block, str):
        return f"<p>{escape(block)}</p>"
    if isinstance(block, HtmlTable):
        return _table(block)
    if isinstance(block, HtmlPicture):
        return _picture(block)
    raise ParameterError(
        "Expected `blocks` to hold strings, HtmlTable and HtmlPicture, got "
        f"{type(block).__name__}."
    )


def _table(table: HtmlTable) -> str:
    for row in table.rows:
        if len(row) != len(table.headers):
            raise ParameterError(
                f"Expected every row of a table to have {len(table.headers)} cells, one for each "
                f"header, got {len(row)}: {list(row)!r}."
            )
    head = "".join(f'<th scope="col">{escape(header)}</th>' for header in table.headers)
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in table.rows
    )
    caption = f"<caption>{escape(table.caption)}</caption>\n" if table.caption else ""
    return (
        f'<div class="wide"><table>\n{caption}<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody>\n</table></div>"
    )


def _picture(picture: HtmlPicture) -> str:
    content = Path(picture.path).read_bytes()
    if not content.startswith(_PNG):
        raise DataError(
            f"Expected the picture {str(picture.path)!r} to be a PNG, got another file."
        )
    data, caption = base64.b64encode(content).decode(), escape(picture.caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">\n'
        f"<figcaption>{caption}</figcaption></figure>"
    )
