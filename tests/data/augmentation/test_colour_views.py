import math

import pytest
import torch
import torchvision.transforms.functional as tvf
from torch.nn.functional import grid_sample
from torchvision.transforms import InterpolationMode

from orchestra_strategy.data import build_views, to_model_input
from orchestra_strategy.data.augmentation import colour_transforms as colours
from orchestra_strategy.data.augmentation.transforms import rotate_quarters
from orchestra_strategy.errors import DataError, ParameterError

SIDE = 32
QUIET = dict.fromkeys(("flip", "jitter", "grey", "blur", "blur_2", "solarise_2"), 0.0)
STILL = {**QUIET, "min_area": 1.0, "max_ratio": 1.0}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def photos(n=6, side=SIDE, seed=0):
    """Smooth pictures, away from black and white, so that no change is clipped."""
    coarse = torch.rand(n, 3, 4, 4, generator=generator(seed)) * 0.4 + 0.3
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")


def factors(n, low, high, seed=1):
    return torch.rand(n, generator=generator(seed)) * (high - low) + low


def change_colour(x, b=1.0, c=1.0, s=1.0, h=0.0):
    full = [torch.as_tensor(v).expand(len(x)) for v in (b, c, s, h)]
    return colours.apply_colour(x, colours.colour_matrices(*full, colours.grey_means(x)))


@pytest.mark.parametrize(
    ("option", "adjust"),
    [
        ("b", tvf.adjust_brightness),
        ("c", tvf.adjust_contrast),
        ("s", tvf.adjust_saturation),
    ],
)
def test_a_colour_change_is_torchvisions_with_a_factor_per_image(option, adjust):
    x, f = photos(), factors(6, 0.6, 1.4)
    expected = torch.stack([adjust(image, float(v)) for image, v in zip(x, f)])
    torch.testing.assert_close(change_colour(x, **{option: f}), expected, atol=2e-4, rtol=0)


def test_changes_compose_as_one_after_the_other_in_any_order():
    x = photos()
    b, c, s = (factors(6, 0.8, 1.2, seed) for seed in (1, 2, 3))
    steps = [
        (tvf.adjust_brightness, b),
        (tvf.adjust_saturation, s),
        (tvf.adjust_contrast, c),
    ]
    expected = x
    for adjust, f in steps:
        expected = torch.stack([adjust(i, float(v)) for i, v in zip(expected, f)])
    torch.testing.assert_close(change_colour(x, b, c, s), expected, atol=5e-4, rtol=0)


def test_without_saturation_a_picture_is_torchvisions_grey():
    x = photos()
    expected = tvf.rgb_to_grayscale(x, num_output_channels=3)
    torch.testing.assert_close(change_colour(x, s=0.0), expected, atol=2e-4, rtol=0)


def test_hue_turns_colours_and_keeps_luminance_and_greys():
    x = photos()
    turned = change_colour(x, h=0.1)
    luma = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    torch.testing.assert_close((turned * luma).sum(1), (x * luma).sum(1), atol=1e-4, rtol=0)
    assert (turned - x).abs().max() > 0.02
    grey = x.mean(1, keepdim=True).expand(-1, 3, -1, -1).contiguous()
    torch.testing.assert_close(change_colour(grey, h=0.3), grey, atol=2e-4, rtol=0)


def test_a_hue_turn_goes_the_way_of_torchvisions():
    red = torch.tensor([0.6, 0.4, 0.4]).view(1, 3, 1, 1).expand(1, 3, 4, 4).contiguous()
    ours, theirs = change_colour(red, h=0.08)[0], tvf.adjust_hue(red, 0.08)[0]
    # Towards yellow in both: green goes up and blue does not.
    assert ours[1, 0, 0] > red[0, 1, 0, 0] + 0.01
    assert theirs[1, 0, 0] > red[0, 1, 0, 0] + 0.01
    assert ours[2, 0, 0] < red[0, 2, 0, 0]
    back = change_colour(change_colour(red, h=0.4), h=-0.4)
    torch.testing.assert_close(back, red, atol=1e-4, rtol=0)


def test_colours_are_clipped():
    assert change_colour(photos(), b=3.0).max() == 1.0


@pytest.mark.parametrize(("radius", "side"), [(1, 32), (2, 40)])
def test_blur_is_torchvisions_with_a_width_per_image(radius, side):
    x = torch.rand(5, 3, side, side, generator=generator())
    sigma = factors(5, 0.1, 2.0)
    expected = torch.stack(
        [tvf.gaussian_blur(i, [2 * radius + 1] * 2, [float(s)] * 2) for i, s in zip(x, sigma)]
    )
    torch.testing.assert_close(colours.blur(x, sigma, radius), expected, atol=1e-5, rtol=0)


def test_solarise_is_torchvisions_for_the_chosen():
    x = torch.rand(4, 3, 5, 5, generator=generator())
    chosen = torch.tensor([True, False, True, False])
    expected = torch.where(chosen.view(-1, 1, 1, 1), tvf.solarize(x, 0.5), x)
    torch.testing.assert_close(colours.solarise(x, chosen), expected)


def test_a_crop_is_torchvisions_resized_crop():
    x = photos(1)
    top, left, height, width = 4, 10, 16, 20
    area = torch.tensor([height * width / SIDE**2])
    ratio = torch.tensor([math.log(width / height)])
    position = torch.tensor([[left / (SIDE - width), top / (SIDE - height)]])
    for flip in (False, True):
        grid = colours.crop_grid(area, ratio, position, torch.tensor([flip]), SIDE)
        ours = grid_sample(x, grid, padding_mode="border", align_corners=False)
        theirs = tvf.resized_crop(
            x, top, left, height, width, [SIDE, SIDE], InterpolationMode.BILINEAR, antialias=False
        )
        theirs = tvf.hflip(theirs) if flip else theirs
        # At its rim theirs repeats the crop's edge, ours reads the picture beyond it.
        inner = (..., slice(2, -2), slice(2, -2))
        torch.testing.assert_close(ours[inner], theirs[inner], atol=1e-4, rtol=0)


def test_a_crop_never_leaves_the_picture():
    n = 500
    unit = torch.rand(5, n, generator=generator())
    grid = colours.crop_grid(
        unit[0] * 0.9 + 0.1, (2 * unit[1] - 1), unit[2:4].T, unit[4] < 0.5, SIDE
    )
    for outer, inner in ((0, 1), (-1, -2)):  # from the corner pixel's centre to the crop's corner
        corner = 1.5 * grid[:, outer, outer] - 0.5 * grid[:, inner, inner]
        assert corner.abs().max() <= 1 + 1e-5


def test_with_everything_off_views_are_the_model_input():
    x = torch.randint(0, 256, (4, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator())
    views = build_views("colour", **STILL)(x, generator())
    expected = to_model_input(x)
    for view in (views.x1, views.x2, rotate_quarters(views.x3, (4 - views.pretext_target) % 4)):
        torch.testing.assert_close(view, expected, atol=1e-3, rtol=0)


def test_each_sample_and_each_view_has_a_draw_of_its_own():
    x = photos(1).expand(8, -1, -1, -1).contiguous()
    views = build_views("colour")(x, generator())
    for view in (views.x1, views.x2):
        distances = torch.cdist(view.flatten(1), view.flatten(1))
        assert (distances + torch.eye(8) > 1e-3).all()
    assert ((views.x1 - views.x2).abs().flatten(1).max(1).values > 1e-3).all()


@pytest.mark.parametrize("option", ["flip", "jitter", "grey", "blur"])
def test_a_probability_is_how_often_it_happens(option):
    n = 4000
    x = torch.rand(1, 3, 4, 4, generator=generator()).expand(n, -1, -1, -1).contiguous()
    views = build_views("colour", **{**STILL, option: 0.3})(x, generator())
    changed = (views.x1 - to_model_input(x)).abs().flatten(1).max(1).values > 1e-3
    assert abs(changed.float().mean().item() - 0.3) < 4 * math.sqrt(0.3 * 0.7 / n)


@pytest.mark.parametrize("option", ["blur_2", "solarise_2"])
def test_what_only_the_second_view_has(option):
    n = 2000
    x = torch.rand(1, 3, 4, 4, generator=generator()).expand(n, -1, -1, -1).contiguous()
    views = build_views("colour", **{**STILL, option: 0.5})(x, generator())
    unchanged = to_model_input(x)
    torch.testing.assert_close(views.x1, unchanged, atol=1e-3, rtol=0)
    changed = (views.x2 - unchanged).abs().flatten(1).max(1).values > 1e-3
    assert abs(changed.float().mean().item() - 0.5) < 4 * 0.5 / math.sqrt(n)


def test_the_generator_decides_and_nothing_else_is_touched():
    x = photos()
    before, given = torch.get_rng_state(), x.clone()
    first, again = (build_views("colour")(x, generator(3)) for _ in range(2))
    other = build_views("colour")(x, generator(4))
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not torch.equal(first.x1, other.x1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(x, given)


def test_values_are_those_that_models_expect():
    x = torch.randint(0, 256, (16, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator())
    for view in build_views("colour")(x, generator())[:3]:
        assert view.dtype == torch.float32
        assert view.shape == x.shape
        assert view.min() >= -1
        assert view.max() <= 1


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 1, 8, 8), r"3 channels \(R, G, B\) for views `colour`, got 1; .*views='grey'"),
        ((2, 3, 8, 9), "square images for views `colour`.*H=8, W=9"),
        ((2, 8), "colour images.*got shape.*tables use views='table'"),
        ((0, 3, 8, 8), "at least one sample"),
    ],
)
def test_other_samples_are_refused(shape, message):
    with pytest.raises(DataError, match=message):
        build_views("colour")(torch.zeros(shape), generator())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flip": 1.5}, r"`flip` to be a number in \[0, 1\], got 1.5"),
        ({"hue": 0.6}, r"`hue` to be a number in \[0, 0.5\]"),
        ({"min_area": 0}, "`min_area` to be above 0"),
        ({"max_ratio": 0.5}, "`max_ratio` to be at least 1, got 0.5"),
        ({"bluur": 0.5}, "`bluur`.*`blur`"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ParameterError, match=message):
        build_views("colour", **options)
