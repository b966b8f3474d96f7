"""The scene of an attack: the audited party with what left it; and the base of all attacks."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from orchestra_strategy.audit.answer import Answer
from orchestra_strategy.audit.audited_party import Row
from orchestra_strategy.audit.samples import Split
from orchestra_strategy.audit.settings import AuditConfig
from orchestra_strategy.data.augmentation.views import Views
from orchestra_strategy.strategies.self_supervised import SelfSupervisedStrategy

__all__ = ["Attack", "FirstCentroids", "Outcome", "Scene"]


class Outcome(Protocol):
    """What an attack yields.

    Attributes:
        attack: The attack's name.
        leaks: Whether it found something out.
        told: What it found, as a part of a sentence.
    """

    @property
    def attack(self) -> str:
        """The attack's name."""

    @property
    def leaks(self) -> bool:
        """Whether it found something out."""

    @property
    def told(self) -> str:
        """What it found, as a part of a sentence."""

    def plain(self) -> dict[str, Any]:
        """Return it as plain types, for JSON."""


@dataclass(frozen=True)
class FirstCentroids:
    """The first local centroids that left the party, and the encoder that they were made with.

    Attributes:
        rows: Unit-norm rows (k, D).
        encoder: Backbone and projector as the server had sent them.
    """

    rows: Tensor
    encoder: nn.Module


@dataclass
class Scene:
    """One audited setting.

    Attributes:
        config: What is audited.
        row: Kind of user and privacy.
        split: The party's samples, of which attacks use ``others`` as what they know beforehand.
        party: The strategy after its training.
        views: The augmentation, which is public.
        answers: The replies that are attacked.
        centroids: See :class:`FirstCentroids`; None where none have left.
    """

    config: AuditConfig
    row: Row
    split: Split
    party: SelfSupervisedStrategy
    views: Views
    answers: Sequence[Answer] = field(default_factory=tuple)
    centroids: FirstCentroids | None = None


class Attack(ABC):
    """An attack.

    Attributes:
        name: In the configuration and the report.
        sees: What it uses of what leaves a party, in words for the report.
        limits: What it cannot show, likewise.
    """

    name: ClassVar[str]
    sees: ClassVar[str]
    limits: ClassVar[str]

    def reason_against(self, scene: Scene) -> str | None:
        """Return why it cannot be tried on a setting, for the report; None if it can."""
        return None

    @abstractmethod
    def run(self, scene: Scene) -> Sequence[Outcome]:
        """Attack, and say what was found."""
