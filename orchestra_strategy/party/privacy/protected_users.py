"""The unit ``user``: a federated user with all its data, the party or each of its virtual users."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from orchestra_strategy.algorithms.moments import Moments
from orchestra_strategy.exchange.manifest import Entry
from orchestra_strategy.exchange.payload import FloatArray, Payload
from orchestra_strategy.exchange.weights import GRADIENT_PREFIX, PREFIX
from orchestra_strategy.party.privacy.protected import SNR, ProtectedUnit
from orchestra_strategy.party.roles import Party
from orchestra_strategy.privacy.discrete_noise import require_opendp
from orchestra_strategy.privacy.mechanism import GaussianMechanism
from orchestra_strategy.privacy.noise_source import NoiseSource
from orchestra_strategy.privacy.plan import RoundPlan, user_level_plan
from orchestra_strategy.privacy.private_moments import user_moments
from orchestra_strategy.privacy.shared_noise import NoiseShare, SharedGaussianMechanism
from orchestra_strategy.privacy.signal import estimated_snr, noise_parts
from orchestra_strategy.privacy.user_level import UserLevelPrivacy, next_clip
from orchestra_strategy.users import UserSingleStep

__all__ = ["CLIP", "COUNT", "HALF", "UserLevel"]

CLIP = "privacy_clip"
"""Under which the clip of a round is logged, where it adapts."""

COUNT = "counts/within"
"""The count of users below the clip, in the payload."""

HALF = 0.5
"""By how much one user moves that count."""


class UserLevel(ProtectedUnit):
    """Each user's whole update is clipped, and noise added to their mean."""

    name: ClassVar[str] = "user"
    user_weights: ClassVar[str] = "uniform"  # users of another weight would need more noise
    # All samples of a batch belong to the one who is protected, so that they may meet.
    norm_advice: ClassVar[str] = "group+batch"

    def __init__(self, party: Party) -> None:
        super().__init__(party)
        self.silence_of_user = self.silence
        self._clip_norm = float(party.config.clip_norm)
        self._within = 0.0

    @classmethod
    def check(cls, config: Any, model: nn.Module, sends: tuple[str, ...]) -> None:
        """Refuse, beside what any unit does, discrete noise without the library that draws it."""
        super().check(config, model, sends)
        if config.noise_sampler == "discrete":
            require_opendp()

    @property
    def share(self) -> NoiseShare:
        """How the noise is shared out: the party adds all of it."""
        return NoiseShare(1, 0, self.num_units())

    def make_mechanism(self, source: NoiseSource) -> GaussianMechanism:
        """Return what adds the noise."""
        if self.party.config.noise_sampler == "discrete":
            return SharedGaussianMechanism(self.ledger, source, self.share, discrete=True)
        return super().make_mechanism(source)

    def protect(self, user: UserSingleStep) -> None:
        """Let the user clip and noise what it shares."""
        user.update_privacy = UserLevelPrivacy(
            self.clip_norm,
            self.plan().update.noise_multiplier,
            self.mechanism,
            self.silence,
        )

    @property
    def clip_norm(self) -> float:
        """C, the largest L2 norm of a user's update, in the round to come."""
        return self._clip_norm

    def weight(self, samples: int) -> int:
        """Return the number of the party's users in a round: nobody's data move it."""
        return self.party.user_type.users_per_round()

    def num_units(self) -> int:
        """Return the number of users in a round."""
        return self.party.user_type.users_per_round()

    def plan_with(self, noise_multiplier: float, num_samples: int, share: float) -> RoundPlan:
        """Return the releases of a round: one update, and moments and a count beside it."""
        count = self.party.config.clip_share if self.adapts else 0.0
        return user_level_plan(noise_multiplier, share, count)

    def moments_of_user(self, moments: Moments, samples: int) -> Moments:
        """Return the moments of a user that counts as one, however many samples it has."""
        return user_moments(moments, samples)

    def least_count(self, k_min: int) -> int:
        """Return 0: clusters are counted in users, and not in samples."""
        return 0

    def moved_by(self, mean: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """Return the weights that all parties have, moved by a mean update; or the mean gradient.

        Args:
            mean: Of all parties, by the names of the trained parameters.
        """
        if self.party.user_type.user.shares == "gradient":
            return {GRADIENT_PREFIX + name: array for name, array in mean.items()}
        weights = dict(self.party.averaged_weights())
        for name, array in mean.items():
            weights[PREFIX + name] = weights[PREFIX + name] + array
        return weights

    # ---- A clip that follows the users' norms --------------------------------------------------

    @property
    def adapts(self) -> bool:
        """Whether the clip follows a quantile of the norms."""
        return self.party.config.clip_quantile is not None

    def end_round(self) -> dict[str, float]:
        """Count with noise how many users are below the clip, before the journal is written.

        A user adds 1/2 or -1/2, and one that is not there nothing, as to the sum of updates.
        """
        if not self.adapts:
            return super().end_round()
        count = self.plan().within
        assert count is not None
        within = torch.tensor([self.party.user_type.user.update_privacy.within])
        self._within = float(self.mechanism.add_noise([within.double()], HALF, count)[0])
        return {CLIP: self.clip_norm, **super().end_round()}

    def outgoing_entries(self, entries: tuple[Entry, ...], trained: bool) -> tuple[Entry, ...]:
        """Return the entries, with the count."""
        if not (trained and self.adapts):
            return entries
        meaning = "noisy share of the users whose update is no longer than the clip, less 1/2"
        return (*entries, Entry(COUNT, (1,), "float32", "weighted mean", "server", meaning))

    def outgoing(self, arrays: dict[str, FloatArray], trained: bool) -> dict[str, FloatArray]:
        """Return the arrays, with the count."""
        if not (trained and self.adapts):
            return arrays
        return {**arrays, COUNT: np.array([self._within / self.count_unit()], np.float32)}

    def count_unit(self) -> float:
        """Return what the count is divided by before it is sent."""
        return float(self.num_units())

    def follow(self, reply: Payload) -> None:
        """Move the clip by the mean count of all parties."""
        if not (self.adapts and reply.phase == "round"):
            return
        config = self.party.config
        share = float(reply.arrays[COUNT][0]) * self.count_unit() / self.num_units()
        self._clip_norm = next_clip(
            self._clip_norm, share + HALF, config.clip_quantile, config.clip_rate
        )

    def state(self) -> dict[str, Any]:
        """Return what stays at the party, and the clip."""
        return super().state() | ({"clip_norm": self._clip_norm} if self.adapts else {})

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take the state of :meth:`state`."""
        super().load_state(state)
        self._clip_norm = float(state.get("clip_norm", self._clip_norm))

    def common_state(self) -> dict[str, Any]:
        """Return the clip, which all parties have."""
        return {COUNT: np.array([self._clip_norm], np.float32)} if self.adapts else {}

    def load_common_state(self, state: Mapping[str, Any]) -> None:
        """Take the clip."""
        if self.adapts:
            self._clip_norm = float(state[COUNT][0])

    # ---- Signal and noise ----------------------------------------------------------------------

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names of epsilon and, where parties are averaged plainly, of signal over noise."""
        config = self.party.config
        plain = config.aggregation == "mean" and self.party.own_aggregation() is None
        counted = config.route == "server" or config.parties is not None
        adapted = (CLIP,) if self.adapts else ()
        return (*super().metric_names, *adapted, *((SNR,) if plain and counted else ()))

    def end_exchange(self, reply: Payload, before: Mapping[str, FloatArray]) -> dict[str, float]:
        """Return signal over noise of the round's mean, as the mean itself shows it."""
        if reply.phase != "round" or SNR not in self.metric_names:
            return {}
        own = self.num_units()
        # A server counts the users; who was left out has added no noise. A unit of one's own may
        # count less in the mean than it has users; then this party's noise is in it at least.
        parties = reply.num_samples // own or self.party.config.parties or 1
        received = self.incoming(reply)
        moved = [_moved(name, received, before) for name in self.trained_names()]
        std = self.noise_std(parties) / (parties * own)
        squared = sum(float(np.square(m, dtype=np.float64).sum()) for m in moved)
        return {SNR: estimated_snr(squared, sum(m.size for m in moved), std)}

    def parts_of(self, parties: int) -> float:
        """Return the variance of the noise on the sum of all parties, see ``noise_parts``."""
        return noise_parts(parties)

    def noise_std(self, parties: int) -> float:
        """Return the standard deviation of the noise on the sum of all parties' updates."""
        z = self.plan().update.noise_multiplier
        return float(z * self.clip_norm * np.sqrt(self.parts_of(parties)))

    def trained_names(self) -> list[str]:
        """Return the names of the parameters that are trained."""
        return [n for n, p in self.party.model.named_parameters() if p.requires_grad]


def _moved(
    name: str, received: Mapping[str, FloatArray], before: Mapping[str, FloatArray]
) -> FloatArray:
    """Return a mean gradient, or by how much an averaged weight has moved."""
    if GRADIENT_PREFIX + name in received:
        return received[GRADIENT_PREFIX + name]
    moved: FloatArray = received[PREFIX + name] - before[PREFIX + name]
    return moved
