"""Shared noise: what is left of it, what it is charged, and that sums are exact."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from experiments.canary import lower_bound
from orchestra_strategy.errors import ParameterError, PrivacyError
from orchestra_strategy.privacy import NoiseSource, PrivacyLedger, Release
from orchestra_strategy.privacy.shared_noise import STEPS, NoiseShare, SharedGaussianMechanism

D, CLIP, Z, DELTA = 40_000, 0.5, 1.5, 1e-5


def parties(count, colluding, units=4, seed=0):
    share = NoiseShare(count, colluding, units)
    ledgers = [PrivacyLedger("pld") for _ in range(count)]
    return [
        SharedGaussianMechanism(ledger, NoiseSource(seed, f"party {i}"), share)
        for i, ledger in enumerate(ledgers)
    ]


def sums(mechanisms, values=None, z=Z):
    zeros = torch.zeros(D)
    return [
        m.add_noise([zeros if values is None else values[i]], CLIP, Release(z))[0].double()
        for i, m in enumerate(mechanisms)
    ]


@pytest.mark.parametrize("colluding", [1, 2, 3, 4])
def test_what_colluding_parties_cannot_take_off_is_the_declared_noise(colluding):
    """And its epsilon, worked out by another way, is that of the ledger."""
    mechanisms = parties(5, colluding)
    released = sums(mechanisms)
    total = sum(released)
    left = total - sum(released[:colluding])  # each knows its own part
    grid = mechanisms[0].share.grid(D, CLIP, Z)
    assert float(left.var()) == pytest.approx((Z * grid.sensitivity) ** 2, rel=0.05)
    assert grid.sensitivity == pytest.approx(CLIP, rel=1e-3)
    # One Gaussian of just the noise that the honest parties have added, by its own formula.
    multiplier = grid.std * math.sqrt(5 - colluding) / grid.sensitivity
    assert mechanisms[0].ledger.epsilon(DELTA) == pytest.approx(by_hand(multiplier), rel=0.01)


def by_hand(z):
    """Epsilon of a Gaussian mechanism: B. Balle, Y.-X. Wang, ICML 2018, theorem 8."""

    def exceeds(e):
        return norm.cdf(0.5 / z - e * z) - math.exp(e) * norm.cdf(-0.5 / z - e * z) - DELTA

    return brentq(exceeds, 1e-3, 50.0)


def test_the_canary_in_a_sum_stays_below_the_epsilon_told():
    """One of three parties subtracts its part; a user is or is not among another's."""
    mechanisms = parties(3, 1, units=2, seed=None)
    direction = torch.full((16,), CLIP / 4)  # of norm CLIP
    runs, z = 1500, 2.0

    def statistics(present):
        clean = [torch.zeros(16), direction * present, torch.zeros(16)]
        found = []
        for _ in range(runs):
            released = [m.add_noise([c], CLIP, Release(z))[0] for m, c in zip(mechanisms, clean)]
            left = sum(released) - released[0]
            found.append(float(left @ direction) / CLIP)
        return np.array(found)

    bound = lower_bound(statistics(1.0), statistics(0.0))
    assert 0.2 < bound < by_hand(z)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 2000),
    st.floats(1e-6, 1e6),
    st.floats(0.05, 100.0),
    st.integers(1, 10**7),
    st.integers(3, 20),
)
def test_no_sum_leaves_the_whole_numbers_of_float32(units, clip, z, d, count):
    grid = NoiseShare(count, 1, units).grid(d, clip, z)
    worst = round(units * clip / grid.step) + round(8.6 * grid.std / grid.step)
    assert worst <= STEPS
    assert grid.std >= 16 * grid.step
    # Joint noise over what one unit moves at most, its rounding included.
    assert grid.std * math.sqrt(count - 1) == pytest.approx(
        z * (clip + math.sqrt(d) * grid.step), rel=1e-9
    )


def test_sums_are_exact_and_what_is_too_large_is_cut_off():
    mechanisms = parties(3, 1)
    huge = [torch.full((D,), 1e30) * s for s in (1, -1, 1)]
    step = mechanisms[0].share.grid(D, CLIP, Z).step
    for released in sums(mechanisms, huge):
        steps = released / step
        assert torch.equal(steps, steps.round())
        assert float(steps.abs().max()) <= STEPS
        assert torch.equal(released.float().double(), released)
        assert float(released.abs().mean()) == pytest.approx(4 * CLIP, rel=0.01)


def test_one_unit_moves_a_rounded_sum_by_the_sensitivity_at_most():
    share = NoiseShare(3, 1, 50)
    grid = share.grid(D, CLIP, Z)
    generator = torch.Generator().manual_seed(0)
    rest = torch.rand(D, generator=generator)
    for draw in range(5):
        unit = torch.randn(D, generator=generator)
        # On the edge of two steps everywhere, where rounding does most.
        at_edge = (rest / grid.step).floor() * grid.step + grid.step / 2
        unit *= CLIP / unit.norm()
        moved = grid.rounded(at_edge.double() + unit) - grid.rounded(at_edge.double())
        assert CLIP * 0.99 < float(moved.norm()) <= grid.sensitivity, draw


def test_refusals():
    with pytest.raises(PrivacyError, match=r"noise of at least 16 steps .* raise `noise_mult"):
        NoiseShare(3, 1, 10_000).grid(100, 1.0, 1e-3)
    mechanism = parties(3, 1)[0]
    with pytest.raises(ParameterError, match="Expected finite tensors"):
        mechanism.add_noise([torch.tensor([float("nan")])], 1.0, Release(1.0))
    assert not mechanism.ledger.spent
