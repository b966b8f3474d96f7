"""An audit of what a server could learn from this party's replies, on the party's own data.

Nothing leaves the process. Run it as ``orchestra-fl audit --help``, or by hand:

- :func:`run_audit` for a table of user types and privacy settings, :func:`write_report` for paper;
- :func:`audit_setting` for the leakage of one strategy configuration.
"""

from orchestra_strategy.audit.report import write_report
from orchestra_strategy.audit.results import Audit, Result
from orchestra_strategy.audit.run import audit_setting, run_audit
from orchestra_strategy.audit.samples import read_data
from orchestra_strategy.audit.settings import AuditConfig, parse_audit

__all__ = [
    "Audit",
    "AuditConfig",
    "Result",
    "audit_setting",
    "parse_audit",
    "read_data",
    "run_audit",
    "write_report",
]
