"""Scores by hand, and that controls are scored as the attack is."""

import pytest
import torch

from orchestra_strategy.audit.accounting import epsilon_of
from orchestra_strategy.audit.scores import leakage, ssim
from orchestra_strategy.errors import ParameterError
from orchestra_strategy.privacy.local import LocalPrivacy


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


def test_epsilon_is_that_of_the_gaussian_mechanism():
    # Multiplier 1, one release, delta 1e-5: between the exact 4.38 and the bound 5.3 of RDP.
    privacy = LocalPrivacy(gradient_noise=0.25, per_example_clipping=1.0)
    one = epsilon_of(privacy, 4, 1, 1e-5)
    assert 4.37 < one < 5.0
    # Four releases of twice the multiplier are as one.
    half = LocalPrivacy(gradient_noise=0.5, per_example_clipping=1.0)
    assert epsilon_of(half, 4, 4, 1e-5) == pytest.approx(one)
    assert epsilon_of(privacy, 8, 1, 1e-5) < one < epsilon_of(privacy, 4, 2, 1e-5)


@pytest.mark.parametrize(
    "privacy",
    [
        LocalPrivacy(),
        LocalPrivacy(gradient_noise=1.0),
        LocalPrivacy(per_example_clipping=1.0),
        LocalPrivacy(input_noise=1.0, per_example_clipping=1.0),
        LocalPrivacy(gradient_noise=1.0, per_example_clipping=1.0, distribution="laplacian"),
    ],
)
def test_there_is_no_epsilon_without_clip_and_gaussian_noise(privacy):
    assert epsilon_of(privacy, 4, 1, 1e-5) is None


def test_refusals():
    with pytest.raises(ParameterError, match=r"Expected `delta` to be in \(0, 1\), got 1"):
        epsilon_of(LocalPrivacy(), 4, 1, 1)
    with pytest.raises(ParameterError, match="`batch_size` and `releases` to be at least 1, got 4"):
        epsilon_of(LocalPrivacy(), 4, 0, 1e-5)
