"""Differential privacy: clipping, noise, accounting; nothing here knows a party or a server."""

from orchestra_strategy.privacy.accounting import (
    PrivacyLedger,
    Release,
    epsilon_of,
    find_noise_multiplier,
)
from orchestra_strategy.privacy.local_privacy import LocalPrivacy, add_noise, draw_noise
from orchestra_strategy.privacy.mechanism import GaussianMechanism
from orchestra_strategy.privacy.noise_source import NoiseSource
from orchestra_strategy.privacy.per_example.clipper import (
    PerExampleClipper,
    per_example_clipped_mean,
)
from orchestra_strategy.privacy.private_moments import privatise_moments
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
