"""Local privacy: per-example clipping, and noise from explicit generators."""

from orchestra_strategy.privacy.clipping import PerExampleClipper, per_example_clipped_mean
from orchestra_strategy.privacy.local import LocalPrivacy
from orchestra_strategy.privacy.noise import add_noise, draw_noise

__all__ = [
    "LocalPrivacy",
    "PerExampleClipper",
    "add_noise",
    "draw_noise",
    "per_example_clipped_mean",
]
