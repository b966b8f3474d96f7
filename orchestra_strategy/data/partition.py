"""Split one data set into the disjoint parts of several parties.

Three ways, from even to uneven: :func:`iid_partition` (a random split), :func:`dirichlet_partition`
(label skew of chosen strength) and :func:`shard_partition` (a few labels per party). They serve
experiments, where one party plays all; in a real federation the data are split from the start.

All return one sorted int64 index array per party, hold every sample exactly once, and depend on
nothing but their arguments.

References:
    - T.-M. H. Hsu, H. Qi, M. Brown: "Measuring the Effects of Non-Identical Data Distribution for
      Federated Visual Classification", 2019, arXiv 1909.06335 (Dirichlet label skew).
    - M. Yurochkin et al.: "Bayesian Nonparametric Federated Learning of Neural Networks", ICML
      2019, arXiv 1905.12022 (the form used here: per class, a Dirichlet draw over the parties).
    - H. B. McMahan et al.: "Communication-Efficient Learning of Deep Networks from Decentralized
      Data", AISTATS 2017, arXiv 1602.05629 (shards of label-sorted data).
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from orchestra_strategy.data.option_checks import as_count
from orchestra_strategy.errors import DataError, ParameterError
from orchestra_strategy.rng import Streams, as_streams, numpy_generator

__all__ = [
    "Indices",
    "check_alpha",
    "class_members",
    "dirichlet_partition",
    "iid_partition",
    "shard_partition",
]

Indices = NDArray[np.int64]

# The splitter is no party: it draws from streams of its own name.
_SPLITTER = "partition"

# numpy draws a Dirichlet with a tiny alpha by rejection (1e-300 does not return), and one with a
# huge alpha overflows to all zeros (1e308), so both ends are cut where the split is at its limit.
_ALPHA_RANGE = (1e-6, 1e6)


def iid_partition(num_samples: int, num_parties: int, seed: int | Streams) -> list[Indices]:
    """Deal the samples at random into parts whose sizes differ by at most one.

    Args:
        num_samples: Number of samples, at least one per party.
        num_parties: Number of parts.
        seed: Root seed, or the streams of the party whose samples are dealt out.

    Returns:
        ``num_parties`` sorted int64 arrays of indices into ``range(num_samples)``.

    Raises:
        ParameterError: If a number is no integer >= 1.
        DataError: If there are fewer samples than parties.

    >>> [len(part) for part in iid_partition(10, 3, seed=0)]
    [4, 3, 3]
    """
    n = as_count("num_samples", num_samples)
    parties = as_count("num_parties", num_parties)
    _require_enough(n, parties, "one sample per party")
    generator = as_streams(seed).for_numpy(_SPLITTER, 0, "iid")
    return _sorted_parts(np.array_split(generator.permutation(n), parties))


def dirichlet_partition(
    labels: ArrayLike,
    num_parties: int,
    alpha: float,
    seed: int,
    min_size: int = 1,
    max_tries: int = 100,
) -> list[Indices]:
    """Deal each class over the parties in proportions drawn from Dirichlet(alpha).

    A small ``alpha`` gives a class to few parties (0.1: strong skew), a large one to all alike
    (100: nearly iid). A draw that leaves a party with less than ``min_size`` is drawn again.

    Args:
        labels: (N,) classes, integers or strings.
        num_parties: Number of parts.
        alpha: Concentration, in [1e-6, 1e6].
        seed: Root seed.
        min_size: The smallest allowed part.
        max_tries: Number of draws after which to give up.

    Returns:
        ``num_parties`` sorted int64 arrays of indices into ``labels``.

    Raises:
        ParameterError: If a number is out of its range.
        DataError: If ``labels`` is not (N,), or no draw gave every party ``min_size`` samples.

    >>> parts = dirichlet_partition([0, 0, 1, 1, 2, 2], num_parties=2, alpha=1.0, seed=0)
    >>> sorted(int(i) for part in parts for i in part)
    [0, 1, 2, 3, 4, 5]
    """
    classes = class_members(labels)
    parties = as_count("num_parties", num_parties)
    smallest_allowed = as_count("min_size", min_size)
    tries = as_count("max_tries", max_tries)
    check_alpha(alpha)
    _require_enough(
        sum(map(len, classes)), parties * smallest_allowed, f"`min_size`={min_size} per party"
    )
    generator = numpy_generator(seed, _SPLITTER, 0, "dirichlet")
    best = 0
    for _ in range(tries):
        parts = _deal_by_class(classes, parties, alpha, generator)
        smallest = min(map(len, parts))
        if smallest >= smallest_allowed:
            return _sorted_parts(parts)
        best = max(best, smallest)
    raise DataError(
        f"Expected a Dirichlet split with at least `min_size`={min_size} samples at each of "
        f"`num_parties`={num_parties} for `alpha`={alpha:g}, got at best {best} at the smallest "
        f"party in `max_tries`={max_tries} draws; raise alpha or max_tries, or lower min_size or "
        "num_parties."
    )


def shard_partition(
    labels: ArrayLike, num_parties: int, shards_per_party: int, seed: int
) -> list[Indices]:
    """Sort by label, cut into equal shards, and deal the shards at random.

    A party then holds about ``shards_per_party`` labels, McMahan's "pathological" split.

    Args:
        labels: (N,) classes, integers or strings.
        num_parties: Number of parts.
        shards_per_party: Number of shards that each party gets.
        seed: Root seed; it shuffles the samples within a label and the shards.

    Returns:
        ``num_parties`` sorted int64 arrays of indices into ``labels``.

    Raises:
        ParameterError: If a number is no integer >= 1.
        DataError: If ``labels`` is not (N,), or there are fewer samples than shards.

    >>> parts = shard_partition([0, 1, 0, 1], num_parties=2, shards_per_party=1, seed=0)
    >>> sorted(part.tolist() for part in parts)
    [[0, 2], [1, 3]]
    """
    classes = class_members(labels)
    parties = as_count("num_parties", num_parties)
    per_party = as_count("shards_per_party", shards_per_party)
    num_shards = parties * per_party
    _require_enough(sum(map(len, classes)), num_shards, "one sample per shard")
    generator = numpy_generator(seed, _SPLITTER, 0, "shards")
    by_label = np.concatenate([generator.permutation(members) for members in classes])
    shards = np.array_split(by_label, num_shards)
    dealt = generator.permutation(num_shards).reshape(parties, per_party)
    return _sorted_parts([np.concatenate([shards[s] for s in row]) for row in dealt])


def class_members(labels: ArrayLike) -> list[Indices]:
    """Return, per class in sorted order, the indices of its samples."""
    values = np.asarray(labels)
    if values.ndim != 1 or values.size == 0:
        raise DataError(f"Expected `labels` to be (N,) with N >= 1, got shape {values.shape}.")
    codes = np.unique(values, return_inverse=True)[1]
    return np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])


def check_alpha(alpha: Any) -> None:
    """Refuse a concentration outside of the range in which numpy can draw."""
    low, high = _ALPHA_RANGE
    number = isinstance(alpha, (int, float, np.floating)) and not isinstance(alpha, bool)
    if not (number and low <= alpha <= high):
        raise ParameterError(
            f"Expected `alpha` to be a number in [{low:g}, {high:g}], got {alpha!r}; for more even "
            "parts use iid_partition, for fewer labels per party shard_partition."
        )


def _deal_by_class(
    classes: list[Indices], parties: int, alpha: float, generator: np.random.Generator
) -> list[Indices]:
    """Cut each shuffled class at the cumulated proportions of one Dirichlet draw.

    The cuts are rounded at random: rounded down, small classes would all go to the last parties.
    """
    dealt: list[list[Indices]] = [[] for _ in range(parties)]
    for members in classes:
        proportions = generator.dirichlet(np.full(parties, alpha))
        cuts = (np.cumsum(proportions)[:-1] * len(members) + generator.random()).astype(np.int64)
        for party, chunk in enumerate(np.split(generator.permutation(members), cuts)):
            dealt[party].append(chunk)
    return [np.concatenate(chunks) for chunks in dealt]


def _sorted_parts(parts: list[Indices]) -> list[Indices]:
    return [np.sort(part.astype(np.int64, copy=False)) for part in parts]


def _require_enough(num_samples: int, needed: int, reason: str) -> None:
    if num_samples < needed:
        raise DataError(f"Expected at least {needed} samples ({reason}), got {num_samples}.")
