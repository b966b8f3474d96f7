"""The audit's outcome in words, tables and pictures; nothing is measured here."""

from orchestra_strategy.audit.report.html import write_report

__all__ = ["write_report"]
