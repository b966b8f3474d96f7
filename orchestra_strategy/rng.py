"""Randomness as an argument: generators derived from (seed or secret, party, round, purpose).

Nothing in this package draws from a global generator, so that two parties never share a stream
by accident (the host seeds every worker's global generator alike), and so that the numbers of a
round do not depend on what ran before it in the same process. What a network draws inside, which
takes no generator, is in :mod:`orchestra_strategy.global_randomness`.
"""

import hashlib
import os
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch

from orchestra_strategy.errors import ParameterError

__all__ = [
    "DEFAULT_SEED",
    "SecretStreams",
    "SeededStreams",
    "Streams",
    "as_streams",
    "derive_seed",
    "numpy_generator",
    "torch_generator",
]

SECRET_BYTES = 32

DEFAULT_SEED = 42
"""The root seed where none is given: the same at all parties, which start from the same model."""

# Where torch keeps the 624 words of its Mersenne Twister in a generator's state, 8 bytes for each.
_TORCH_WORDS = slice(24, 24 + 8 * 624)


def derive_seed(seed: int, party: str, round_index: int, purpose: str) -> int:
    """Hash the four coordinates of a stream into a 63-bit seed.

    Args:
        seed: The experiment's root seed.
        party: Who draws, e.g. ``"alice"`` or ``"server"``.
        round_index: The federated round, from 0.
        purpose: What is drawn, e.g. ``"views"``; streams of different purposes are independent.

    Returns:
        An integer in ``[0, 2**63)``; equal coordinates give equal seeds on every machine.

    >>> derive_seed(1, "alice", 0, "views") == derive_seed(1, "alice", 0, "views")
    True
    >>> derive_seed(1, "alice", 0, "views") == derive_seed(1, "bob", 0, "views")
    False
    """
    # repr() quotes the strings, so ("a", 11) and ("a1", 1) cannot collide.
    key = repr((int(seed), str(party), int(round_index), str(purpose))).encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 1


def torch_generator(
    seed: int, party: str, round_index: int, purpose: str, device: "torch.device | str" = "cpu"
) -> torch.Generator:
    """Return a torch generator for one stream; see :func:`derive_seed`."""
    generator = torch.Generator(device=device)
    generator.manual_seed(derive_seed(seed, party, round_index, purpose))
    return generator


def numpy_generator(seed: int, party: str, round_index: int, purpose: str) -> np.random.Generator:
    """Return a numpy generator for one stream; see :func:`derive_seed`."""
    return np.random.default_rng(derive_seed(seed, party, round_index, purpose))


class Streams(Protocol):
    """The random streams of one party; which stream is named, as for :func:`derive_seed`.

    Attributes:
        secret: Whether nobody else can repeat them.
    """

    @property
    def secret(self) -> bool:
        """Whether nobody else can repeat the streams."""

    def for_torch(
        self, who: str, round_index: int, purpose: str, device: "torch.device | str" = "cpu"
    ) -> torch.Generator:
        """Return a torch generator for one stream, where possible on ``device``."""

    def for_numpy(self, who: str, round_index: int, purpose: str) -> np.random.Generator:
        """Return a numpy generator for one stream."""

    def child(self, who: str, round_index: int, purpose: str) -> "Streams":
        """Return streams of their own for one purpose, such as those of a party's users."""

    def state(self) -> str | None:
        """Return what a checkpoint has to keep of them; None where a seed is all there is."""


@dataclass(frozen=True)
class SeededStreams:
    """Streams that follow from a seed: whoever knows it can repeat them all.

    For simulations and tests, whose results are to be the same each time. They protect nothing.

    >>> one, two = (SeededStreams(7).for_torch("alice", 0, "views") for _ in range(2))
    >>> torch.equal(torch.rand(3, generator=one), torch.rand(3, generator=two))
    True
    """

    seed: int
    secret: ClassVar[bool] = False

    def for_torch(
        self, who: str, round_index: int, purpose: str, device: "torch.device | str" = "cpu"
    ) -> torch.Generator:
        """Return a generator on ``device``; see :func:`torch_generator`."""
        return torch_generator(self.seed, who, round_index, purpose, device)

    def for_numpy(self, who: str, round_index: int, purpose: str) -> np.random.Generator:
        """Return a generator; see :func:`numpy_generator`."""
        return numpy_generator(self.seed, who, round_index, purpose)

    def child(self, who: str, round_index: int, purpose: str) -> "SeededStreams":
        """Return the streams of a derived seed."""
        return SeededStreams(derive_seed(self.seed, who, round_index, purpose))

    def state(self) -> None:
        """Return None: the seed is in the configuration."""


class SecretStreams:
    """Streams that follow from a secret of 256 bits, which never leaves its party.

    Each stream's generator is filled from the secret by SHAKE-256 in its full width: 19,937 bits of
    a Mersenne Twister for torch, whose seeding takes 32 bits on a CPU, which could be tried one by
    one; 255 of a PCG64 for numpy. Neither of the two is cryptographic: whoever has seen enough of
    one stream's own numbers can go on with that stream. No other stream follows from it, nor does
    the secret. Noise of differential privacy and its samples are not drawn here, see
    :mod:`orchestra_strategy.privacy.noise_source`.

    Args:
        key: The secret, 32 bytes; by default a fresh one from the operating system.

    Raises:
        ParameterError: It has another length.
    """

    secret: ClassVar[bool] = True

    def __init__(self, key: bytes | None = None) -> None:
        self._key = os.urandom(SECRET_BYTES) if key is None else key
        if len(self._key) != SECRET_BYTES:
            raise ParameterError(
                f"Expected `key` to have {SECRET_BYTES} bytes, got {len(self._key)}."
            )

    def __repr__(self) -> str:  # a log must not have the key
        return "SecretStreams(...)"

    def for_torch(
        self, who: str, round_index: int, purpose: str, device: "torch.device | str" = "cpu"
    ) -> torch.Generator:
        """Return a generator on the CPU: a GPU's takes no more than 64 bits."""
        words = np.frombuffer(self._bytes("torch", who, round_index, purpose, 4 * 624), "<u4")
        generator = torch.Generator()
        generator.manual_seed(0)  # for the rest of the state: nothing drawn so far
        state = generator.get_state()
        state[_TORCH_WORDS] = torch.from_numpy(words.astype(np.uint64).view(np.uint8))
        return generator.set_state(state)

    def for_numpy(self, who: str, round_index: int, purpose: str) -> np.random.Generator:
        """Return a generator."""
        drawn = self._bytes("numpy", who, round_index, purpose, 32)
        state, increment = (int.from_bytes(part, "big") for part in (drawn[:16], drawn[16:]))
        bits = np.random.PCG64()
        bits.state = {
            "bit_generator": "PCG64",
            "state": {"state": state, "inc": increment | 1},
            "has_uint32": 0,
            "uinteger": 0,
        }
        return np.random.Generator(bits)

    def child(self, who: str, round_index: int, purpose: str) -> "SecretStreams":
        """Return the streams of a derived secret."""
        return SecretStreams(self._bytes("child", who, round_index, purpose, SECRET_BYTES))

    def state(self) -> str:
        """Return the secret in hexadecimal digits, for the party's own checkpoint."""
        return self._key.hex()

    def load_state(self, state: str) -> None:
        """Take the secret of :meth:`state`; streams that are made from now on follow from it."""
        self._key = bytes.fromhex(state)

    def _bytes(self, kind: str, who: str, round_index: int, purpose: str, count: int) -> bytes:
        # The key has a fixed length and repr() quotes the strings, so no two inputs are alike.
        name = repr((kind, str(who), int(round_index), str(purpose))).encode()
        return hashlib.shake_256(self._key + name).digest(count)


def as_streams(seed: "int | Streams") -> Streams:
    """Return the streams of a seed; streams are returned as they are."""
    return SeededStreams(int(seed)) if isinstance(seed, int | np.integer) else seed
