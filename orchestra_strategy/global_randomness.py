"""The global generators of torch, numpy and Python, lent to a network for the length of a block.

Dropout, stochastic depth and the like take no generator: they draw from torch's global one, which
belongs to whoever called us. So while a network works, that one gives a stream of our own (see
:mod:`orchestra_strategy.rng`), and afterwards it is where it was.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from orchestra_strategy.rng import SeededStreams, Streams

__all__ = ["drawing_from", "first_weights_of"]


@contextmanager
def drawing_from(
    streams: Streams,
    who: str,
    round_index: int,
    purpose: str,
    device: "torch.device | str" = "cpu",
) -> Iterator[None]:
    """Let the global generators give one stream, and put them back afterwards, also after an error.

    Args:
        streams: The stream is one of these, named by the next three as for
            :func:`~orchestra_strategy.rng.derive_seed`.
        who: See there.
        round_index: See there.
        purpose: See there.
        device: Where the network is; the generator of a GPU is lent, too.

    >>> def draw():
    ...     with drawing_from(SeededStreams(7), "alice", 1, "network"):
    ...         return torch.rand(2)
    >>> before = torch.get_rng_state()
    >>> torch.equal(draw(), draw()), torch.equal(before, torch.get_rng_state())
    (True, True)
    """
    with _given_back(torch.device(device)) as gpu:
        torch.set_rng_state(streams.for_torch(who, round_index, purpose).get_state())
        others = streams.for_numpy(who, round_index, purpose)
        np.random.seed(others.integers(2**32, size=8, dtype=np.uint32))
        random.seed(others.bytes(32))
        if gpu is not None:  # which takes 64 bits, no more
            gpu.manual_seed(int(others.integers(2**63)))
        yield


@contextmanager
def first_weights_of(seed: int) -> Iterator[None]:
    """Let a network be built inside by a seed, the same at all parties; see :func:`drawing_from`.

    >>> def built():
    ...     with first_weights_of(3):
    ...         return torch.nn.Linear(2, 2).weight
    >>> torch.equal(built(), built())
    True
    """
    with torch.random.fork_rng(), _given_back(torch.device("cpu")):
        torch.manual_seed(seed)  # on all devices: a network may be built on a GPU
        others = SeededStreams(seed).for_numpy("everybody", 0, "first weights")
        np.random.seed(others.integers(2**32, size=8, dtype=np.uint32))
        random.seed(others.bytes(32))
        yield


@contextmanager
def _given_back(device: torch.device) -> Iterator["torch.Generator | None"]:
    """Put all generators back; gives that of the GPU, if the device is one."""
    gpu = _generator_of(device)
    of_gpu = None if gpu is None else gpu.get_state()
    of_torch, of_numpy, of_python = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield gpu
    finally:
        torch.set_rng_state(of_torch)
        np.random.set_state(of_numpy)
        random.setstate(of_python)
        if gpu is not None and of_gpu is not None:
            gpu.set_state(of_gpu)


def _generator_of(device: torch.device) -> "torch.Generator | None":
    if device.type != "cuda":
        return None
    torch.empty(0, device=device)  # a GPU has no generator before it is used
    index = torch.cuda.current_device() if device.index is None else device.index
    generator: torch.Generator = torch.cuda.default_generators[index]
    return generator
