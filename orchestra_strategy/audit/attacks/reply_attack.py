"""The base of attacks on a single reply, which recover samples and are scored."""

import time
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from orchestra_strategy.audit.answer import Answer
from orchestra_strategy.audit.attacks.scene import Attack, Scene
from orchestra_strategy.audit.attacks.scores import Leakage, leakage
from orchestra_strategy.audit.recorded_views import pixels
from orchestra_strategy.audit.samples import Split
from orchestra_strategy.audit.settings import AuditConfig
from orchestra_strategy.rng import torch_generator

__all__ = ["Reply", "ReplyAttack", "nearest"]


@dataclass(frozen=True)
class Reply:
    """One attacked reply.

    Attributes:
        attack: The attack.
        index: Number of the reply.
        leakage: Its scores.
        seconds: What it took.
        truth: What was searched for, shape (n, V, ...): views that the network saw; the samples
            themselves (V = 1) where the views are known.
        found: The reconstruction in the same order.
        samples: The samples behind it, (n, ...), for the auditor.
    """

    attack: str
    index: int
    leakage: Leakage
    seconds: float
    truth: Tensor
    found: Tensor
    samples: Tensor

    @property
    def leaks(self) -> bool:
        """Whether a sample was recovered."""
        return self.leakage.leaked > 0

    @property
    def told(self) -> str:
        """How many samples were recovered."""
        return f"{self.leakage.leaked} of {self.leakage.samples} samples recovered"

    def plain(self) -> dict[str, Any]:
        """Return it as plain types, without pictures."""
        scores = {**asdict(self.leakage), "above_control": self.leakage.above_control}
        return {"attack": self.attack, "index": self.index, **scores, "seconds": self.seconds}


class ReplyAttack(Attack):
    """An attack that recovers samples from one reply."""

    def run(self, scene: Scene) -> tuple[Reply, ...]:
        """Attack every reply."""
        answers = enumerate(scene.answers)
        return tuple(self.on(scene.config, a, scene.split, index) for index, a in answers)

    def on(self, config: AuditConfig, answer: Answer, split: Split, index: int) -> Reply:
        """Attack one reply, and score what was found."""
        begun = time.perf_counter()
        truth, others = self.target(config, answer, split, index)
        stream = torch_generator(config.seed, "server", index, self.name)
        found = self.recover(config, answer, truth.shape, stream)
        guesses = torch_generator(config.seed, "auditor", index, "guesses")
        scores, ordered = leakage(found.reshape(-1, *truth.shape[2:]), truth, others, guesses)
        seconds = time.perf_counter() - begun
        return Reply(self.name, index, scores, seconds, truth, ordered, answer.samples)

    def views(self, answer: Answer) -> tuple[int, ...]:
        """Return which views are searched for; by default those that the loss looks at."""
        return answer.loss.views

    def target(
        self, config: AuditConfig, answer: Answer, split: Split, index: int
    ) -> tuple[Tensor, Tensor]:
        """Return what is searched for (n, V, ...), and the same of other samples (m, V, ...)."""
        seen = self.views(answer)
        drawn = torch_generator(config.seed, "auditor", index, "views")
        return answer.views.images(seen), pixels(answer.views.views(split.others, drawn), seen)

    @abstractmethod
    def recover(
        self, config: AuditConfig, answer: Answer, shape: Sequence[int], generator: Any
    ) -> Tensor:
        """Return guesses; of the truth it sees the shape (n, V, ...) alone."""


def nearest(replies: Sequence[Reply]) -> Reply:
    """Return the reply of several attacks that came nearest to what it searched for."""
    return max(replies, key=lambda reply: reply.leakage.above_control)
