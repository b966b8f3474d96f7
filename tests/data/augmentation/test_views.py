"""Views: what is drawn, from where, how much of it, and what is refused."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from orchestra_strategy.data import (
    VIEWS,
    SmallGreyViews,
    TableViews,
    ViewSet,
    build_views,
    to_model_input,
)
from orchestra_strategy.data.augmentation import transforms
from orchestra_strategy.errors import DataError, ParameterError

STILL = {
    "rotation": 0.0,
    "translation": 0.0,
    "scale": 0.0,
    "shear": 0.0,
    "gain": 0.0,
    "offset": 0.0,
    "noise": 0.0,
}
UNTOUCHED = {"corruption": 0.0, "noise": 0.0}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(batch=16, channels=1, side=8):
    return torch.rand(batch, channels, side, side, generator=generator(99))


def rows(batch=16, features=6):
    return torch.rand(batch, features, generator=generator(99))


def grey(**options):
    """Views that do nothing but what the options say."""
    return SmallGreyViews(**{**STILL, **options})


def pixels(view):
    """Undo the model's normalisation."""
    return view * 0.5 + 0.5


# ---- to_model_input ------------------------------------------------------------------------------


def test_to_model_input__images():
    x = torch.tensor([[[0, 51], [204, 255]]], dtype=torch.uint8)
    expected = torch.tensor([[[[-1.0, -0.6], [0.6, 1.0]]]])  # 2 * 51 / 255 - 1 = -0.6
    torch.testing.assert_close(to_model_input(x), expected)
    torch.testing.assert_close(to_model_input(x.unsqueeze(1)), expected)
    torch.testing.assert_close(to_model_input(x.double() / 255), expected)
    assert to_model_input(x.double() / 255).dtype == torch.float32
    assert x.tolist() == [[[0, 51], [204, 255]]]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_to_model_input__table_values_pass(dtype):
    table = to_model_input(torch.tensor([[3, 200]], dtype=dtype))
    assert table.dtype == torch.float32
    assert table.tolist() == [[3.0, 200.0]]


@pytest.mark.parametrize("shape", [(), (4,), (1, 1, 1, 1, 1)])
def test_to_model_input__refuses_other_ranks(shape):
    with pytest.raises(DataError, match=r"a table \(B, F\), grey images .*, got shape \("):
        to_model_input(torch.zeros(shape))


# ---- Both families -------------------------------------------------------------------------------

FAMILIES = {
    "grey": (SmallGreyViews(), images()),
    "grey-colour": (SmallGreyViews(background=None), images(channels=3)),
    "table": (TableViews(), rows()),
}
both = pytest.mark.parametrize(("views", "x"), FAMILIES.values(), ids=FAMILIES)


def same(first: ViewSet, second: ViewSet) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@both
def test_views__shapes_and_types(views, x):
    drawn = views(x.double(), generator())
    for view in drawn[:3]:
        assert (view.shape, view.dtype) == (x.shape, torch.float32)
    assert drawn.pretext_target.shape == (len(x),)
    assert drawn.pretext_target.dtype == torch.int64


@both
def test_views__same_seed_same_views(views, x):
    assert same(views(x, generator(1)), views(x, generator(1)))
    other = views(x, generator(2))
    assert not any(torch.equal(a, b) for a, b in zip(views(x, generator(1)), other, strict=True))


@both
def test_views__the_generator_moves_on(views, x):
    own = generator()
    assert not same(views(x, own), views(x, own))


@both
def test_views__global_generator_is_neither_read_nor_moved(views, x):
    torch.manual_seed(0)
    first = views(x, generator())
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert same(views(x, generator()), first)
    assert torch.equal(torch.get_rng_state(), state)


@both
def test_views__every_row_and_view_has_its_own_draw(views, x):
    views = dataclasses.replace(views, noise=0.0)  # which alone would tell them apart
    if x.ndim == 4:
        x = x[:1].repeat(16, 1, 1, 1)  # sixteen times the same image
    drawn = views(x, generator())
    every = torch.cat(drawn[:2]) if x.ndim == 4 else torch.stack(drawn[:2], 1).flatten(0, 1)
    for first, second in itertools.combinations(every, 2):
        assert not torch.allclose(first, second, atol=1e-3)


@both
def test_views__leave_the_input_and_carry_no_gradient(views, x):
    before = x.clone()
    with_gradient = x.clone().requires_grad_(True)
    assert not any(view.requires_grad for view in views(with_gradient, generator()))
    assert torch.equal(x, before)


@both
def test_views__pretext_targets_are_uniform(views, x):
    own = generator()
    targets = torch.cat([views(x, own).pretext_target for _ in range(100)])
    counts = torch.bincount(targets, minlength=4)  # 1600 draws: 400 each, deviation 17
    assert len(counts) == 4
    assert (counts - 400).abs().max() < 80


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@both
def test_views__a_cpu_generator_serves_a_gpu(views, x):
    on_gpu, on_cpu = views(x.cuda(), generator()), views(x, generator())
    for a, b in zip(on_gpu, on_cpu, strict=True):
        assert a.is_cuda
        torch.testing.assert_close(a.cpu(), b)


# ---- SmallGreyViews ------------------------------------------------------------------------------


@pytest.mark.parametrize("x", [images(), images(channels=3, side=7), images()[:, 0]])
@pytest.mark.parametrize("background", [0.0, 0.4, None])
def test_grey__zero_widths_give_the_model_input(x, background):
    drawn = grey(background=background)(x, generator())
    expected = to_model_input(x)
    torch.testing.assert_close(drawn.x1, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(drawn.x2, expected, rtol=0, atol=1e-5)
    assert set(drawn.pretext_target.tolist()) == {0, 1, 2, 3}
    for i, a in enumerate(drawn.pretext_target.tolist()):
        turned = torch.rot90(expected[i], a, dims=(1, 2))
        torch.testing.assert_close(drawn.x3[i], turned, rtol=0, atol=1e-5)


def test_grey__x3_turns_a_draw_of_its_own():
    drawn = SmallGreyViews(noise=0.0)(images(), generator())
    upright = transforms.rotate_quarters(drawn.x3, (4 - drawn.pretext_target) % 4)
    assert not any(torch.allclose(a, b, atol=1e-3) for a, b in zip(upright, drawn.x1, strict=True))
    assert not any(torch.allclose(a, b, atol=1e-3) for a, b in zip(upright, drawn.x2, strict=True))


def test_grey__uint8_and_unit_floats_are_the_same_images():
    bytes_ = (images() * 255).to(torch.uint8)
    views = SmallGreyViews()
    from_bytes, from_floats = views(bytes_, generator()), views(bytes_ / 255, generator())
    assert same(from_bytes, from_floats)


def test_grey__channels_move_together():
    x = images().repeat(1, 3, 1, 1)
    x1 = SmallGreyViews(noise=0.0)(x, generator()).x1
    torch.testing.assert_close(x1[:, 0], x1[:, 1])
    torch.testing.assert_close(x1[:, 0], x1[:, 2])
    noisy = grey(noise=0.1)(x, generator()).x1
    assert not torch.allclose(noisy[:, 0], noisy[:, 1])  # noise is per pixel and channel


def test_grey__movements_fill_their_ranges(monkeypatch):
    seen = {}

    def spy(**draws):
        seen.update(draws)
        return transforms_affine(**draws)

    transforms_affine = transforms.affine_matrices
    monkeypatch.setattr(transforms, "affine_matrices", spy)
    views = SmallGreyViews(rotation=20.0, shear=0.3, scale=0.4, translation=0.2)
    views(images(batch=1000), generator())
    centred = {
        "degrees": seen["degrees"] / 20.0,
        "shear": seen["shear"] / 0.3,
        "scale": (seen["scale"] - 1) / 0.4,
        "x": seen["shift"][:, 0] / 0.2,
        "y": seen["shift"][:, 1] / 0.2,
    }
    for name, draws in centred.items():
        assert draws.shape == (3000,), name  # one per image and view
        assert draws.abs().max() <= 1.0001, name
        assert (draws.min(), draws.max()) == (
            pytest.approx(-1, abs=0.01),
            pytest.approx(1, abs=0.01),
        )
        assert draws.mean() == pytest.approx(0, abs=0.05), name
        assert draws.std() == pytest.approx(3**-0.5, abs=0.03), name
    pairs = torch.corrcoef(torch.stack(list(centred.values()))) - torch.eye(5)
    assert pairs.abs().max() < 0.1  # and each is drawn by itself


def test_grey__gain_is_about_the_background():
    white, background = torch.full((500, 1, 2, 2), 0.8), 0.2
    out = pixels(grey(gain=0.5, background=background)(white, generator()).x1)[:, 0]
    assert torch.equal(out.amax((1, 2)), out.amin((1, 2)))
    # 0.2 + (0.8 - 0.2) * [0.5, 1.5]
    assert out.min() == pytest.approx(0.5, abs=0.01)
    assert out.max() == pytest.approx(1.1, abs=0.01)
    empty = torch.full((500, 1, 2, 2), background)
    unchanged = pixels(grey(gain=0.5, background=background)(empty, generator()).x1)
    torch.testing.assert_close(unchanged, empty)


def test_grey__offset_shifts_the_whole_picture():
    out = pixels(grey(offset=0.3)(torch.full((500, 1, 2, 2), 0.5), generator()).x1)[:, 0]
    assert torch.equal(out.amax((1, 2)), out.amin((1, 2)))
    assert out.min() == pytest.approx(0.2, abs=0.01)
    assert out.max() == pytest.approx(0.8, abs=0.01)


def test_grey__noise_has_its_deviation_per_pixel():
    x = images(batch=200)
    noise = pixels(grey(noise=0.2)(x, generator()).x1) - x
    assert noise.std() == pytest.approx(0.2, rel=0.03)
    assert noise.mean() == pytest.approx(0, abs=0.01)
    neighbours = torch.corrcoef(torch.stack((noise[..., 0].flatten(), noise[..., 1].flatten())))
    assert neighbours[0, 1].abs() < 0.1


@pytest.mark.parametrize(
    ("background", "value", "kept"),
    [(0.0, 0.0, True), (0.3, 0.3, True), (0.0, 1.0, False), (None, 1.0, True), (None, 0.6, True)],
)
def test_grey__background_comes_in_from_outside(background, value, kept):
    flat = torch.full((50, 1, 8, 8), value)
    out = pixels(grey(translation=0.4, background=background)(flat, generator()).x1)
    assert torch.allclose(out, flat, atol=1e-5) is kept


@pytest.mark.parametrize("shape", [(4, 1, 8, 10), (4, 28, 27)])
def test_grey__refuses_what_is_not_square(shape):
    height, width = shape[-2:]
    message = rf"square images for views `grey` .*H = W\), got H={height}, W={width}; crop or pad"
    with pytest.raises(DataError, match=message):
        SmallGreyViews()(torch.zeros(shape), generator())


# ---- TableViews ----------------------------------------------------------------------------------


def coded(batch=8, features=5):
    """Row and column can be read off each value."""
    return torch.arange(batch).view(-1, 1) * 100.0 + torch.arange(features)


def test_table__no_change_gives_the_rows_and_rolls_x3():
    x = coded(batch=32)
    drawn = TableViews(**UNTOUCHED, pretext="rolled")(x, generator())
    assert torch.equal(drawn.x1, x)
    assert torch.equal(drawn.x2, x)
    assert set(drawn.pretext_target.tolist()) == {0, 1, 2, 3}
    for i, a in enumerate(drawn.pretext_target.tolist()):
        assert torch.equal(drawn.x3[i], torch.roll(x[i], a * 5 // 4))


@pytest.mark.parametrize("options", [{}, {"replacement": "marginals"}, {"corruption": 0.9}])
def test_table__x3_has_as_many_features_replaced_as_the_target_says(options):
    """None, a third, two thirds or all, whatever the other views have."""
    x = coded(batch=2000, features=12)
    drawn = TableViews(**{**UNTOUCHED, **options})(x, generator())
    changed = (drawn.x3 != x).float()
    for a in range(4):
        of = changed[drawn.pretext_target == a]
        assert len(of) > 400
        assert of.mean().item() == pytest.approx(a / 3, abs=0.02)
        assert of.mean(0).std() < 0.05  # no column is favoured
    usual = {"corruption": 0.0, **options}.get("corruption")
    assert (drawn.x1 != x).float().mean().item() == pytest.approx(usual, abs=0.02)


def test_table__categories_are_replaced_in_x3_as_a_whole():
    x = coded(batch=500, features=9)
    groups = ((2, 3, 4), (6, 7))
    drawn = TableViews(noise=0.0, one_hot=groups)(x, generator())
    for group in groups:
        donors = drawn.x3[:, list(group)] // 100
        assert (donors == donors[:, :1]).all()


def test_table__an_unknown_pretext_is_refused():
    with pytest.raises(ParameterError, match="`pretext` to be 'replaced' or 'rolled', got 'roll'"):
        TableViews(pretext="roll")


def test_table__takes_features_of_other_rows_of_the_same_column():
    x = coded()
    drawn = TableViews(corruption=1.0, noise=0.0)(x, generator())
    for view in drawn[:2]:
        assert torch.equal(view % 100, x % 100)  # the column stays
        assert ((view // 100) != (x // 100)).all()  # the row never does
    every = torch.stack([TableViews(1.0, 0.0)(x, generator(seed)).x1 // 100 for seed in range(100)])
    for row in range(8):
        assert set(every[:, row].flatten().tolist()) == set(range(8)) - {row}
    assert any(len(set(r.tolist())) > 1 for r in drawn.x1 // 100)  # a donor per feature


def test_table__corrupts_at_its_rate():
    x = coded(batch=400, features=20)
    drawn = TableViews(corruption=0.3, noise=0.0)(x, generator())
    changed = (drawn.x1 != x).float()
    assert changed.mean() == pytest.approx(0.3, abs=0.02)
    assert changed.mean(0).std() < 0.05  # no column and no row is favoured
    assert changed.mean(1).std() == pytest.approx((0.3 * 0.7 / 20) ** 0.5, rel=0.2)


def test_table__one_row_has_nobody_to_take_from():
    x = coded(batch=1)
    assert torch.equal(TableViews(corruption=1.0, noise=0.0)(x, generator()).x1, x)


def test_table__noise_has_its_deviation():
    x = rows(batch=500, features=20)
    noise = TableViews(corruption=0.0, noise=0.4)(x, generator()).x1 - x
    assert noise.std() == pytest.approx(0.4, rel=0.03)
    assert noise.mean() == pytest.approx(0, abs=0.02)


def test_table__refuses_fewer_than_four_features():
    with pytest.raises(DataError, match=r"at least 4 features for views `table` .*, got F=3"):
        TableViews()(torch.zeros(8, 3), generator())
    assert TableViews()(torch.zeros(8, 4), generator()).x1.shape == (8, 4)


# ---- What is refused -----------------------------------------------------------------------------

IMAGES = r"`x` to be images \(B, C, H, W\) or \(B, H, W\) for views `grey`"
ROWS = r"`x` to be rows \(B, F\) for views `table`"


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("grey", (32, 16), IMAGES + r", got shape \(32, 16\); for tables use views='table'\.$"),
        ("grey", (32,), IMAGES + r", got shape \(32,\)\.$"),
        ("grey", (1, 1, 1, 8, 8), IMAGES + r", got shape \(1, 1, 1, 8, 8\)\.$"),
        (
            "table",
            (2, 1, 8, 8),
            ROWS + r", got shape \(2, 1, 8, 8\); for images use views='grey' or 'colour'\.$",
        ),
        (
            "table",
            (2, 8, 8),
            ROWS + r", got shape \(2, 8, 8\); for images use views='grey' or 'colour'\.$",
        ),
        ("table", (2,), ROWS + r", got shape \(2,\)\.$"),
        ("grey", (0, 1, 8, 8), r"at least one sample for views `grey`, got shape \(0, 1, 8, 8\)"),
        ("table", (0, 5), r"at least one sample for views `table`, got shape \(0, 5\)"),
    ],
)
def test_views__refuse_a_wrong_batch(name, shape, message):
    with pytest.raises(DataError, match=message):
        build_views(name)(torch.zeros(shape), generator())


def test_defaults__are_the_documented_ones():
    assert dataclasses.asdict(SmallGreyViews()) == {
        "rotation": 15.0,
        "translation": 0.125,
        "scale": 0.15,
        "shear": 0.1,
        "gain": 0.2,
        "offset": 0.05,
        "noise": 0.05,
        "background": 0.0,
    }
    assert dataclasses.asdict(TableViews()) == {
        "corruption": 0.3,
        "noise": 0.05,
        "replacement": "rows",
        "one_hot": (),
        "pretext": "replaced",
    }


def test_build_views__gives_the_named_family_with_its_options():
    assert build_views("grey") == SmallGreyViews()
    assert build_views("grey", rotation=3.0, background=None) == SmallGreyViews(
        rotation=3.0, background=None
    )
    assert build_views("table", corruption=0.1) == TableViews(corruption=0.1)
    assert {name: views.name for name, views in VIEWS.items()} == {
        "colour": "colour",
        "grey": "grey",
        "table": "table",
    }


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gray", {}, "`views` to be a known name, got 'gray': did you mean `grey`"),
        ("", {}, "got '': known: `colour`, `grey`, `table`"),
        (None, {}, "got None: known"),
        (
            "grey",
            {"rotatoin": 1.0},
            "views `grey` to be known, got `rotatoin`: did you mean `rotati",
        ),
        ("table", {"rotation": 1.0}, "views `table` to be known, got `rotation`: .*`corruption`"),
        ("grey", {"name": "x"}, "views `grey` to be known, got `name`"),
    ],
)
def test_build_views__names_the_nearest(name, options, message):
    with pytest.raises(ParameterError, match=message):
        build_views(name, **options)


@pytest.mark.parametrize(
    ("name", "option", "largest"),
    [
        ("grey", "rotation", 180.0),
        ("grey", "translation", None),
        ("grey", "scale", 0.9),
        ("grey", "shear", None),
        ("grey", "gain", 1.0),
        ("grey", "offset", None),
        ("grey", "noise", None),
        ("grey", "background", 1.0),
        ("table", "corruption", 1.0),
        ("table", "noise", None),
    ],
)
def test_options__have_ranges(name, option, largest):
    rule = "a finite number >= 0" if largest is None else rf"a number in \[0, {largest:g}\]"
    bad = [-0.1, float("nan"), float("inf"), "1", True]
    for value in bad if largest is None else [*bad, largest * 1.01]:
        with pytest.raises(ParameterError, match=f"`{option}` to be {rule}, got {value!r}"):
            build_views(name, **{option: value})
    for value in (0, 0.0, largest or 3.5):
        assert getattr(build_views(name, **{option: value}), option) == value


@pytest.mark.parametrize("views", [SmallGreyViews(), TableViews()])
def test_views__are_frozen(views):
    with pytest.raises(dataclasses.FrozenInstanceError):
        views.noise = 1.0


def test_views__draw_from_numpy_neither():
    np.random.seed(0)
    state = np.random.get_state()[1].tolist()
    SmallGreyViews()(images(), generator())
    TableViews()(rows(), generator())
    assert np.random.get_state()[1].tolist() == state
