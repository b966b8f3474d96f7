"""What an audit yields."""

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from orchestra_strategy.audit.membership import Auc
from orchestra_strategy.audit.scores import Leakage
from orchestra_strategy.audit.settings import AuditConfig, PrivacySetting

__all__ = ["Audit", "Reply", "SettingResult", "Utility", "plain"]


@dataclass(frozen=True)
class Reply:
    """One attacked reply.

    Attributes:
        user_type: Who sent it.
        attack: The attack that came nearest.
        leakage: Its scores.
        seconds: What it took, of all attacks.
        truth: What the network saw, shape (n, V, C, H, W).
        found: The reconstruction in the same order.
    """

    user_type: str
    attack: str
    leakage: Leakage
    seconds: float
    truth: Tensor
    found: Tensor


@dataclass(frozen=True)
class Utility:
    """What the encoder is worth.

    Attributes:
        knn: Accuracy of nearest neighbours on the others; None without labels.
        alignment: Of two views of the others, 0 is best.
        uniformity: Of their features; lower is better.
        effective_rank: Of their features.
    """

    knn: float | None
    alignment: float
    uniformity: float
    effective_rank: float


@dataclass(frozen=True)
class SettingResult:
    """All about one privacy setting.

    Attributes:
        setting: The setting.
        epsilon_training: Of all passes of the training; None without a bound.
        epsilon_reply: Of the one reply that is attacked.
        utility: Of the trained encoder.
        membership: One AUC per signal.
        replies: One per kind of user.
    """

    setting: PrivacySetting
    epsilon_training: float | None
    epsilon_reply: float | None
    utility: Utility
    membership: tuple[Auc, ...]
    replies: tuple[Reply, ...]

    @property
    def worst(self) -> Reply:
        """The reply that leaks most, by dB above its controls."""
        return max(self.replies, key=lambda reply: reply.leakage.above_control)


@dataclass(frozen=True)
class Audit:
    """The outcome.

    Attributes:
        config: What was audited.
        data: What the data are called.
        sample_shape: (C, H, W).
        members: Number of members, and of others.
        untrained: Utility of the untrained encoder: the control.
        results: One per privacy setting.
        seconds: What it took.
    """

    config: AuditConfig
    data: str
    sample_shape: tuple[int, ...]
    members: int
    untrained: Utility
    results: tuple[SettingResult, ...]
    seconds: float


def plain(result: SettingResult) -> dict[str, Any]:
    """Return a result as plain types, without pictures."""
    return {
        "setting": result.setting.name,
        "privacy": asdict(result.setting.privacy),
        "epsilon_training": result.epsilon_training,
        "epsilon_reply": result.epsilon_reply,
        "utility": asdict(result.utility),
        "membership": [{**asdict(auc), "leaks": auc.leaks} for auc in result.membership],
        "replies": [
            {
                "user_type": reply.user_type,
                "attack": reply.attack,
                **asdict(reply.leakage),
                "above_control": reply.leakage.above_control,
                "seconds": reply.seconds,
            }
            for reply in result.replies
        ],
    }
