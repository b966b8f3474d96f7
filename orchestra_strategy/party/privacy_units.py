"""A party's differential privacy: its plan of a round, its budget, and what it has spent.

The third of the four choices. A strategy asks :class:`PartyPrivacy` before each round, which hands
the user its protection; who adds the noise also writes the ledger.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from orchestra_strategy.algorithms.objective import Batch, LossParts
from orchestra_strategy.data.batches import num_batches
from orchestra_strategy.errors import PrivacyError
from orchestra_strategy.privacy.accounting import PrivacyLedger, Release, find_noise_multiplier
from orchestra_strategy.privacy.journal import PrivacyJournal
from orchestra_strategy.privacy.mechanism import GaussianMechanism
from orchestra_strategy.privacy.noise_source import NoiseSource
from orchestra_strategy.privacy.plan import RoundPlan, record_level_plan, user_level_plan
from orchestra_strategy.privacy.record_level import (
    RecordLevelPrivacy,
    poisson_batches,
    sampling_probability,
)
from orchestra_strategy.privacy.silence import Silence
from orchestra_strategy.privacy.user_level import UserLevelPrivacy

__all__ = ["EPSILON", "PartyPrivacy", "PerExampleLoss"]

_log = logging.getLogger(__name__)

EPSILON = "privacy_epsilon"
"""Under which a party's epsilon so far is logged."""


class PerExampleLoss:
    """A strategy's loss in the form that per-example clipping takes."""

    def __init__(self, party: Any) -> None:
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


class PartyPrivacy:
    """The privacy of one party, over all its rounds.

    Args:
        party: The strategy, with ``privacy`` not ``"none"``.

    Attributes:
        ledger: All that the party has released.
        journal: Where that is written in every round, if checkpoints are on.
        silence: Keeps errors of the local work from showing; it counts them, for the party itself.
    """

    def __init__(self, party: Any) -> None:
        self.party = party
        self.ledger = PrivacyLedger(party.config.accountant)
        self.journal: PrivacyJournal | None = None
        self._mechanism: GaussianMechanism | None = None
        self._noted: Counter[Release] = Counter()  # of the ledger, what the journal has
        self.silence = Silence()
        self._found: dict[Any, float] = {}

    @property
    def mechanism(self) -> GaussianMechanism:
        """What draws the party's noise: one stream, which goes on from fit to fit."""
        if self._mechanism is None:
            config = self.party.config
            units = self.party.num_samples() if config.privacy == "record" else self.weight()
            if units > 1 and config.delta * units >= 1:
                _log.warning(
                    "`delta` is %g, not below 1 / %d: with so many units, a mechanism that shows "
                    "one of them would pass.",
                    *(config.delta, units),
                )
            source = NoiseSource(config.noise_seed, self.party.party)
            self._mechanism = GaussianMechanism(self.ledger, source)
        return self._mechanism

    def replace_mechanism(self, mechanism: GaussianMechanism) -> None:
        """Let another mechanism add the noise from now on."""
        self._mechanism = mechanism

    def state(self) -> dict[str, Any]:
        """Return what stays at the party, as plain types.

        The ledger, how often noise has been drawn, and how often local work has failed and counted
        as zero: of that the party's own people can learn here, and nobody else.
        """
        return {
            "ledger": self.ledger.state(),
            "draws": self.mechanism.source.draws,
            "failures": self.silence.failures,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take the state of :meth:`state`, unless more has been spent and drawn than it says.

        The count of draws matters to a seeded stream alone: it goes on, and never repeats. Keys
        from the operating system are fresh in any case.
        """
        self.ledger.spent |= self._read(state)  # the larger count of each kind of release
        self.silence.failures = max(self.silence.failures, int(state["failures"]))

    def open_journal(self, journal: PrivacyJournal, restored: bool = False) -> None:
        """Keep the journal of a folder from now on, and take on what it says has been spent.

        Args:
            journal: Of a folder that belongs to this run.
            restored: Whether this party has just been put where that training was, so that what it
                has spent is in the journal, too; else the two add up.
        """
        if restored:
            self._noted = self._read(journal.read())
            self.ledger.spent |= self._noted
        elif self.journal is None or self.journal.path != journal.path:
            self._noted = Counter()
        self.journal = journal
        self.write_journal()

    def write_journal(self) -> None:
        """Note on the disk, before anything of a round leaves, what it has spent.

        It is added to what stands there: who else has spent there, before this run, has done so for
        the same samples.
        """
        if self.journal is None:
            return
        spent = self._read(self.journal.read()) if self.journal.exists() else Counter[Release]()
        # Never below what is known here, should somebody have removed the file.
        self.ledger.spent |= spent + (self.ledger.spent - self._noted)
        self._noted = self.ledger.spent.copy()
        self.journal.write(self.state())

    def _read(self, state: Mapping[str, Any]) -> "Counter[Release]":
        """Return the releases of a state; a seeded stream goes on after its draws."""
        kept = PrivacyLedger(self.ledger.accountant)
        kept.load_state(state["ledger"])
        source = self.mechanism.source
        source.draws = max(source.draws, int(state["draws"]))
        return kept.spent

    def plan(self, num_samples: int | None = None) -> RoundPlan:
        """Return the releases of a round.

        Args:
            num_samples: The party's; by default of the data it has.

        Raises:
            PrivacyError: No noise is enough for ``target_epsilon``.
        """
        config = self.party.config
        n = self.party.num_samples() if num_samples is None else num_samples
        share = getattr(config, "moments_share", 0.0)

        def plan_for(z: float) -> RoundPlan:
            if config.privacy == "user":
                return user_level_plan(z, share)
            single = config.user_type == "local_gradient"
            steps = 1 if single else num_batches(n, config.batch_size, config.local_epochs)
            return record_level_plan(z, sampling_probability(n, config.batch_size), steps, share)

        if config.noise_multiplier is not None:
            return plan_for(config.noise_multiplier)
        target = (config.target_epsilon, config.delta, config.planned_rounds, config.accountant)
        key = (*target, config.privacy, n, config.batch_size, config.local_epochs, share)
        if key not in self._found:
            self._found[key] = find_noise_multiplier(lambda z: plan_for(z).costs(), *target)
        return plan_for(self._found[key])

    def begin_round(self) -> None:
        """Hand the user its protection, if the budget allows another round.

        Raises:
            PrivacyError: It does not; nothing has been drawn, trained or charged.
        """
        config, user, plan = self.party.config, self.party.user_type.user, self.plan()
        if config.budget is not None:
            after = self.ledger.epsilon(config.delta, plan.costs())
            if after > config.budget:
                raise PrivacyError(
                    f"Expected a further round to stay within the budget of epsilon = "
                    f"{config.budget:g} at delta = {config.delta:g}, got {self.epsilon():.4g} "
                    f"spent and {after:.4g} after it. The party keeps its state; stop here, or "
                    "resume from a checkpoint with a larger `max_epsilon`."
                )
        z = plan.update.noise_multiplier
        if config.privacy == "user":
            user.update_privacy = UserLevelPrivacy(
                *(config.clip_norm, z, self.mechanism, self.silence)
            )
            return
        n = self.party.num_samples()
        known = user.record_privacy
        private = RecordLevelPrivacy(
            *(user.model, config.clip_norm, z, n, config.batch_size, self.mechanism, self.silence)
        )
        if known is not None and known.clipper.clip_norm == config.clip_norm:
            private.clipper = known.clipper  # it has learnt how to vectorise this model
        user.record_privacy = private

    def batches(self, steps: int) -> Iterator[npt.NDArray[np.int64]]:
        """Draw the Poisson samples of ``steps`` steps, as positions in the party's data."""
        n = self.party.num_samples()
        q = sampling_probability(n, self.party.config.batch_size)
        return poisson_batches(n, q, steps, self.mechanism.source)

    def weight(self) -> int:
        """Return the party's weight in the mean: no function of what is protected.

        User level: the number of its users in a round. Record level: its number of samples, which
        counts as known; for a gradient, the expected number in a batch.
        """
        config, n = self.party.config, self.party.num_samples()
        if config.privacy == "user":
            if config.user_type != "multiuser_aggregate":
                return 1
            return int(config.users_per_round or config.num_virtual_users)
        return int(min(config.batch_size, n) if config.user_type == "local_gradient" else n)

    def epsilon(self) -> float:
        """Return epsilon at ``delta`` of all that the party has released."""
        return self.ledger.epsilon(self.party.config.delta)

    def rounds_left(self, num_samples: int) -> int | None:
        """Return how many rounds the budget allows, None without one."""
        config = self.party.config
        if config.budget is None:
            return None
        costs = self.plan(num_samples).costs()
        return self.ledger.rounds_left(costs, config.budget, config.delta)
