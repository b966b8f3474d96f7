"""Means over parties, as FLModel's history takes them, without TensorFlow.

SecretFlow's own makes a Keras metric for each number of each round, which takes milliseconds.
"""

from typing import Any

import numpy as np

from orchestra_strategy import host

__all__ = ["PartyMean"]


class _Number(np.float32):
    """A number that can be asked for itself, as those of TensorFlow can."""

    def numpy(self) -> np.float32:
        """Return it."""
        return np.float32(self)


class PartyMean(host.Mean):  # type: ignore[misc]
    """SecretFlow's ``Mean`` (``name``, ``total``, ``count``) with the same result, bit for bit."""

    def __radd__(self, other: Any) -> "PartyMean":
        assert other == 0
        return PartyMean(self.name, self.total, self.count)

    def __add__(self, other: Any) -> "PartyMean":
        assert self.name == other.name
        return PartyMean(self.name, self.total + other.total, self.count + other.count)

    def result(self) -> np.float32:
        """Return the total by the count in float32; 0 where there is no count."""
        total, count = np.float32(self.total), np.float32(self.count)
        return _Number(total / count if count else 0)
