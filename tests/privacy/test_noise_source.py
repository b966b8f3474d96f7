"""The noise: its distribution, its independence, and that nobody gets it unpaid."""

import os

import numpy as np
import pytest
import torch
from scipy import stats

from orchestra_strategy.algorithms.moments import Moments
from orchestra_strategy.errors import ParameterError
from orchestra_strategy.privacy import (
    GaussianMechanism,
    NoiseSource,
    PrivacyLedger,
    Release,
    privatise_moments,
)
from orchestra_strategy.privacy.private_moments import (
    MOMENTS_SENSITIVITY,
    centroids_of_moments,
    nearest_moments,
    user_moments,
)


def mechanism(name="alice", seed=3):
    return GaussianMechanism(PrivacyLedger(), NoiseSource(seed, name))


@pytest.mark.parametrize("seed", [None, 5])
def test_deviates_are_standard_normal(seed):
    x = NoiseSource(seed).normal(200_001)
    assert len(x) == 200_001
    assert abs(x.mean()) < 5 / np.sqrt(len(x))
    assert x.std() == pytest.approx(1, abs=0.01)
    if seed is not None:  # a test of 5 % would fail one run in 20 with fresh keys
        assert stats.kstest(x, "norm").pvalue > 0.05
        assert abs(np.corrcoef(x[:100_000], x[100_000:200_000])[0, 1]) < 0.01


def test_streams_are_independent_between_parties_and_draws():
    alice, bob = NoiseSource(5, "alice"), NoiseSource(5, "bob")
    draws = [alice.normal(10_000), bob.normal(10_000), alice.normal(10_000)]
    correlations = np.corrcoef(draws)[np.triu_indices(3, 1)]
    assert np.abs(correlations).max() < 0.05
    assert np.array_equal(draws[0], NoiseSource(5, "alice").normal(10_000))
    fresh = [NoiseSource(None, "alice").normal(10_000) for _ in range(2)]
    assert abs(np.corrcoef(fresh)[0, 1]) < 0.06


def test_without_a_seed_keys_come_from_the_operating_system(monkeypatch):
    keys = []
    monkeypatch.setattr(os, "urandom", lambda n: keys.append(n) or bytes([len(keys)]) * n)
    source = NoiseSource(None)
    first, second = source.normal(4), source.normal(4)
    assert keys == [32, 32]  # 256 bits for every draw
    assert not np.array_equal(first, second)


def test_noise_has_the_promised_size_and_is_paid_for():
    got = mechanism()
    tensors = [torch.full((300, 100), 2.0), torch.zeros(20_000)]
    noisy = got.add_noise(tensors, sensitivity=0.5, release=Release(3.0))
    for before, after in zip(tensors, noisy):
        assert after.dtype == torch.float32
        assert after.shape == before.shape
        assert (after - before).std().item() == pytest.approx(1.5, rel=0.05)
        assert (after - before).mean().item() == pytest.approx(0, abs=0.05)
    assert got.ledger.spent == {Release(3.0): 1}


def test_what_cannot_be_protected_costs_nothing():
    got = mechanism()
    with pytest.raises(ParameterError, match="`sensitivity` to be a positive number, got 0"):
        got.add_noise([torch.zeros(2)], 0, Release(1.0))
    with pytest.raises(ParameterError, match="finite tensors to add noise to"):
        got.add_noise([torch.tensor([np.nan])], 1.0, Release(1.0))
    with pytest.raises(ParameterError, match="positive `noise_multiplier`"):
        got.add_noise([torch.zeros(2)], 1.0, Release(0.0))
    assert not got.ledger.spent
    assert got.source.draws == 0


def unit_rows(rows, dim, seed=0):
    z = torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(z, dim=1)


def norm(moments):
    return torch.cat([moments.S.flatten(), moments.n]).norm().item()


def test_one_sample_moves_the_moments_by_sqrt_2():
    Z, C = unit_rows(30, 5), unit_rows(4, 5, seed=1)
    all_, but_one = nearest_moments(Z, C), nearest_moments(Z[1:], C)
    moved = Moments(all_.S - but_one.S, all_.n - but_one.n)
    assert norm(moved) == pytest.approx(2**0.5, rel=1e-6)
    assert MOMENTS_SENSITIVITY == 2**0.5
    # A projection that is longer than it should be does not get more.
    assert norm(nearest_moments(100 * Z[:1], C)) <= 2**0.5 * (1 + 1e-6)


def test_a_user_weighs_as_one_sample_however_many_it_has():
    Z, C = unit_rows(1, 5).repeat(50, 1), unit_rows(4, 5, seed=1)
    assert norm(nearest_moments(Z, C)) == pytest.approx(50 * 2**0.5, rel=1e-5)
    assert norm(user_moments(nearest_moments(Z, C), 50)) == pytest.approx(2**0.5, rel=1e-5)


def test_noise_of_the_moments():
    got = mechanism()
    noisy = privatise_moments(Moments(torch.zeros(200, 100), torch.zeros(200)), 2.0, got)
    assert noisy.S.std().item() == pytest.approx(2.0 * 2**0.5, rel=0.05)
    assert noisy.n.std().item() == pytest.approx(2.0 * 2**0.5, rel=0.2)
    assert got.ledger.spent == {Release(2.0): 1}
    with pytest.raises(ParameterError, match=r"moments S \(N_g, D\) and n \(N_g,\)"):
        privatise_moments(Moments(torch.zeros(3, 2), torch.zeros(4)), 1.0, got)


def test_centroids_survive_where_there_are_many_samples():
    C = torch.eye(8)[:3]
    Z = torch.nn.functional.normalize(C.repeat(2000, 1) + 0.1 * unit_rows(6000, 8), dim=1)
    noisy = privatise_moments(nearest_moments(Z, C), 2.0, mechanism())
    found = centroids_of_moments(noisy, most=3, least=4)
    assert (found @ C.T).max(dim=0).values.min() > 0.99
    assert len(centroids_of_moments(noisy, most=2, least=4)) == 2
    assert len(centroids_of_moments(noisy, most=3, least=1e4)) == 0
