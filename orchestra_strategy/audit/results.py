"""The results of an audit."""

from dataclasses import asdict, dataclass
from typing import Any

from orchestra_strategy.audit.attacks.reply_attack import Reply, nearest
from orchestra_strategy.audit.attacks.roc import Auc
from orchestra_strategy.audit.attacks.scene import Outcome
from orchestra_strategy.audit.attacks.scores import Leakage
from orchestra_strategy.audit.audited_party import Row
from orchestra_strategy.audit.report.columns import ColumnError
from orchestra_strategy.audit.settings import AuditConfig, setting_name
from orchestra_strategy.audit.utility import Utility

__all__ = ["Audit", "Result", "plain"]


@dataclass(frozen=True)
class Result:
    """All about one row of the table.

    Attributes:
        row: Kind of user and privacy.
        strategy: The strategy that was run; Orchestra's with privacy is ``orchestra_private``.
        rounds: Rounds of its training, which a budget may cut.
        epsilon: Of the training, by the party's own ledger; None without privacy.
        delta: For which epsilon holds.
        utility: Of the trained encoder.
        untrained: Utility of the untrained encoder: the control.
        beats_untrained: See :meth:`~orchestra_strategy.audit.utility.Utility.beats`.
        outcomes: What the attacks found.
        not_tried: Attacks that could not be tried, with the reason.
        columns: Of a table, the errors by column.
        seconds: What it took.
    """

    row: Row
    strategy: str
    rounds: int
    epsilon: float | None
    delta: float | None
    utility: Utility
    untrained: Utility
    beats_untrained: bool | None
    outcomes: tuple[Outcome, ...]
    not_tried: tuple[tuple[str, str], ...]
    columns: tuple[ColumnError, ...]
    seconds: float

    @property
    def name(self) -> str:
        """The privacy setting in words."""
        return setting_name(self.row.privacy)

    @property
    def leaks(self) -> bool:
        """Whether any attack found something."""
        return any(outcome.leaks for outcome in self.outcomes)

    @property
    def replies(self) -> tuple[Reply, ...]:
        """Of each attacked reply what the attack found that came nearest."""
        found: dict[int, list[Reply]] = {}
        for outcome in self.outcomes:
            if isinstance(outcome, Reply):
                found.setdefault(outcome.index, []).append(outcome)
        return tuple(nearest(replies) for replies in found.values())

    @property
    def membership(self) -> tuple[Auc, ...]:
        """One AUC per signal of membership."""
        return tuple(outcome for outcome in self.outcomes if isinstance(outcome, Auc))

    @property
    def leakage(self) -> Leakage | None:
        """The scores of all replies together; None where none was attacked."""
        replies = self.replies
        return Leakage.together([reply.leakage for reply in replies]) if replies else None

    @property
    def worst_membership(self) -> Auc | None:
        """The signal with the highest AUC; None where there is none."""
        return max(self.membership, key=lambda auc: auc.value, default=None)


@dataclass(frozen=True)
class Audit:
    """The outcome.

    Attributes:
        config: What was audited.
        data: What the data are called.
        sample_shape: (C, H, W), or (F,) for a table.
        members: Number of members, and of others.
        untrained: Utility of the untrained encoder: the control.
        results: One per kind of user and privacy setting.
        refused: Combinations that the strategy refuses, and why: user type, setting, sentence.
        seconds: What it took.
    """

    config: AuditConfig
    data: str
    sample_shape: tuple[int, ...]
    members: int
    untrained: Utility
    results: tuple[Result, ...]
    refused: tuple[tuple[str, str, str], ...]
    seconds: float


def plain(result: Result) -> dict[str, Any]:
    """Return a result as plain types, without pictures."""
    leakage = result.leakage
    scores = None
    if leakage is not None:
        scores = {**asdict(leakage), "above_control": leakage.above_control}
    return {
        "user_type": result.row.user_type,
        "setting": result.name,
        "privacy": dict(result.row.privacy),
        "strategy": result.strategy,
        "rounds": result.rounds,
        "epsilon": result.epsilon,
        "delta": result.delta,
        "leaks": result.leaks,
        "utility": asdict(result.utility),
        "beats_untrained": result.beats_untrained,
        "reconstruction": scores,
        "replies": [reply.plain() for reply in result.replies],
        "membership": [auc.plain() for auc in result.membership],
        "outcomes": [outcome.plain() for outcome in result.outcomes],
        "not_tried": dict(result.not_tried),
        "columns": [asdict(column) for column in result.columns],
        "seconds": result.seconds,
    }
