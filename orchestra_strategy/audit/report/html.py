"""The audit on paper: ``audit.json`` for programs, ``audit.html`` for a data-protection officer."""

from dataclasses import asdict
from pathlib import Path

from orchestra_strategy.audit.report.glossary import glossary, limits, subject
from orchestra_strategy.audit.report.pictures import draw_replies
from orchestra_strategy.audit.report.tables import (
    columns_table,
    membership_table,
    refused_table,
    replies_table,
    summary_table,
    verdicts_table,
)
from orchestra_strategy.audit.report.verdicts import advice, verdict
from orchestra_strategy.audit.results import Audit, Result, plain
from orchestra_strategy.audit.user_kinds import KINDS
from orchestra_strategy.evaluation import (
    HtmlPicture,
    HtmlSection,
    HtmlTable,
    write_html,
    write_json,
)

__all__ = ["write_report"]

SCHEMA = 2
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
    write_json(json_path, _as_json(audit))
    kinds: dict[str, list[Result]] = {}
    for result in audit.results:
        kinds.setdefault(result.row.user_type, []).append(result)
    sections = [
        HtmlSection("Verdicts", [_OWN_SAMPLES, verdicts_table(audit)]),
        HtmlSection("What to do", list(advice(audit))),
        HtmlSection("Words", [glossary()]),
        HtmlSection("All settings", [subject(audit), summary_table(audit)]),
        *(_section(audit, name, results, folder) for name, results in kinds.items()),
        HtmlSection("Not possible", [refused_table(audit)]),
        HtmlSection("What this audit does not cover", list(limits(audit))),
    ]
    write_html(html_path, f"Privacy audit: {audit.config.strategy} on {audit.data}", sections)
    return [json_path, html_path]


def _as_json(audit: Audit) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "data": audit.data,
        "sample_shape": list(audit.sample_shape),
        "members": audit.members,
        "config": audit.config.model_dump(mode="json"),
        "untrained": asdict(audit.untrained),
        "results": [{"verdict": verdict(r), **plain(r)} for r in audit.results],
        "advice": advice(audit),
        "refused": [dict(zip(_REFUSED, row, strict=True)) for row in audit.refused],
        "limits": limits(audit),
        "seconds": audit.seconds,
    }


def _section(audit: Audit, name: str, results: list[Result], folder: Path) -> HtmlSection:
    """Return all about one kind of user: the pictures stand beside their numbers."""
    sends = KINDS[name].sends
    parts: list[str | HtmlTable | HtmlPicture] = [f"{sends[0].upper()}{sends[1:]}."]
    replied = [result for result in results if result.replies]
    if replied and len(audit.sample_shape) == 1:
        parts += [columns_table(replied), replies_table(replied)]
    elif replied:
        parts += [_picture(name, replied, folder), replies_table(replied)]
    if any(result.membership for result in results):
        parts.append(membership_table(results, audit.members))
    for result in results:
        others = [o.told for o in result.outcomes if o.attack in ("crafted_weights", "canary")]
        parts += [f"{result.name}: {told}" for told in others]
    return HtmlSection(name, parts)


def _picture(name: str, results: list[Result], folder: Path) -> str | HtmlPicture:
    """Draw the first reply under each setting."""
    path = folder / f"replies_{name}.png"
    try:
        draw_replies([(r.name, r.replies[0]) for r in results], path)
    except ImportError as error:
        return f"No pictures: {error}"
    return HtmlPicture(path, f"{name}: what the network saw, and what was found in reply 1")
