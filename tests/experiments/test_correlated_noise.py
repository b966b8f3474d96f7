"""Correlated noise by hand, and its sensitivity beside all ways to take part."""

from itertools import product

import numpy as np
import pytest

from experiments.correlated_noise import banded_root, least, noise_of, sensitivity


def test_the_root_is_one_and_bands_cut_it():
    assert banded_root(3, 3).tolist() == [[1, 0, 0], [0.5, 1, 0], [0.375, 0.5, 1]]
    assert np.allclose(np.linalg.matrix_power(banded_root(6, 6), 2), np.tril(np.ones((6, 6))))
    assert banded_root(3, 2).tolist() == [[1, 0, 0], [0.5, 1, 0], [0, 0.5, 1]]


@pytest.mark.parametrize("cycle", [1, 2, 3])
def test_no_way_to_take_part_moves_more(cycle):
    rounds = 6
    ways = [
        np.array(signs)
        for signs in product((-1, 0, 1), repeat=rounds)
        if all(not any(signs[i + 1 : i + cycle]) for i in range(rounds) if signs[i])
    ]
    for bands in range(1, rounds + 1):
        C = banded_root(rounds, bands)
        most = max(np.linalg.norm(C @ way) for way in ways)
        assert sensitivity(C, cycle) == pytest.approx(most), bands


def test_noise_by_hand():
    # Two of four rounds move by the mean of N / 2 users each; prefix sums have 1 to 4 noises.
    got = noise_of(np.eye(4), 2)
    assert got.last == pytest.approx(2 * np.sqrt(2) * np.sqrt(4))
    assert got.all == pytest.approx(2 * np.sqrt(2) * np.sqrt((1 + 2 + 3 + 4) / 4))
    # C = [[1, 0], [1/2, 1]], B = [[1, 0], [1/2, 1]]: (A = B C), and both rounds move C by (1, 3/2).
    assert noise_of(banded_root(2, 2), 1).last == pytest.approx(np.sqrt(1.25 * (1 + 1.5**2)))


def test_nothing_is_below_the_least_and_everyone_every_round_is_there():
    assert noise_of(np.eye(12), 1).last == pytest.approx(12) == least(12, 1).last
    for cycle, bands in product((1, 2, 5), range(1, 13)):
        noise = noise_of(banded_root(12, bands), cycle)
        assert np.all(np.array(noise) >= np.array(least(12, cycle)) - 1e-9)
