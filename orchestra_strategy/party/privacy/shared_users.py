"""The unit ``user`` with shared noise: parties' sums travel, and their total carries it once."""

import logging
from typing import Any

import numpy as np
from torch import nn

from orchestra_strategy.errors import PrivacyError
from orchestra_strategy.exchange.manifest import Entry
from orchestra_strategy.exchange.payload import FloatArray, Payload
from orchestra_strategy.party.privacy.protected_users import HALF, UserLevel
from orchestra_strategy.privacy.mechanism import GaussianMechanism
from orchestra_strategy.privacy.noise_source import NoiseSource
from orchestra_strategy.privacy.shared_noise import (
    STEPS,
    Grid,
    NoiseShare,
    SharedGaussianMechanism,
)
from orchestra_strategy.privacy.signal import noise_parts

__all__ = ["SUM_PREFIX", "SharedUserLevel"]

_log = logging.getLogger(__name__)

SUM_PREFIX = "sums/"
_FEWEST = 3


class SharedUserLevel(UserLevel):
    """Each party adds a part of the noise to the sum of its users' updates, and sends that sum.

    A party's own noisy update carries less noise than is promised. So it never enters the party's
    model: the weights move when the mean of all parties comes back.
    """

    # ---- What is refused -----------------------------------------------------------------------

    @classmethod
    def check(cls, config: Any, model: nn.Module, sends: tuple[str, ...]) -> None:
        """Refuse, beside what user level does, a route on which a party's payload is seen.

        Raises:
            PrivacyError: The route is not ``secure``.
        """
        super().check(config, model, sends)
        if config.route != "secure":
            raise PrivacyError(
                "Expected route 'secure' with `noise='shared'`, got 'server', which sees what each "
                "party sends with less noise than is promised; give an `aggregator`, or use "
                "`noise='local'`."
            )

    @classmethod
    def check_sharing(
        cls, config: Any, parties: int | None, ring_parties: int | None, ring_limit: float | None
    ) -> None:
        """Refuse too few parties, and aggregators that see single sums or have no room for them.

        Raises:
            PrivacyError: Naming the rule.
        """
        if parties is None or ring_parties is None:
            raise PrivacyError(
                "Expected to know the number of parties with `noise='shared'`, got none: build "
                "the training with OrchestraFLModel or FederatedOrchestraTrainer."
            )
        if parties < _FEWEST:
            raise PrivacyError(
                f"Expected three parties or more with `noise='shared'`, got {parties}: each of two "
                "could take its own part off the sum; use `noise='local'`."
            )
        if config.max_colluding >= parties:
            raise PrivacyError(
                f"Expected `max_colluding` to be below the number of parties, got "
                f"{config.max_colluding} of {parties}: nobody would be left to be protected."
            )
        if ring_parties == 0:
            raise PrivacyError(
                "Expected an aggregator that sees no single sum with `noise='shared'`, got one "
                "that does; use SPUAggregator or SecureAggregator."
            )
        if ring_limit is not None and ring_limit < STEPS * parties:
            raise PrivacyError(
                f"Expected room for sums of {STEPS * parties:,} with `noise='shared'`, got "
                f"{ring_limit:,.0f}; use an SPU of field FM128."
            )

    def __init__(self, party: Any) -> None:
        super().__init__(party)
        config = party.config
        self.check_sharing(config, config.parties, config.ring_parties, config.ring_limit)

    # ---- Noise and its price -------------------------------------------------------------------

    @property
    def share(self) -> NoiseShare:
        """How the noise is shared out."""
        config = self.party.config
        return NoiseShare(config.parties, config.max_colluding, self.num_units())

    def make_mechanism(self, source: NoiseSource) -> GaussianMechanism:
        """Return what adds this party's part."""
        discrete = self.party.config.noise_sampler == "discrete"
        return SharedGaussianMechanism(self.ledger, source, self.share, discrete)

    def weight(self, samples: int) -> int:
        """Return 1: sums are added up, and each party hosts as many users."""
        return 1

    def parts_of(self, parties: int) -> float:
        """Return the variance of all parts together, see ``noise_parts``."""
        return noise_parts(parties, self.party.config.max_colluding)

    def noise_std(self, parties: int) -> float:
        """Return the standard deviation of all parts together."""
        return float(self.grid().std * np.sqrt(parties))

    def assumption(self) -> str | None:
        """Return under which condition epsilon holds."""
        return self.share.in_words()

    def grid(self) -> Grid:
        """Return the grid of the updates, the same at every party."""
        names = set(self.trained_names())
        d = sum(p.numel() for n, p in self.party.model.named_parameters() if n in names)
        return self.share.grid(d, self.clip_norm, self.plan().update.noise_multiplier)

    # ---- What travels --------------------------------------------------------------------------

    def take_update(self, model: nn.Module, update: Any) -> None:
        """Leave the model as it is: the update alone carries too little noise."""

    def outgoing_entries(self, entries: tuple[Entry, ...], trained: bool) -> tuple[Entry, ...]:
        """Return the entries with sums of users' updates in place of weights or gradients."""
        if not trained:
            return entries
        shapes = {n: tuple(p.shape) for n, p in self.party.model.named_parameters()}
        meaning = (
            "sum of the clipped updates of the party's users and its part of the noise, in steps "
            f"of a grid; epsilon holds while {self.share.in_words()}"
        )
        sums = tuple(
            Entry(SUM_PREFIX + name, shapes[name], "float32", "weighted mean", "server", meaning)
            for name in self.trained_names()
        )
        return super().outgoing_entries(sums, trained)

    def outgoing(self, arrays: dict[str, FloatArray], trained: bool) -> dict[str, FloatArray]:
        """Return the sums of the last round, in steps of the grid."""
        if not trained:
            return arrays
        released, step = self.party.user_type.user.update_privacy.released, self.grid().step
        sums = {
            SUM_PREFIX + name: (total / step).float().numpy()
            for name, total in zip(self.trained_names(), released, strict=True)
        }
        return super().outgoing(sums, trained)

    def count_unit(self) -> float:
        """Return a step of the grid of the count, which is summed up exactly, too."""
        count = self.plan().within
        assert count is not None
        return self.share.grid(1, HALF, count.noise_multiplier).step

    def incoming(self, reply: Payload) -> dict[str, FloatArray]:
        """Return weights or gradients that follow from the parties' mean sum."""
        arrays = dict(reply.arrays)
        if reply.phase != "round":
            return arrays
        factor = self.grid().step / self.num_units()  # K sums of as many users each, over K
        moved = {
            name: (arrays.pop(SUM_PREFIX + name).astype(np.float64) * factor).astype(np.float32)
            for name in self.trained_names()
        }
        return arrays | self.moved_by(moved)
