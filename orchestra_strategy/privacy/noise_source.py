"""Gaussian noise and secret samples from a cryptographic generator.

A privacy guarantee holds against whoever cannot predict the noise. Seeded generators do not give
that: the experiment's seed is known to every party and to the server, and a Mersenne Twister can be
read off its own output. Here every draw has a key of 256 bits of its own from the operating system
(``os.urandom``), stretched by ChaCha20 (RFC 8439) and turned into normal deviates by the
Box-Muller transform.

What this protects from: an observer who knows all seeds, or all noise of other draws.
What it does not protect from: an attacker who uses that floating-point numbers are a grid (I.
Mironov, "On Significance of the Least Significant Bits for Differential Privacy", CCS 2012,
https://doi.org/10.1145/2382196.2382264). Noise is drawn and added in float64 and the sum rounded to
float32, which hides the 29 lowest bits; that is no proof. Uniform draws have 53 bits, so deviates
end at 8.6 standard deviations, beyond which a normal one lies with a probability of 1e-17. Nor does
it hide how long a computation takes.
"""

import hashlib
import os

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

__all__ = ["NoiseSource"]


class NoiseSource:
    """A stream of secret randomness, one for each party.

    Args:
        seed: None takes a fresh key from the operating system for every draw. A number makes the
            draws repeat, for tests alone: whoever knows it can take the noise off again.
        name: The party; seeded streams of different names are independent.

    >>> NoiseSource(seed=1, name="alice").normal(2).round(3).tolist()
    [-0.01, 1.599]
    """

    def __init__(self, seed: int | None = None, name: str = "") -> None:
        self.seed = seed
        self.name = name
        self.draws = 0

    def normal(self, size: int) -> npt.NDArray[np.float64]:
        """Draw ``size`` independent standard normal deviates, shape (size,)."""
        pairs = -(-size // 2)
        u = self.uniform(2 * pairs)
        radius = np.sqrt(-2.0 * np.log1p(-u[:pairs]))  # 1 - u is in (0, 1]
        angle = 2.0 * np.pi * u[pairs:]
        both = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
        drawn: npt.NDArray[np.float64] = both[:size]
        return drawn

    def uniform(self, size: int) -> npt.NDArray[np.float64]:
        """Draw ``size`` independent numbers, uniform on the multiples of 2^-53 in [0, 1)."""
        bits = np.frombuffer(self._keystream(8 * size), dtype="<u8")
        numbers: npt.NDArray[np.float64] = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return numbers

    def _keystream(self, count: int) -> bytes:
        self.draws += 1
        if self.seed is None:
            key = os.urandom(32)
        else:
            # repr() quotes the name, so that neither part can run into the other.
            text = repr((int(self.seed), self.name, self.draws))
            key = hashlib.sha256(text.encode()).digest()
        # A key is used once, so counter and nonce may start from zero.
        cipher = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None)
        return cipher.encryptor().update(bytes(count))
