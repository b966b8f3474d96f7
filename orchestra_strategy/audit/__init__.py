"""What a server could learn from this party's replies, measured on the party's own data.

Nothing leaves the process. Run it as ``python -m orchestra_strategy.audit --help``.
"""

from orchestra_strategy.audit.report import write_report
from orchestra_strategy.audit.results import Audit
from orchestra_strategy.audit.run import run_audit
from orchestra_strategy.audit.settings import AuditConfig, parse_audit

__all__ = ["Audit", "AuditConfig", "parse_audit", "run_audit", "write_report"]
