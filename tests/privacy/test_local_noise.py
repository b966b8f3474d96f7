import math

import pytest
import torch

from orchestra_strategy.errors import ParameterError
from orchestra_strategy.privacy import add_noise, draw_noise

DRAWS = 100_000


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("scale", [0.1, 3.0])
@pytest.mark.parametrize(
    ("distribution", "std_per_scale", "kurtosis"),
    [("gaussian", 1.0, 3.0), ("laplacian", math.sqrt(2), 6.0)],
)
def test_noise_follows_its_formula(distribution, std_per_scale, kurtosis, scale):
    noise = draw_noise(torch.zeros(DRAWS), scale, distribution, generator()).double()
    std = noise.std().item()
    assert std == pytest.approx(std_per_scale * scale, rel=0.02)  # 10 % is what is asked for
    assert abs(noise.mean().item()) < 5 * std / math.sqrt(DRAWS)
    fourth = (noise / std).pow(4).mean().item()  # tells the two distributions apart
    assert fourth == pytest.approx(kurtosis, rel=0.1)


def test_laplacian_scale_is_the_mean_absolute_value():
    noise = draw_noise(torch.zeros(DRAWS), 2.0, "laplacian", generator())
    assert noise.abs().mean().item() == pytest.approx(2.0, rel=0.02)


@pytest.mark.parametrize("distribution", ["gaussian", "laplacian"])
def test_noise_depends_on_the_generator_alone(distribution):
    first = draw_noise(torch.zeros(5), 1.0, distribution, generator(1))
    torch.manual_seed(99)
    assert torch.equal(first, draw_noise(torch.zeros(5), 1.0, distribution, generator(1)))
    assert not torch.equal(first, draw_noise(torch.zeros(5), 1.0, distribution, generator(2)))
    before = torch.random.get_rng_state()
    draw_noise(torch.zeros(5), 1.0, distribution, generator(1))
    assert torch.equal(before, torch.random.get_rng_state())


def test_zero_scale_draws_nothing():
    source = generator()
    state = source.get_state()
    assert torch.equal(draw_noise(torch.ones(3), 0.0, "gaussian", source), torch.zeros(3))
    assert torch.equal(state, source.get_state())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_noise_has_the_dtype_and_shape_of_its_target(dtype):
    noise = draw_noise(torch.zeros(2, 3, dtype=dtype), 1.0, "laplacian", generator())
    assert noise.dtype == dtype
    assert noise.shape == (2, 3)


def test_add_noise_leaves_its_input_and_draws_anew_for_each_tensor():
    tensors = [torch.zeros(4), torch.zeros(4)]
    noisy = add_noise(tensors, 1.0, "gaussian", generator())
    assert all(torch.equal(t, torch.zeros(4)) for t in tensors)
    assert not torch.equal(noisy[0], noisy[1])


def test_negative_scale():
    with pytest.raises(ParameterError, match=r"Expected `gradient_noise`.*at least 0, got -1"):
        draw_noise(torch.zeros(1), -1.0, "gaussian", generator())


def test_unknown_distribution():
    with pytest.raises(ParameterError, match=r"Expected `distribution`.*got 'cauchy'"):
        draw_noise(torch.zeros(1), 1.0, "cauchy", generator())


def test_integers():
    with pytest.raises(ParameterError, match=r"floating-point tensor.*got dtype torch.int64"):
        draw_noise(torch.zeros(1, dtype=torch.int64), 1.0, "gaussian", generator())
