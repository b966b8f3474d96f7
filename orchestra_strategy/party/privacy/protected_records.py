"""The unit ``record``: one sample of a party, by DP-SGD on Poisson-sampled batches."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

from torch import nn

from orchestra_strategy.algorithms.moments import Moments
from orchestra_strategy.algorithms.objective import Batch, LossParts
from orchestra_strategy.party.privacy.protected import ProtectedUnit
from orchestra_strategy.party.privacy.refusals import (
    refuse_batch_norm,
    refuse_coupled,
    refuse_virtual_users,
)
from orchestra_strategy.party.roles import Party
from orchestra_strategy.privacy.plan import RoundPlan, record_level_plan
from orchestra_strategy.privacy.record_level import (
    RecordLevelPrivacy,
    poisson_batches,
    sampling_probability,
)
from orchestra_strategy.users import UserSingleStep

__all__ = ["PerExampleLoss", "RecordLevel"]


class PerExampleLoss:
    """A strategy's loss in the form that per-example clipping takes."""

    def __init__(self, party: Party) -> None:
        self.party = party

    def __call__(self, model: nn.Module, batch: Batch) -> LossParts:
        """Return the loss of a whole batch."""
        loss: LossParts = self.party.objective(model, batch)
        return loss

    def per_example(self, model: nn.Module, batch: Batch) -> Any:
        """Split a step in two, see :mod:`orchestra_strategy.privacy.per_example.clipper`."""
        return self.party.objective.per_example(model, batch)

    def state_dict(self) -> Any:
        """Return what a step moves, for a step that has to be taken back."""
        return getattr(self.party.objective, "state_dict", dict)()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the state of :meth:`state_dict`."""
        self.party.objective.load_state_dict(state)

    def empty_step(self, model: nn.Module) -> None:
        """Move on what moves with every step, also with an empty one."""
        step: Callable[[nn.Module], None] | None
        step = getattr(self.party.objective, "empty_step", None)
        if step is not None:
            step(model)


class RecordLevel(ProtectedUnit):
    """Each sample's gradient is clipped in every step, and noise added to their sum."""

    name: ClassVar[str] = "record"
    norm_advice: ClassVar[str] = "group"

    @classmethod
    def check(cls, config: Any, model: nn.Module, sends: tuple[str, ...]) -> None:
        """Refuse, beside what any unit does, virtual users, and statistics of a batch."""
        refuse_virtual_users(config)
        super().check(config, model, sends)
        refuse_batch_norm(model)

    @classmethod
    def check_objective(cls, objective: Any, own_loss: bool) -> None:
        """Refuse an objective in which the gradient of one example is not defined."""
        refuse_coupled(objective, own_loss)

    def protect(self, user: UserSingleStep) -> None:
        """Let the user make each of its gradients private."""
        config, known = self.party.config, user.record_privacy
        private = RecordLevelPrivacy(
            user.model,
            config.clip_norm,
            self.plan().update.noise_multiplier,
            self.party.num_samples(),
            config.batch_size,
            self.mechanism,
            self.silence,
        )
        if known is not None and known.clipper.clip_norm == config.clip_norm:
            private.clipper = known.clipper  # it has learnt how to vectorise this model
        user.record_privacy = private

    def batches(self) -> Iterator[Batch]:
        """Draw the batches of the round by chance; their sizes are secret."""
        return self._sampled(self.party.local_steps())

    def next_batch(self, position: int) -> Batch:
        """Draw one batch by chance, wherever the walk is."""
        return next(self._sampled(1))

    def _sampled(self, steps: int) -> Iterator[Batch]:
        data = self.party.require_data()
        q = sampling_probability(len(data), self.party.config.batch_size)
        drawn = poisson_batches(len(data), q, steps, self.mechanism.source)
        return (data.batch(rows, self.party.exe_device) for rows in drawn)

    def loss(self) -> PerExampleLoss:
        """Return the loss in the form that per-example clipping takes."""
        return PerExampleLoss(self.party)

    def weight(self, samples: int) -> int:
        """Return the expected number of samples: how many a party has counts as known."""
        return self.party.user_type.expected_samples()

    def num_units(self) -> int:
        """Return the party's number of samples."""
        return self.party.num_samples()

    def plan_with(self, noise_multiplier: float, num_samples: int, share: float) -> RoundPlan:
        """Return the releases of a round: its noisy gradients, and moments beside them."""
        q = sampling_probability(num_samples, self.party.config.batch_size)
        steps = self.party.user_type.steps_per_round(self.party.config, num_samples)
        return record_level_plan(noise_multiplier, q, steps, share)

    def moments_of_user(self, moments: Moments, samples: int) -> Moments:
        """Return the moments as they are: one sample moves them by one unit vector."""
        return moments

    def least_count(self, k_min: int) -> int:
        """Return ``k_min``: clusters are counted in samples."""
        return k_min
