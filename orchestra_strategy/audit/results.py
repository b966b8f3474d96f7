"""What an audit yields."""

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from orchestra_strategy.audit.membership import Auc
from orchestra_strategy.audit.party import Row
from orchestra_strategy.audit.scores import Leakage
from orchestra_strategy.audit.settings import AuditConfig, setting_name
from orchestra_strategy.audit.utility import Utility

__all__ = ["Audit", "Reply", "Result", "plain"]


@dataclass(frozen=True)
class Reply:
    """One attacked reply.

    Attributes:
        attack: The attack that came nearest.
        leakage: Its scores.
        seconds: What it took, of all attacks.
        truth: What the network saw, shape (n, V, C, H, W).
        found: The reconstruction in the same order.
    """

    attack: str
    leakage: Leakage
    seconds: float
    truth: Tensor
    found: Tensor


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
        membership: One AUC per signal.
        replies: As many as were asked for.
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
    membership: tuple[Auc, ...]
    replies: tuple[Reply, ...]
    seconds: float

    @property
    def name(self) -> str:
        """The privacy setting in words."""
        return setting_name(self.row.privacy)

    @property
    def leakage(self) -> Leakage:
        """The scores of all replies together."""
        return Leakage.together([reply.leakage for reply in self.replies])

    @property
    def worst_membership(self) -> Auc:
        """The signal with the highest AUC."""
        return max(self.membership, key=lambda auc: auc.value)


@dataclass(frozen=True)
class Audit:
    """The outcome.

    Attributes:
        config: What was audited.
        data: What the data are called.
        sample_shape: (C, H, W).
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
    return {
        "user_type": result.row.user_type,
        "setting": result.name,
        "privacy": dict(result.row.privacy),
        "strategy": result.strategy,
        "rounds": result.rounds,
        "epsilon": result.epsilon,
        "delta": result.delta,
        "utility": asdict(result.utility),
        "beats_untrained": result.beats_untrained,
        "membership": [{**asdict(auc), "leaks": auc.leaks} for auc in result.membership],
        "reconstruction": {**asdict(leakage), "above_control": leakage.above_control},
        "replies": [
            {
                "attack": reply.attack,
                **asdict(reply.leakage),
                "above_control": reply.leakage.above_control,
                "seconds": reply.seconds,
            }
            for reply in result.replies
        ],
        "seconds": result.seconds,
    }
