"""The audit's outcome in a terminal: verdicts first, then one table."""

from rich import box
from rich.console import Console
from rich.table import Table

from orchestra_strategy.audit.report.tables import summary_table
from orchestra_strategy.audit.report.verdicts import advice, setting_in_words, verdict
from orchestra_strategy.audit.results import Audit

__all__ = ["show_audit"]

_WIDTH = 124


def show_audit(audit: Audit, console: Console) -> None:
    """Print the verdicts, what to do, and the table of all settings."""
    for line in _in_short(audit):
        console.print(line, highlight=False, soft_wrap=True)
    console.width = max(console.width, _WIDTH)  # for its columns, in a pipe or a narrow window, too
    console.print(_table(audit))


def _in_short(audit: Audit) -> list[str]:
    """Return the verdicts, and what to do."""
    lines = ["", "Verdicts"]
    for result in audit.results:
        words = setting_in_words(result)
        lines.append(f"- {words[0].upper()}{words[1:]}: {verdict(result)}")
    return [*lines, "", "What to do", *(f"- {sentence}" for sentence in advice(audit)), ""]


def _table(audit: Audit) -> Table:
    summary = summary_table(audit)
    table = Table(title="What the server can learn", title_justify="left", box=box.SIMPLE)
    for index, header in enumerate(summary.headers):
        table.add_column(header, justify="right" if index > 1 else "left", no_wrap=index < 2)
    for row in summary.rows:
        table.add_row(*map(str, row))
    table.caption, table.caption_justify = summary.caption, "left"
    return table
