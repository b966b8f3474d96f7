"""The unit ``user``: a federated user with all its data, the party or each of its virtual users."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from orchestra_strategy.algorithms.moments import Moments
from orchestra_strategy.exchange.payload import FloatArray, Payload
from orchestra_strategy.exchange.weights import GRADIENT_PREFIX, PREFIX
from orchestra_strategy.party.privacy.protected import SNR, ProtectedUnit
from orchestra_strategy.party.roles import Party
from orchestra_strategy.privacy.plan import RoundPlan, user_level_plan
from orchestra_strategy.privacy.private_moments import user_moments
from orchestra_strategy.privacy.signal import estimated_snr, noise_parts
from orchestra_strategy.privacy.user_level import UserLevelPrivacy
from orchestra_strategy.users import UserSingleStep

__all__ = ["UserLevel"]


class UserLevel(ProtectedUnit):
    """Each user's whole update is clipped, and noise added to their mean."""

    name: ClassVar[str] = "user"
    user_weights: ClassVar[str] = "uniform"  # users of another weight would need more noise
    # All samples of a batch belong to the one who is protected, so that they may meet.
    norm_advice: ClassVar[str] = "group+batch"

    def __init__(self, party: Party) -> None:
        super().__init__(party)
        self.silence_of_user = self.silence

    def protect(self, user: UserSingleStep) -> None:
        """Let the user clip and noise what it shares."""
        user.update_privacy = UserLevelPrivacy(
            self.party.config.clip_norm,
            self.plan().update.noise_multiplier,
            self.mechanism,
            self.silence,
        )

    def weight(self, samples: int) -> int:
        """Return the number of the party's users in a round: nobody's data move it."""
        return self.party.user_type.users_per_round()

    def num_units(self) -> int:
        """Return the number of users in a round."""
        return self.party.user_type.users_per_round()

    def plan_with(self, noise_multiplier: float, num_samples: int, share: float) -> RoundPlan:
        """Return the releases of a round: one update, and moments beside it."""
        return user_level_plan(noise_multiplier, share)

    def moments_of_user(self, moments: Moments, samples: int) -> Moments:
        """Return the moments of a user that counts as one, however many samples it has."""
        return user_moments(moments, samples)

    def least_count(self, k_min: int) -> int:
        """Return 0: clusters are counted in users, and not in samples."""
        return 0

    # ---- Signal and noise ----------------------------------------------------------------------

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names of epsilon and, where parties are averaged plainly, of signal over noise."""
        config = self.party.config
        plain = config.aggregation == "mean" and self.party.own_aggregation() is None
        counted = config.route == "server" or config.parties is not None
        return (*super().metric_names, *((SNR,) if plain and counted else ()))

    def end_exchange(self, reply: Payload, before: Mapping[str, FloatArray]) -> dict[str, float]:
        """Return signal over noise of the round's mean, as the mean itself shows it."""
        if reply.phase != "round" or SNR not in self.metric_names:
            return {}
        own = self.weight(0)
        parties = self.party.config.parties or reply.num_samples // own
        # A server counts the users; who was left out has added no noise.
        parties = reply.num_samples // own or self.party.config.parties
        moved = [_moved(name, reply, before) for name in self._trained_names()]
        std = self.noise_std(parties) / (parties * own)
        squared = sum(float(np.square(m, dtype=np.float64).sum()) for m in moved)
        return {SNR: estimated_snr(squared, sum(m.size for m in moved), std)}

    def parts_of(self, parties: int) -> float:
        """Return the variance of the noise on the sum of all parties, see ``noise_parts``."""
        return noise_parts(parties)

    def noise_std(self, parties: int) -> float:
        """Return the standard deviation of the noise on the sum of all parties' updates."""
        z = self.plan().update.noise_multiplier
        return float(z * self.party.config.clip_norm * np.sqrt(self.parts_of(parties)))

    def _trained_names(self) -> list[str]:
        return [n for n, p in self.party.model.named_parameters() if p.requires_grad]


def _moved(name: str, reply: Payload, before: Mapping[str, FloatArray]) -> FloatArray:
    """Return a mean gradient, or by how much an averaged weight has moved."""
    if GRADIENT_PREFIX + name in reply.arrays:
        return reply.arrays[GRADIENT_PREFIX + name]
    moved: FloatArray = reply.arrays[PREFIX + name] - before[PREFIX + name]
    return moved
