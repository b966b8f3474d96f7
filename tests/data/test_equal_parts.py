import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra_strategy.data import dirichlet_equal_parts
from orchestra_strategy.errors import DataError, ParameterError


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    parties=st.integers(1, 6),
    alpha=st.sampled_from([1e-6, 0.1, 1.0, 100.0]),
    seed=st.integers(0, 5),
    spare=st.integers(0, 20),
)
def test_parts_are_equal_and_disjoint_when_classes_run_out(counts, parties, alpha, seed, spare):
    labels = np.repeat(np.arange(len(counts)), counts)
    size = max((len(labels) - spare) // parties, 0)
    if size == 0:
        return
    parts = dirichlet_equal_parts(labels, parties, size, alpha, seed)
    drawn = np.concatenate(parts)
    assert [len(p) for p in parts] == [size] * parties
    assert len(np.unique(drawn)) == len(drawn)
    assert drawn.min() >= 0
    assert drawn.max() < len(labels)


def entropy_of_classes(labels, parts):
    shares = [np.bincount(labels[p], minlength=10) / len(p) for p in parts]
    return np.mean([-(s[s > 0] * np.log(s[s > 0])).sum() for s in shares])


def test_alpha_is_how_mixed_a_party_is():
    labels = np.repeat(np.arange(10), 1000)
    mixed = [
        entropy_of_classes(labels, dirichlet_equal_parts(labels, 10, 200, alpha, 0))
        for alpha in (0.01, 0.1, 1.0, 100.0)
    ]
    assert mixed == sorted(mixed)
    assert mixed[0] < 0.4
    assert mixed[-1] > 0.98 * np.log(10)


def test_the_seed_decides():
    labels = np.repeat(np.arange(3), 50)
    first, again, other = (dirichlet_equal_parts(labels, 3, 20, 0.5, s) for s in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((3, 5, 0.1), DataError, r"at least `num_parties` \* `size` = 15 samples, got 10"),
        ((0, 5, 0.1), ParameterError, "`num_parties`"),
        ((2, 0, 0.1), ParameterError, "`size`"),
        ((2, 5, 0.0), ParameterError, "`alpha`"),
    ],
)
def test_refusals(arguments, error, message):
    parties, size, alpha = arguments
    with pytest.raises(error, match=message):
        dirichlet_equal_parts([0, 1] * 5, parties, size, alpha, 0)
