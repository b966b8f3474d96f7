"""The unit ``user``: a federated user with all its data, the party or each of its virtual users."""

from typing import ClassVar

from orchestra_strategy.algorithms.moments import Moments
from orchestra_strategy.party.privacy.protected import ProtectedUnit
from orchestra_strategy.party.roles import Party
from orchestra_strategy.privacy.plan import RoundPlan, user_level_plan
from orchestra_strategy.privacy.private_moments import user_moments
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
