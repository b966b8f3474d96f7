"""Does noise that is correlated from round to round pay at user level? Computed, without training.

N users take part in a fixed cycle, each in every b-th round; a model moves by the mean of the
clipped updates of a round, so after t rounds it carries the noise of a prefix sum. Noise is B Z,
where A = B C is the matrix of prefix sums, Z is independent, and C costs the privacy. Compared are
C = I, the root of A cut to p bands with the best p (N. Kalinin, C. Lampert, "Banded Square Root
Matrix Factorization for Differentially Private Model Training", NeurIPS 2024,
https://arxiv.org/abs/2405.13763), Poisson samples of N / b users with independent noise, and what
no C can be better than.
``python -m experiments.correlated_noise`` prints the standard deviation of the noise on the last
model and, as a root mean square, on all models, in units of clip / N.
"""

import argparse
from collections import Counter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from orchestra_strategy.privacy.accounting import Release, find_noise_multiplier

Matrix = npt.NDArray[np.float64]


class Noise(NamedTuple):
    """Standard deviations on the last model, and over all models; lower is better."""

    last: float
    all: float

    def times(self, factor: float) -> "Noise":
        """Return both, scaled."""
        return Noise(self.last * factor, self.all * factor)


def banded_root(rounds: int, bands: int) -> Matrix:
    """Return the square root of the matrix of prefix sums, cut to its first diagonals, (T, T).

    Its coefficients are those of (1 - x)^(-1/2): 1, 1/2, 3/8, ...
    """
    k = np.arange(1, rounds)
    coefficients = np.concatenate([[1.0], np.cumprod((2 * k - 1) / (2 * k))])
    coefficients[bands:] = 0
    rows, columns = np.indices((rounds, rounds))
    return np.where(rows >= columns, coefficients[rows - columns], 0.0)


def sensitivity(C: Matrix, cycle: int) -> float:
    """Return by how much a user moves C G at most, whose rounds lie ``cycle`` apart or more.

    For a Toeplitz matrix with coefficients that are positive and do not grow, the most is moved by
    who takes part as early and as often as possible, each time in the same direction (theorem 2 of
    the paper).
    """
    return float(np.linalg.norm(C[:, ::cycle].sum(axis=1)))


def prefix_noise(C: Matrix) -> Noise:
    """Return the noise of prefix sums, where C G has noise of 1."""
    B = np.linalg.solve(C.T, np.tril(np.ones(C.shape)).T).T
    squares = np.square(B).sum(axis=1)
    return Noise(float(np.sqrt(squares[-1])), float(np.sqrt(squares.mean())))


def noise_of(C: Matrix, cycle: int) -> Noise:
    """Return the noise of a factorisation, with a noise multiplier of 1."""
    # The mean of a round is one over N / b users.
    return prefix_noise(C).times(sensitivity(C, cycle) * cycle)


def least(rounds: int, cycle: int) -> Noise:
    """Return what no factorisation is below: a user moves prefix sum t by ceil(t / b)."""
    moved = np.ceil(np.arange(1, rounds + 1) / cycle) * cycle
    return Noise(float(moved[-1]), float(np.sqrt(np.square(moved).mean())))


def sampled(rounds: int, cycle: int, epsilon: float, delta: float) -> Noise:
    """Return the noise with Poisson samples of a share of 1 / b of the users in each round."""
    z = find_noise_multiplier(
        lambda z: Counter({Release(z, 1 / cycle): 1}), epsilon, delta, rounds, "pld"
    )
    return prefix_noise(np.eye(rounds)).times(z * cycle)


def main(argv: list[str] | None = None) -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epsilon", type=float, default=8.0)
    parser.add_argument("--delta", type=float, default=1e-5)
    parser.add_argument("--rounds", type=int, nargs="+", default=[10, 20, 40])
    parser.add_argument("--cycles", type=int, nargs="+", default=[1, 2, 5, 10])
    given = parser.parse_args(argv)
    z = find_noise_multiplier(
        lambda z: Counter({Release(z): 1}), given.epsilon, given.delta, 1, "pld"
    )
    print("| rounds | cycle | independent | banded root (bands) | Poisson samples | least |")
    print("|---|---|---|---|---|---|")
    for rounds in given.rounds:
        for cycle in given.cycles:
            roots = {p: noise_of(banded_root(rounds, p), cycle) for p in range(1, rounds + 1)}
            last, every = (min(roots, key=lambda p: roots[p][i]) for i in (0, 1))
            found = (roots[1], Noise(roots[last].last, roots[every].all), least(rounds, cycle))
            alone, best, bound = (noise.times(z) for noise in found)
            drawn = sampled(rounds, cycle, given.epsilon, given.delta)
            cells = [f"{n.last:.1f}, {n.all:.1f}" for n in (alone, best, drawn, bound)]
            cells[1] += f" ({last}, {every})"
            print(f"| {rounds} | {cycle} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
