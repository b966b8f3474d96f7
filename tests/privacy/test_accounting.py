"""Epsilon against closed forms that are computed here, and against published values."""

import math
import time
import tracemalloc

import pytest
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import norm

from orchestra_strategy.errors import ParameterError, PrivacyError
from orchestra_strategy.privacy import pld_bound
from orchestra_strategy.privacy.accounting import (
    PrivacyLedger,
    Release,
    epsilon_of,
    find_noise_multiplier,
)
from orchestra_strategy.privacy.plan import record_level_plan, user_level_plan

DELTA = 1e-5


def rdp_gaussian(z, rounds, delta):
    """Best order of alpha rounds / (2 z^2), converted by proposition 12 of arXiv 2004.00010."""

    def epsilon(log_order):
        a = 1 + math.exp(log_order)
        return rounds * a / (2 * z**2) + math.log1p(-1 / a) - math.log(delta * a) / (a - 1)

    return minimize_scalar(epsilon, bounds=(-3, 9), method="bounded").fun


def exact_gaussian(z, rounds, delta):
    """B. Balle, Y.-X. Wang, ICML 2018, arXiv 1805.06530, theorem 8, with s = z / sqrt(rounds)."""
    s = z / math.sqrt(rounds)

    def excess(e):
        first = norm.cdf(0.5 / s - e * s)
        return first - math.exp(e) * norm.cdf(-0.5 / s - e * s) - delta

    return brentq(excess, 0, 100)


CASES = [(0.8, 1), (1.0, 5), (4.0, 10), (4.0, 100), (20.0, 10), (60.0, 40), (2.5, 30)]


@pytest.mark.parametrize(("z", "rounds"), CASES)
def test_rdp_of_gaussians_is_the_closed_form(z, rounds):
    got = epsilon_of({Release(z): rounds}, DELTA)
    assert got == pytest.approx(rdp_gaussian(z, rounds, DELTA), rel=0.01)
    assert got >= exact_gaussian(z, rounds, DELTA)  # an upper bound


@pytest.mark.parametrize(("z", "rounds"), CASES[:5])
def test_pld_of_gaussians_is_the_analytic_one(z, rounds):
    got = epsilon_of({Release(z): rounds}, DELTA, "pld")
    assert got == pytest.approx(exact_gaussian(z, rounds, DELTA), rel=0.01)


@pytest.mark.parametrize("z", [1.0, 0.1, 0.01, 1e-3, 1e-6])
@pytest.mark.parametrize("rounds", [1, 10, 1000])
def test_pld_with_little_noise_is_exact_and_no_more_than_rdp(z, rounds):
    got = epsilon_of({Release(z): rounds}, DELTA, "pld")
    mu = math.sqrt(rounds) / z
    # Where the second term of delta is far below the first, epsilon is mu^2 / 2 + mu * 4.26.
    assert got <= mu**2 / 2 - mu * norm.ppf(DELTA)
    assert got == pytest.approx(mu**2 / 2 - mu * norm.ppf(DELTA), rel=0.02 if mu > 50 else 0.3)
    assert got <= epsilon_of({Release(z): rounds}, DELTA)
    two = epsilon_of({Release(z * math.sqrt(2)): rounds, Release(z * 2): 2 * rounds}, DELTA, "pld")
    assert two == pytest.approx(got, rel=1e-9)


LITTLE = [
    {Release(0.5, 0.1): 10},
    {Release(0.1, 0.1): 10},
    {Release(0.01, 0.1): 100},
    {Release(0.001, 0.1): 100},
    {Release(1e-4, 0.5): 1000},
    {Release(0.05, 0.1): 5, Release(0.02): 3, Release(1.0, 0.01): 1000},
]


@pytest.mark.parametrize("costs", LITTLE)
def test_pld_with_little_noise_takes_neither_memory_nor_minutes(costs):
    begun = time.perf_counter()
    tracemalloc.start()
    try:
        got = epsilon_of(costs, DELTA, "pld")
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 500e6  # on a grid of 1e-4 it is gigabytes
    assert time.perf_counter() - begun < 30
    assert got <= epsilon_of(costs, DELTA)
    # A single participation of an unlucky unit is already so much.
    assert got >= max(0.5 / z**2 for z, _ in costs) * 0.9


@pytest.mark.parametrize(
    "costs",
    [
        {Release(0.3, 0.1): 100},
        {Release(0.6, 0.05): 2000},
        {Release(0.2, 0.1): 3, Release(0.3): 2, Release(1.0, 0.01): 500},
    ],
)
def test_a_coarser_grid_gives_a_bound_that_is_a_little_higher(costs, monkeypatch):
    fine = epsilon_of(costs, DELTA, "pld")
    assert fine < 0.98 * epsilon_of(costs, DELTA)
    previous = fine
    for cells in (2**15, 2**13):
        monkeypatch.setattr(pld_bound, "_MOST_CELLS", cells)
        coarse = epsilon_of(costs, DELTA, "pld")
        assert previous * (1 - 1e-9) <= coarse < 1.02 * fine
        previous = coarse


def test_without_a_grid_pld_is_rdp():
    costs = {Release(1e-5, 0.1): 10}
    assert epsilon_of(costs, DELTA, "pld") == epsilon_of(costs, DELTA) > 1e6


def test_the_example_of_dp_sgd():
    # Abadi et al. 2016, section 3.2: q = 0.01, z = 4, T = 10,000 give 1.26 at delta 1e-5, by the
    # older conversion; the one used here and PLD are tighter, in this order.
    costs = {Release(4.0, 0.01): 10_000}
    rdp, pld = epsilon_of(costs, DELTA), epsilon_of(costs, DELTA, "pld")
    assert pld < rdp < 1.26
    # For small q an RDP of q^2 alpha / z^2 per step (their lemma 3, leading term).
    old = minimize_scalar(
        lambda a: 10_000 * 1e-4 * a / (2 * 16) * 1.03 - math.log(DELTA) / (a - 1),
        bounds=(2, 60),
        method="bounded",
    ).fun
    assert old == pytest.approx(1.26, rel=0.03)


def test_documented_examples_of_dp_accounting():
    # From its own tests: noise "chosen to obtain exactly (1, 1e-6)-DP" by RDP; and by PLD the
    # smallest that gives (1, 1e-5) to one query with a sampling probability of 0.01.
    assert epsilon_of({Release(4.530877117): 1}, 1e-6) == pytest.approx(1, rel=0.01)
    assert epsilon_of({Release(0.67379294682, 0.01): 1}, 1e-5, "pld") == pytest.approx(1, rel=0.01)


def test_sampling_with_probability_one_is_none():
    assert epsilon_of({Release(2.0, 1.0): 3}, DELTA) == epsilon_of({Release(2.0): 3}, DELTA)
    sampled = epsilon_of({Release(2.0, 0.1): 3}, DELTA)
    assert sampled < 0.3 * epsilon_of({Release(2.0): 3}, DELTA)


def test_nothing_spent_is_zero_and_kinds_add_up():
    assert epsilon_of({}, DELTA) == epsilon_of({Release(1.0): 0}, DELTA) == 0.0
    # 1 / z^2 adds up: 3 and 4 in one round are 2.4.
    both = epsilon_of({Release(3.0): 2, Release(4.0): 2}, DELTA)
    assert both == pytest.approx(epsilon_of({Release(2.4): 2}, DELTA), rel=1e-9)


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_a_share_for_the_moments_leaves_the_cost_of_a_round(share):
    whole = epsilon_of(user_level_plan(3.0).costs(), DELTA)
    plan = user_level_plan(3.0, share)
    assert epsilon_of(plan.costs(), DELTA) == pytest.approx(whole, rel=1e-9)
    assert plan.update.noise_multiplier < plan.moments.noise_multiplier or share == 0.5
    # Alone the moments cost what a release with z / sqrt(share) does.
    assert plan.moments.noise_multiplier == pytest.approx(3.0 / math.sqrt(share))


def test_moments_beside_dp_sgd_cost_about_their_share():
    plan = record_level_plan(1.5, 0.05, 40, moments_share=0.2)
    steps = epsilon_of({plan.update: 40}, DELTA, "pld")
    moments = epsilon_of({plan.moments: 1}, DELTA, "pld")
    assert 0.3 < moments / steps < 0.7  # sqrt(0.2 / 0.8) = 0.5, in the limit
    assert record_level_plan(1.5, 1.0, 4, 0.2).moments.noise_multiplier == pytest.approx(1.5)
    # Where the approximation explodes, it is bounded by the cost without sampling: mu = 2 / 0.01.
    assert record_level_plan(0.01, 0.4, 4, 0.2).moments.noise_multiplier == pytest.approx(0.01)


@pytest.mark.parametrize(("accountant", "targets"), [("rdp", (0.5, 8.0)), ("pld", (2.0,))])
def test_the_noise_found_meets_the_target_and_never_exceeds_it(accountant, targets):
    for target in targets:
        z = find_noise_multiplier(
            lambda z: user_level_plan(z).costs(), target, DELTA, 20, accountant
        )
        got = epsilon_of({Release(z): 20}, DELTA, accountant)
        assert target * 0.99 <= got <= target


def test_little_noise_is_found_for_a_large_target_of_sampled_steps():
    # RDP is four times as high here, so its noise is twice as much.
    z = find_noise_multiplier(lambda z: {Release(z, 0.1): 1}, 1200.0, DELTA, 100, "pld")
    assert z == pytest.approx(0.1, rel=0.01)
    assert 1188 <= epsilon_of({Release(z, 0.1): 100}, DELTA, "pld") <= 1200


def test_noise_found_for_sampled_steps_with_moments():
    def costs(z):
        return record_level_plan(z, 0.1, 10, 0.1).costs()

    z = find_noise_multiplier(costs, 3.0, DELTA, 5)
    got = epsilon_of({r: 5 * n for r, n in costs(z).items()}, DELTA)
    assert 3.0 * 0.99 <= got <= 3.0


def test_a_target_out_of_reach_is_refused():
    with pytest.raises(PrivacyError, match=r"`target_epsilon` to be within reach, got 1e-07"):
        find_noise_multiplier(lambda z: {Release(z): 1}, 1e-7, 1e-5, 10**9)


def test_rounds_left_are_counted_to_the_last():
    ledger, costs = PrivacyLedger(), {Release(4.0): 1}
    budget = epsilon_of({Release(4.0): 7}, DELTA)
    assert ledger.rounds_left(costs, budget, DELTA) == 7
    ledger.spend(Release(4.0), 3)
    assert ledger.rounds_left(costs, budget, DELTA) == 4
    ledger.spend(Release(4.0), 4)
    assert ledger.rounds_left(costs, budget, DELTA) == 0
    assert ledger.epsilon(DELTA) == budget


def test_state_comes_back_and_another_accountants_is_refused():
    ledger = PrivacyLedger()
    ledger.spend(Release(4.0, 0.5), 3)
    other = PrivacyLedger()
    other.load_state(ledger.state())
    assert other.epsilon(DELTA) == ledger.epsilon(DELTA) > 0
    other.spend(Release(4.0, 0.5))
    assert other.spent[Release(4.0, 0.5)] == 4
    with pytest.raises(ParameterError, match="state of an 'pld' ledger"):
        PrivacyLedger("pld").load_state(ledger.state())
    with pytest.raises(ParameterError, match="state of an 'rdp' ledger"):
        ledger.load_state({"accountant": "rdp"})


@pytest.mark.parametrize("release", [Release(0.0), Release(math.nan), Release(1.0, 1.5)])
def test_releases_that_protect_nothing_are_refused(release):
    with pytest.raises(ParameterError, match="a positive `noise_multiplier`"):
        PrivacyLedger().spend(release)


def test_an_unknown_accountant_is_refused():
    with pytest.raises(ParameterError, match="`accountant` to be one of 'rdp', 'pld', got 'prv'"):
        PrivacyLedger("prv")
