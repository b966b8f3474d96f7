"""Samples recovered by a server that can repeat the party's random views.

With ``streams="seed"`` the views of a batch, and the order in which samples come, follow from the
root seed, the party's name and the round, all of which a server has. The search is then for the
samples themselves: such that all their views, drawn again by the same stream, have features in the
span of the gradient (see :mod:`~orchestra_strategy.audit.attacks.span`). Two views of known
displacement tell more of a sample than each alone.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from orchestra_strategy.audit.answer import Answer
from orchestra_strategy.audit.attacks.reply_attack import ReplyAttack
from orchestra_strategy.audit.attacks.scene import Scene
from orchestra_strategy.audit.attacks.span import feature_layer, misfit_of, prepared, row_space
from orchestra_strategy.audit.samples import Split
from orchestra_strategy.audit.settings import AuditConfig
from orchestra_strategy.data.augmentation.view_set import ViewSet
from orchestra_strategy.data.augmentation.views import Views
from orchestra_strategy.rng import SeededStreams

__all__ = ["PublicStreams", "repeated_views"]

_STEP_SIZE = 0.05
_STARTS = 6  # guesses of each sample, searched from side by side


def repeated_views(answer: Answer, samples: Tensor) -> list[ViewSet]:
    """Draw the views of a reply again, as a server that has the seed can; differentiably.

    Args:
        answer: The reply; of it the seed, the party's name, the round and the plan are used.
        samples: Guesses of its samples, in the public order, shape (n, ...).

    Returns:
        A view set for each batch, in the order in which they were drawn.
    """
    streams = SeededStreams(answer.seed)
    generator = streams.for_torch(answer.party, answer.round_index, "views")
    parts = max(answer.users, answer.plan.steps)
    return [_drawn(answer.views.views, part, generator) for part in samples.chunk(parts)]


def _drawn(views: Views, samples: Tensor, generator: torch.Generator) -> ViewSet:
    """Draw views through which gradients flow: theirs are made for training, without."""
    draw: Any = type(views).__call__
    with torch.enable_grad():  # type: ignore[no-untyped-call]
        found: ViewSet = getattr(draw, "__wrapped__", draw)(views, samples, generator)
    return found


class PublicStreams(ReplyAttack):
    """The attack on a reply."""

    name = "public_streams"
    sees = (
        "the reply of a round, and the seed, from which it repeats the party's random views and "
        "the order of its samples"
    )
    limits = "It is for simulations: a party that draws from a secret of its own is not open to it."

    def reason_against(self, scene: Scene) -> str | None:
        """Refuse what draws from a secret."""
        if scene.row.private:
            return "with privacy the party's random draws are secret"
        if scene.config.streams == "secret":
            return "the party's random draws are secret (`streams` is 'secret')"
        return None

    def target(
        self, config: AuditConfig, answer: Answer, split: Split, index: int
    ) -> tuple[Tensor, Tensor]:
        """Return the samples themselves, as their only view."""
        return answer.samples.unsqueeze(1), split.others.unsqueeze(1)

    def recover(
        self, config: AuditConfig, answer: Answer, shape: Sequence[int], generator: torch.Generator
    ) -> Tensor:
        """Search for the samples; ``shape`` is (n, 1, ...)."""
        model = prepared(answer.model, answer.payload, answer.shared["buffers"])
        gradient = answer.plan.as_gradient(answer.shared["gradients"])
        names = [name for name, _ in model.named_parameters()]
        rank = shape[0] * len(answer.loss.online)
        basis = row_space(gradient[names.index(feature_layer(model))], rank)
        guesses = answer.domain.start(_STARTS * shape[0], shape[2:], generator)
        guesses = guesses.reshape(_STARTS, shape[0], *shape[2:]).requires_grad_()
        optimizer = torch.optim.Adam([guesses], lr=_STEP_SIZE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.attack_steps)
        for _ in range(config.attack_steps):
            unlikely = answer.domain.unlikely(guesses.flatten(0, 1)).sum()
            value = _misfits(model, answer, guesses, basis).sum() + unlikely
            guesses.grad = torch.autograd.grad(value, [guesses])[0]
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                answer.domain.keep(guesses)
        with torch.no_grad():
            best = _misfits(model, answer, guesses, basis).argmin(0)  # (n,)
        return answer.domain.finish(guesses.detach()[best, torch.arange(shape[0])])


def _misfits(model: nn.Module, answer: Answer, guesses: Tensor, basis: Tensor) -> Tensor:
    """Return for each guess (S, n, ...) the mean misfit of its views, shape (S, n)."""
    starts, n = guesses.shape[:2]
    online = answer.loss.online
    sets = [repeated_views(answer, part) for part in guesses]
    views = [torch.cat([drawn[v] for drawn in batches]) for batches in sets for v in online]
    misfit, _ = misfit_of(model, torch.cat(views), basis)  # (S * V * n,)
    return misfit.reshape(starts, len(online), n).mean(1)
