"""Privacy: per-example clipping, noise, and differential privacy with its accounting."""

from orchestra_strategy.privacy.accounting import (
    PrivacyLedger,
    Release,
    epsilon_of,
    find_noise_multiplier,
)
from orchestra_strategy.privacy.clipping import PerExampleClipper, per_example_clipped_mean
from orchestra_strategy.privacy.crypto_noise import NoiseSource
from orchestra_strategy.privacy.local import LocalPrivacy
from orchestra_strategy.privacy.mechanism import GaussianMechanism
from orchestra_strategy.privacy.moments import privatise_moments
from orchestra_strategy.privacy.noise import add_noise, draw_noise
from orchestra_strategy.privacy.record_level import RecordLevelPrivacy
from orchestra_strategy.privacy.user_level import UserLevelPrivacy, clip_update

__all__ = [
    "GaussianMechanism",
    "LocalPrivacy",
    "NoiseSource",
    "PerExampleClipper",
    "PrivacyLedger",
    "RecordLevelPrivacy",
    "Release",
    "UserLevelPrivacy",
    "add_noise",
    "clip_update",
    "draw_noise",
    "epsilon_of",
    "find_noise_multiplier",
    "per_example_clipped_mean",
    "privatise_moments",
]
