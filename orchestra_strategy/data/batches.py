"""The order in which a party walks through its samples: batches of indices, no data.

A party's order in a round depends on (seed, party, round, pass) alone, so a resumed run walks on
exactly as the uninterrupted one. Every sample counts: nothing is dropped at the end of a pass, so a
small party trains too. The one exception to equal batches is BatchNorm's: it has no variance of a
single sample, so a last batch of one joins the batch before it.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from orchestra_strategy.data._checks import as_count
from orchestra_strategy.rng import numpy_generator

__all__ = ["num_batches", "round_batches", "split_for_inference"]


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
    3
    """
    return as_count("num_passes", num_passes) * len(split_for_inference(num_samples, batch_size))


def split_for_inference(num_samples: int, batch_size: int) -> list[slice]:
    """Cut ``range(num_samples)`` into slices, in order, without a tail of one row.

    Args:
        num_samples: Number of rows.
        batch_size: Rows per slice; the last slice is shorter, or one longer where the tail would
            be a single row. A ``batch_size`` of 1 is taken at its word and gives single rows.

    Returns:
        Slices that cover all rows once; a single one if ``batch_size`` exceeds the rows.

    Raises:
        ParameterError: If a number is no integer >= 1.

    >>> split_for_inference(num_samples=8, batch_size=3)
    [slice(0, 3, None), slice(3, 6, None), slice(6, 8, None)]
    >>> split_for_inference(num_samples=7, batch_size=3)
    [slice(0, 3, None), slice(3, 7, None)]
    """
    n = as_count("num_samples", num_samples)
    size = as_count("batch_size", batch_size)
    starts = list(range(0, n, size))
    if size > 1 and n > 1 and n - starts[-1] == 1:
        starts.pop()
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], n], strict=True)]


def round_batches(
    num_samples: int, batch_size: int, num_passes: int, seed: int, party: str, round_index: int
) -> Iterator[NDArray[np.int64]]:
    """Walk ``num_passes`` times through all samples, each time in a fresh order.

    Args:
        num_samples: The party's samples.
        batch_size: Samples per batch; cut as by :func:`split_for_inference`, so only the last
            batch of a pass differs in size.
        num_passes: Number of walks; each sample occurs exactly that often.
        seed: Root seed.
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
    slices = split_for_inference(num_samples, batch_size)
    passes = as_count("num_passes", num_passes)

    def walk() -> Iterator[NDArray[np.int64]]:
        for index in range(passes):
            generator = numpy_generator(seed, party, round_index, f"order/{index}")
            order = generator.permutation(num_samples).astype(np.int64, copy=False)
            for rows in slices:
                yield order[rows]

    return walk()
