"""Randomness as an argument: generators derived from (seed, party, round, purpose).

Nothing in this package reads or seeds a global generator, so that two parties never share a stream
by accident (the host seeds every worker's global generator alike), and so that the numbers of a
round do not depend on what ran before it in the same process.
"""

import hashlib

import numpy as np
import torch

__all__ = ["derive_seed", "numpy_generator", "torch_generator"]


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
