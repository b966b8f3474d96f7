"""Skewed parts of equal size: every party has its own mixture of classes, and as many samples.

:func:`~orchestra_strategy.data.partition.dirichlet_partition` deals every sample of each class, so
its parts differ in size as well; experiments that ask about the mixture alone need equal sizes.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from orchestra_strategy.data.option_checks import as_count
from orchestra_strategy.data.partition import Indices, check_alpha, class_members
from orchestra_strategy.errors import DataError
from orchestra_strategy.rng import numpy_generator

__all__ = ["dirichlet_equal_parts"]


def dirichlet_equal_parts(
    labels: ArrayLike, num_parties: int, size: int, alpha: float, seed: int
) -> list[Indices]:
    """Draw ``size`` samples for each party, its classes mixed by Dirichlet(alpha).

    T.-M. H. Hsu, H. Qi, M. Brown, "Measuring the Effects of Non-Identical Data Distribution for
    Federated Visual Classification", 2019, arXiv 1909.06335. No sample is drawn twice. Where a
    class runs out, the party gets more of its other classes, in the proportions of its mixture, and
    of any class that is left where those have run out too.

    Args:
        labels: (N,) classes, integers or strings.
        num_parties: Number of parts.
        size: Samples of each part; what is left of the data is in none.
        alpha: Concentration, in [1e-6, 1e6].
        seed: Root seed.

    Returns:
        ``num_parties`` sorted int64 arrays of ``size`` indices into ``labels``.

    Raises:
        ParameterError: If a number is out of its range.
        DataError: If ``labels`` is not (N,), or has fewer than ``num_parties * size`` samples.

    >>> parts = dirichlet_equal_parts([0, 1] * 10, num_parties=2, size=5, alpha=0.1, seed=0)
    >>> [len(part) for part in parts]
    [5, 5]
    """
    classes = class_members(labels)
    parties, size = as_count("num_parties", num_parties), as_count("size", size)
    check_alpha(alpha)
    available = sum(map(len, classes))
    if available < parties * size:
        raise DataError(
            f"Expected `labels` to have at least `num_parties` * `size` = {parties * size} "
            f"samples, got {available}; lower one of them."
        )
    generator = numpy_generator(seed, "partition", 0, "dirichlet equal parts")
    stock = [generator.permutation(members) for members in classes]
    parts = []
    for _ in range(parties):
        mixture = generator.dirichlet(np.full(len(stock), alpha))
        counts = _draw_counts(mixture, size, np.array([len(s) for s in stock]), generator)
        parts.append(np.concatenate([s[:n] for s, n in zip(stock, counts, strict=True)]))
        stock = [s[n:] for s, n in zip(stock, counts, strict=True)]
    return [np.sort(part.astype(np.int64, copy=False)) for part in parts]


def _draw_counts(
    mixture: NDArray[np.float64],
    size: int,
    stock: NDArray[np.int64],
    generator: np.random.Generator,
) -> NDArray[np.int64]:
    """Return how many samples of each class a party gets: ``size`` in all."""
    counts = np.zeros_like(stock)
    while (missing := size - int(counts.sum())) > 0:
        left = stock - counts
        weights = np.where(left > 0, mixture, 0.0)
        if weights.sum() < 1e-12:  # the mixture's classes have run out
            weights = left.astype(np.float64)
        counts += np.minimum(generator.multinomial(missing, weights / weights.sum()), left)
    return counts
