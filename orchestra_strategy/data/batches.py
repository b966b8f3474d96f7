"""The order in which a party walks through its samples: batches of indices, no data.

A party's order in a round depends on (seed or secret, party, round, pass) alone, so a resumed run
walks on exactly as the uninterrupted one. Every sample counts: nothing is dropped at the end of a
pass, so a small party trains too. But a last batch of a few samples would undo training under
BatchNorm: its statistics of two samples are noise (on digits the loss of a party with 322 samples
and a last batch of 2 rose from round to round), and of one sample there are none. So the last two
batches share what is left for them.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from orchestra_strategy.data.option_checks import as_count
from orchestra_strategy.rng import Streams, as_streams

__all__ = ["batch_slices", "num_batches", "round_batches"]


def num_batches(num_samples: int, batch_size: int, num_passes: int = 1) -> int:
    """Return how many batches :func:`round_batches` yields.

    Args:
        num_samples: The party's samples.
        batch_size: Samples per batch.
        num_passes: Walks through all samples in one round.

    Raises:
        ParameterError: If a number is no integer >= 1.

    >>> num_batches(num_samples=100, batch_size=32, num_passes=2)
    8
    >>> num_batches(num_samples=97, batch_size=32)
    4
    """
    return as_count("num_passes", num_passes) * len(batch_slices(num_samples, batch_size))


def batch_slices(num_samples: int, batch_size: int) -> list[slice]:
    """Cut ``range(num_samples)`` into slices of ``batch_size``; the last two share what is left.

    Args:
        num_samples: Number of rows.
        batch_size: Rows per slice. The last two have between half of it and all of it. A
            ``batch_size`` of 1 is taken at its word and gives single rows; with a ``batch_size`` of
            2, the last three rows of an odd number stay together.

    Returns:
        Slices that cover all rows once, in order; a single one if ``batch_size`` is not exceeded.

    Raises:
        ParameterError: If a number is no integer >= 1.

    >>> [s.stop - s.start for s in batch_slices(num_samples=322, batch_size=100)]
    [100, 100, 61, 61]
    >>> [s.stop - s.start for s in batch_slices(num_samples=5, batch_size=2)]
    [2, 3]
    """
    n = as_count("num_samples", num_samples)
    size = as_count("batch_size", batch_size)
    starts = list(range(0, n, size))
    if len(starts) > 1:
        left = n - starts[-2]
        if left == 3 and size == 2:
            starts.pop()
        else:
            starts[-1] = starts[-2] + -(-left // 2)
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], n], strict=True)]


def round_batches(
    num_samples: int,
    batch_size: int,
    num_passes: int,
    seed: int | Streams,
    party: str,
    round_index: int,
) -> Iterator[NDArray[np.int64]]:
    """Walk ``num_passes`` times through all samples, each time in a fresh order.

    Args:
        num_samples: The party's samples.
        batch_size: Samples per batch; cut as by :func:`batch_slices`, so only the last
            two batches of a pass differ in size.
        num_passes: Number of walks; each sample occurs exactly that often.
        seed: Root seed, or the streams of a party.
        party: The party's name.
        round_index: The federated round, from 0.

    Returns:
        An iterator over int64 arrays of distinct indices into ``range(num_samples)``.

    Raises:
        ParameterError: If a number is no integer >= 1; raised by the call, not by the first batch.

    >>> batches = list(round_batches(5, 2, 1, seed=0, party="alice", round_index=0))
    >>> [len(batch) for batch in batches], sorted(np.concatenate(batches).tolist())
    ([2, 3], [0, 1, 2, 3, 4])
    """
    slices = batch_slices(num_samples, batch_size)
    passes = as_count("num_passes", num_passes)
    streams = as_streams(seed)

    def walk() -> Iterator[NDArray[np.int64]]:
        for index in range(passes):
            generator = streams.for_numpy(party, round_index, f"order/{index}")
            order = generator.permutation(num_samples).astype(np.int64, copy=False)
            for rows in slices:
                yield order[rows]

    return walk()
