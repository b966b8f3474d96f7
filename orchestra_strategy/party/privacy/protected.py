"""The base of protected units: plan of a round, budget, ledger, journal, silence."""

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any, ClassVar

from torch import nn

from orchestra_strategy.algorithms.moments import Moments
from orchestra_strategy.algorithms.objective import Batch
from orchestra_strategy.data.augmentation.view_set import Views
from orchestra_strategy.data.augmentation.views import build_row_wise_views
from orchestra_strategy.errors import PrivacyError
from orchestra_strategy.exchange.manifest import Entry
from orchestra_strategy.party.privacy.no_privacy import NoPrivacy
from orchestra_strategy.party.privacy.refusals import (
    refuse_running_statistics,
    refuse_telling,
    refuse_undeclared,
    refuse_unprotected,
)
from orchestra_strategy.party.privacy.rehearsal import rehearse
from orchestra_strategy.party.roles import Party
from orchestra_strategy.privacy.accounting import PrivacyLedger, Release, find_noise_multiplier
from orchestra_strategy.privacy.journal import PrivacyJournal
from orchestra_strategy.privacy.mechanism import GaussianMechanism
from orchestra_strategy.privacy.noise_source import NoiseSource
from orchestra_strategy.privacy.plan import RoundPlan
from orchestra_strategy.privacy.silence import Silence
from orchestra_strategy.rng import SecretStreams, SeededStreams, Streams

__all__ = ["EPSILON", "SNR", "ProtectedUnit"]

_log = logging.getLogger(__name__)

EPSILON = "privacy_epsilon"
"""Under which a party's epsilon so far is logged."""

SNR = "privacy_snr"
"""Under which the norm of a round's mean update over that of the noise on it is logged."""


class ProtectedUnit(NoPrivacy, ABC):
    """A party whose releases carry noise, over all its rounds; who adds it also writes the ledger.

    Args:
        party: The strategy.

    Attributes:
        ledger: All that the party has released.
        journal: Where that is written in every round, if checkpoints are on.
        silence: Keeps errors of the local work from showing; it counts them, for the party itself.
        rehearsed: For which samples and parameters the rehearsal has been held; None never holds
            one.
    """

    protected: ClassVar[bool] = True
    norm_advice: ClassVar[str]
    """The ``norm`` of :func:`~orchestra_strategy.orchestra_model` that the unit allows."""

    silence: Silence

    def __init__(self, party: Party) -> None:
        super().__init__(party)
        self.ledger = PrivacyLedger(party.config.accountant)
        self.journal: PrivacyJournal | None = None
        self._mechanism: GaussianMechanism | None = None
        self._noted: Counter[Release] = Counter()  # of the ledger, what the journal has
        self.silence = Silence()
        self._found: dict[Any, float] = {}
        self.rehearsed: Any = ()

    # ---- What each unit says for itself --------------------------------------------------------

    @abstractmethod
    def num_units(self) -> int:
        """Return how many units there are behind a release, for the warning about ``delta``."""

    @abstractmethod
    def plan_with(self, noise_multiplier: float, num_samples: int, share: float) -> RoundPlan:
        """Return the releases of a round with that much noise, and a share of it for moments."""

    @abstractmethod
    def moments_of_user(self, moments: Moments, samples: int) -> Moments:
        """Return a user's moments as one unit moves them by the declared sensitivity."""

    @abstractmethod
    def least_count(self, k_min: int) -> int:
        """Return the count that a cluster needs at least, where units are counted in samples."""

    # ---- What is refused -----------------------------------------------------------------------

    @classmethod
    def check(cls, config: Any, model: nn.Module, sends: tuple[str, ...]) -> None:
        """Refuse to send anything that no noise covers.

        Raises:
            PrivacyError: ``sends`` is not empty, or ``aggregation`` needs more than weights.
            ModelError: The model has running statistics.
        """
        refuse_unprotected(config, sends)
        refuse_running_statistics(cls.name, model, cls.norm_advice)

    @classmethod
    def check_entries(cls, entries: Iterable[Entry], protected: Collection[str]) -> None:
        """Refuse what a strategy sends of its own, unless it says that it carries noise."""
        refuse_undeclared(cls.name, entries, protected)

    @classmethod
    def check_telling(cls, config: Any) -> None:
        """Refuse ``evaluate``, unless ``log_unprotected`` is on."""
        refuse_telling(config)

    @classmethod
    def build_views(cls, name: str, options: Mapping[str, Any]) -> Views:
        """Return the views in their row-wise form."""
        return build_row_wise_views(name, **options)

    # ---- A round -------------------------------------------------------------------------------

    def own_streams(self) -> Streams:
        """Return streams of a fresh secret, or of ``noise_seed``."""
        seed = self.party.config.noise_seed
        return SecretStreams() if seed is None else SeededStreams(seed)

    def rehearse(self) -> None:
        """Go through a round in advance on made-up samples, where errors still show."""
        if self.rehearsed is None or not self.party.num_samples():
            return
        samples = self.party.require_data().samples
        wanted = samples.shape[1:], samples.dtype, self.party.config
        if self.rehearsed != wanted:
            rehearse(self.party)
            self.rehearsed = wanted

    def begin_round(self) -> None:
        """Hand the user its protection, if the budget allows another round.

        Raises:
            PrivacyError: It does not; nothing has been drawn, trained or charged.
        """
        config = self.party.config
        if config.budget is not None:
            after = self.ledger.epsilon(config.delta, self.plan().costs())
            if after > config.budget:
                raise PrivacyError(
                    f"Expected a further round to stay within the budget of epsilon = "
                    f"{config.budget:g} at delta = {config.delta:g}, got {self.epsilon():.4g} "
                    f"spent and {after:.4g} after it. The party keeps its state; stop here, or "
                    "resume from a checkpoint with a larger `max_epsilon`."
                )
        self.protect(self.party.user_type.user)

    def rows_of_step(self, batch: Batch) -> int:
        """Return 0: how far a protected party gets may depend on its data."""
        return 0

    def rows_of_round(self) -> int:
        """Return the rows of a round as they are expected of the sizes alone."""
        return self.party.user_type.rows_per_round()

    def end_round(self) -> dict[str, float]:
        """Write the journal, before anything of the round leaves; return epsilon."""
        epsilon = self.epsilon()
        self.write_journal()
        return {EPSILON: epsilon}

    # ---- Noise and its price -------------------------------------------------------------------

    @property
    def mechanism(self) -> GaussianMechanism:
        """What draws the party's noise: one stream, which goes on from fit to fit."""
        if self._mechanism is None:
            config = self.party.config
            units = self.num_units()
            if units > 1 and config.delta * units >= 1:
                _log.warning(
                    "`delta` is %g, not below 1 / %d: with so many units, a mechanism that shows "
                    "one of them would pass.",
                    config.delta,
                    units,
                )
            source = NoiseSource(config.noise_seed, self.party.party)
            self._mechanism = self.make_mechanism(source)
        return self._mechanism

    def make_mechanism(self, source: NoiseSource) -> GaussianMechanism:
        """Return what adds all of the noise."""
        return GaussianMechanism(self.ledger, source)

    def replace_mechanism(self, mechanism: GaussianMechanism) -> None:
        """Let another mechanism add the noise from now on."""
        self._mechanism = mechanism

    def state(self) -> dict[str, Any]:
        """Return what stays at the party, as plain types.

        The ledger, how often noise has been drawn, and how often local work has failed and counted
        as zero: of that the party's own people can learn here, and nobody else.
        """
        return self._spent()

    def _spent(self) -> dict[str, Any]:
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
        assumed = self.assumption()
        told = self._spent() | ({} if assumed is None else {"assumes": assumed})
        self.journal.write(told)

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
        if config.noise_multiplier is not None:
            return self.plan_with(config.noise_multiplier, n, share)
        target = (config.target_epsilon, config.delta, config.planned_rounds, config.accountant)
        key = (*target, n, config.batch_size, config.local_epochs, share)
        if key not in self._found:
            self._found[key] = find_noise_multiplier(
                lambda z: self.plan_with(z, n, share).costs(), *target
            )
        return self.plan_with(self._found[key], n, share)

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

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The name of epsilon."""
        return (EPSILON,)

    @property
    def tells_all(self) -> bool:
        """Whether the party's owner wants losses and health logged nevertheless."""
        return bool(self.party.config.log_unprotected)

    def assumption(self) -> str | None:
        """Return under which condition epsilon holds; None without any."""
        return None

    def spent(self) -> dict[str, Any]:
        """Return epsilon at delta of all that the party has released, and what it assumes."""
        told = {"epsilon": self.epsilon(), "delta": self.party.config.delta}
        assumed = self.assumption()
        return told if assumed is None else {**told, "epsilon_assumes": assumed}
