"""Scores by hand, and that controls are scored as the attack is."""

import pytest
import torch

from orchestra_strategy.audit.attacks.scores import leakage, ssim


def pictures(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_what_is_found_exactly_in_any_order_leaks():
    truth, others = pictures(3, 2, 1, 8, 8), pictures(20, 2, 1, 8, 8, seed=1)
    shuffled = truth.flatten(0, 1)[[4, 2, 0, 5, 1, 3]]
    scores, ordered = leakage(shuffled, truth, others, torch.Generator())
    assert torch.equal(ordered, truth)
    assert (scores.leaked, scores.samples, scores.psnr) == (3, 3, 99.0)
    assert scores.ssim == pytest.approx(1.0)
    # Uniform pixels against their mean 1/2 have an error of 1/12, against others of 1/6.
    assert scores.control_mean_psnr == pytest.approx(10.8, abs=0.7)
    assert scores.control_random_psnr == pytest.approx(7.8, abs=1.0)
    assert scores.above_control == 99.0 - scores.control_mean_psnr


def test_the_controls_own_guesses_do_not_leak():
    truth, others = pictures(4, 1, 1, 8, 8), pictures(30, 1, 1, 8, 8, seed=1)
    mean_guess = others.mean(0).repeat(4, 1, 1, 1)
    scores, _ = leakage(mean_guess, truth, others, torch.Generator())
    assert scores.above_control == pytest.approx(0.0)
    assert scores.leaked == 0


def test_others_at_random_are_a_control_too():
    # Truth far from the mean but among the others: who guesses an other sample is often right.
    truth = torch.cat([torch.zeros(2, 1, 1, 8, 8), torch.ones(2, 1, 1, 8, 8)])
    scores, _ = leakage(truth.flatten(0, 1), truth, truth.repeat(8, 1, 1, 1, 1), torch.Generator())
    assert scores.control_random_psnr > 50 > scores.control_mean_psnr
    assert scores.above_control == 99.0 - scores.control_random_psnr


def test_a_samples_best_view_counts():
    truth, others = pictures(1, 2, 1, 8, 8), pictures(9, 2, 1, 8, 8, seed=1)
    found = torch.stack([(truth[0, 0] + 0.1).clamp(0, 2), torch.zeros(1, 8, 8)])
    scores, _ = leakage(found, truth, others, torch.Generator())
    assert scores.psnr == pytest.approx(20.0, abs=1e-3)
    assert scores.leaked == 1


@pytest.mark.parametrize("side", [8, 32])
def test_structural_similarity_is_finite_for_small_images_too(side):
    x = pictures(2, 3, side, side)
    assert ssim(x, x) == pytest.approx([1.0, 1.0])
    assert all(value < 0.5 for value in ssim(x, 1 - x))
