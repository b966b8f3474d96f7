"""The audit on paper: ``audit.json`` for programs, ``audit.html`` for a data-protection officer."""

from dataclasses import asdict
from pathlib import Path

from orchestra_strategy.audit.pictures import draw_replies
from orchestra_strategy.audit.results import Audit, plain
from orchestra_strategy.audit.tables import (
    membership_table,
    refused_table,
    replies_table,
    summary_table,
)
from orchestra_strategy.audit.wording import HOW_TO_READ, in_short, limits, subject
from orchestra_strategy.evaluation import (
    HtmlPicture,
    HtmlSection,
    write_html,
    write_json,
)

__all__ = ["write_report"]

SCHEMA = 1
_REFUSED = ("user_type", "setting", "reason")
_OWN_SAMPLES = (
    "This report shows samples of the audited party, and what was made of them: it must not leave "
    "the party."
)


def write_report(audit: Audit, folder: Path) -> list[Path]:
    """Write ``audit.json`` and ``audit.html``, with pictures where the plots extra is installed.

    Args:
        audit: The outcome.
        folder: Where to; it is made where missing.

    Returns:
        The two files.
    """
    json_path, html_path = folder / "audit.json", folder / "audit.html"
    write_json(
        json_path,
        {
            "schema": SCHEMA,
            "data": audit.data,
            "sample_shape": list(audit.sample_shape),
            "members": audit.members,
            "config": audit.config.model_dump(mode="json"),
            "untrained": asdict(audit.untrained),
            "results": [plain(result) for result in audit.results],
            "refused": [dict(zip(_REFUSED, row, strict=True)) for row in audit.refused],
            "limits": limits(audit),
            "seconds": audit.seconds,
        },
    )
    sections = [
        HtmlSection("In short", [_OWN_SAMPLES, subject(audit), in_short(audit)]),
        HtmlSection("Setting, utility, leakage", [summary_table(audit), HOW_TO_READ]),
        HtmlSection("Reconstructions", [*_pictures(audit, folder), replies_table(audit)]),
        HtmlSection("Membership", [membership_table(audit)]),
        *([HtmlSection("Not possible", [refused_table(audit)])] if audit.refused else []),
        HtmlSection("What this audit does not cover", limits(audit)),
    ]
    write_html(html_path, f"Privacy audit: {audit.config.strategy} on {audit.data}", sections)
    return [json_path, html_path]


def _pictures(audit: Audit, folder: Path) -> list[str | HtmlPicture]:
    """Draw a picture for each kind of user: the first reply under each setting."""
    drawn: list[str | HtmlPicture] = []
    for user_type in dict.fromkeys(result.row.user_type for result in audit.results):
        path = folder / f"replies_{user_type}.png"
        rows = [(r.name, r.replies[0]) for r in audit.results if r.row.user_type == user_type]
        try:
            draw_replies(rows, path)
        except ImportError as error:
            return [f"No pictures: {error}"]
        drawn.append(HtmlPicture(path, f"{user_type}: what the network saw, and what was found"))
    return drawn
