"""Shared noise: what is left of it, what it is charged, and that sums are exact."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from experiments.canary import lower_bound
from orchestra_strategy import FedRotPredStrategy, FedSimCLRStrategy, orchestra_model
from orchestra_strategy.config import StrategyConfig, parse_config
from orchestra_strategy.errors import ParameterError, PrivacyError
from orchestra_strategy.privacy import NoiseSource, PrivacyLedger, Release
from orchestra_strategy.privacy.discrete_noise import discrete_gaussian
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
    mechanisms = parties(3, 1, units=2)
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


def test_discrete_noise_is_exact_and_of_the_declared_size():
    pytest.importorskip("opendp")
    ledger, source = PrivacyLedger(), NoiseSource(None, "alice")
    mechanism = SharedGaussianMechanism(ledger, source, NoiseShare(3, 1, 4), discrete=True)
    (released,) = mechanism.add_noise([torch.zeros(4000)], CLIP, Release(Z))
    grid = mechanism.share.grid(4000, CLIP, Z)
    steps = released.double() / grid.step
    assert torch.equal(steps, steps.round())
    assert float(released.std()) == pytest.approx(grid.std, rel=0.05)
    assert ledger.spent == {Release(Z): 1}
    # Not rounded Gaussian deviates: as exact for little noise, where the two differ.
    drawn = discrete_gaussian(4000, 0.4)
    weights = np.exp(-np.arange(-9, 10) ** 2 / (2 * 0.4**2))
    assert (drawn == 0).mean() == pytest.approx(1 / weights.sum(), abs=0.02)


def test_discrete_noise_is_refused_where_it_cannot_be(monkeypatch):
    options = {"privacy": "user", "noise_multiplier": 1.0, "noise_sampler": "discrete"}
    with pytest.raises(ParameterError, match="Expected no `noise_seed` with"):
        parse_config(StrategyConfig, {**options, "noise_seed": 1})
    with pytest.raises(ParameterError, match=r"`privacy` to be 'user' with `noise_sampler=.disc"):
        parse_config(StrategyConfig, {**options, "privacy": "record"})
    monkeypatch.setattr("orchestra_strategy.privacy.discrete_noise.find_spec", lambda name: None)
    with pytest.raises(PrivacyError, match=r"`opendp` to be installed .*strategy\[discrete\]'"):
        FedRotPredStrategy(partial(orchestra_model, "conv4", 1, norm="group"), **options)


def test_a_party_with_discrete_noise_trains():
    pytest.importorskip("opendp")
    small = partial(
        *(orchestra_model, "mlp", 4),
        **{"norm": "group+batch", "hidden_dim": 4, "projection_dim": 4, "heads": ()},
    )
    options = {"privacy": "user", "noise_multiplier": 1.0, "noise_sampler": "discrete"}
    alone = FedSimCLRStrategy(small, **options, views="table", lr=1e-9, local_epochs=1)
    alone.build_dataset(np.random.default_rng(0).standard_normal((8, 4), np.float32))
    alone.train_step(None, 0, 1)
    released = torch.cat([t.flatten() for t in alone.user_type.user.update_privacy.released])
    steps = released.double() / alone.privacy.mechanism.share.grid(len(released), 1.0, 1.0).step
    assert torch.equal(steps, steps.round())
    assert float(released.std()) == pytest.approx(1.0, rel=0.05)
