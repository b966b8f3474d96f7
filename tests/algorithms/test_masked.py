import pytest
import torch

from orchestra_strategy.algorithms.masked import (
    MaskedObjective,
    chosen_parts,
    hide,
    masked_loss,
    reconstruction_loss,
)
from orchestra_strategy.algorithms.model import orchestra_model
from orchestra_strategy.data import build_row_wise_views
from orchestra_strategy.errors import ModelError, ParameterError
from orchestra_strategy.privacy import per_example_clipped_mean
from tests.algorithms import tiny

HEADS = ("decoder",)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_loss_by_hand():
    guess = torch.tensor([[1.0, 2.0, 3.0], [0.0, 5.0, 1.0]])
    target = torch.tensor([[0.0, 4.0, 9.0], [3.0, 5.0, 1.0]])
    hidden = torch.tensor([[True, True, False], [True, False, False]])
    # Each row is the mean of what it hides: (1 + 4) / 2 and 9, whatever the other row hides.
    assert masked_loss(guess, target, hidden).item() == ((1 + 4) / 2 + 9) / 2


def test_only_what_is_hidden_counts():
    guess, target = (torch.randn(6, 64, generator=generator(seed)) for seed in (1, 2))
    hidden = torch.rand(6, 64, generator=generator(3)) < 0.5
    guess.requires_grad_()
    masked_loss(guess, target, hidden).backward()
    assert (guess.grad[hidden] != 0).all()
    assert (guess.grad[~hidden] == 0).all()


@pytest.mark.parametrize("side", [8, 28])
def test_patches_of_a_picture_are_grey_and_their_cells_are_told(side):
    x = torch.rand(5, 3, side, side, generator=generator()) + 0.1
    found = hide(x, 0.5, generator(1))
    grey = (found["inputs"] == 0).all(dim=1)
    assert torch.equal(found["inputs"], torch.where(grey.unsqueeze(1), 0.0, x))
    cells = found["hidden"].view(5, 3, 8, 8)
    assert (cells.sum(dim=(2, 3)) == 32).all()  # 8 of 16 patches of 4 cells
    patches = cells[:, 0, ::2, ::2]
    # A cell says whether the pixel at its centre is hidden.
    centre = ((torch.arange(8) + 0.5) * side / 8).long()
    assert torch.equal(grey[:, centre][:, :, centre][:, ::2, ::2], patches)
    assert torch.allclose(found["target"].mean(dim=1), torch.zeros(5), atol=1e-5)
    assert torch.allclose(found["target"].std(dim=1), torch.ones(5), atol=1e-4)


@pytest.mark.parametrize(("high", "wide"), [(1, 1), (2, 3), (3, 8)])
def test_a_picture_of_few_pixels_always_has_some_hidden(high, wide):
    x = torch.ones(50, 1, high, wide)
    found = hide(x, 0.1, generator())
    hidden = (found["inputs"] == 0).flatten(1).sum(dim=1)
    assert (hidden == (2 if wide == 8 else 1)).all()  # a patch of the last is one pixel by two
    assert (found["hidden"].sum(dim=1) > 0).all()


def test_targets_by_hand_and_an_even_picture_is_finite():
    x = torch.zeros(2, 1, 16, 16)
    x[0, 0, :2, :2] = torch.tensor([[0.0, 1.0], [1.0, 2.0]])  # the first cell's mean is 1
    target = hide(x, 0.5, generator())["target"]
    mean, std = 1 / 64, (1 / 64) ** 0.5  # of 63 zeros and a one; the variance is 1 / 64, unbiased
    assert target[0, 0].item() == pytest.approx((1 - mean) / std, abs=1e-5)
    assert target[0, 1:].tolist() == pytest.approx([-mean / std] * 63, abs=1e-5)
    assert (target[1] == 0).all()


def test_columns_of_a_table_are_hidden_and_told_as_they_are():
    x = torch.randn(50, 9, generator=generator())
    found = hide(x, 0.4, generator(1), groups=((2, 3, 4), (6, 7)))
    hidden = found["hidden"]
    assert torch.equal(found["target"], x)
    assert torch.equal(found["inputs"], torch.where(hidden, 0.0, x))
    for group in ([2, 3, 4], [6, 7]):  # a category as a whole
        assert torch.equal(hidden[:, group], hidden[:, group[:1]].expand(-1, len(group)))
    assert (hidden[:, [0, 1, 2, 5, 6, 8]].sum(dim=1) == 2).all()  # of 6 parts, however wide
    assert hidden.any(dim=0).all()
    assert hide(x, 0.4, generator(1), groups=(range(9),))["hidden"].all()
    assert (hide(x, 0.4, generator(1))["hidden"].sum(dim=1) == 4).all()


@pytest.mark.parametrize(("ratio", "count"), [(0.01, 1), (0.3, 2), (0.99, 5)])
def test_never_none_and_never_all_are_hidden(ratio, count):
    assert chosen_parts(torch.rand(9, 6, generator=generator()), ratio).sum(dim=1).unique() == count


@pytest.mark.parametrize("shape", [(3, 8, 8), (9,)])
def test_a_row_of_other_content_or_one_more_changes_nothing_for_the_others(shape):
    x = torch.rand(7, *shape, generator=generator(3))
    other = torch.cat((x, x[:1]))
    other[3] = 5.0
    kept = [0, 1, 2, 4, 5, 6]
    found, changed = hide(x, 0.6, generator()), hide(other, 0.6, generator())
    for name, value in found.items():
        assert torch.equal(value[kept], changed[name][kept])


def test_it_learns_what_was_hidden():
    model = tiny.model(HEADS)
    losses = tiny.train(model, tiny.objective(MaskedObjective, model), steps=40)
    assert losses[0] > 1.0
    assert sum(losses[-5:]) / 5 < 0.75


def test_per_example_gradients_are_the_batch_gradient_where_nothing_is_clipped():
    model = tiny.model(HEADS, norm="group")
    plain, clipped = (tiny.objective(MaskedObjective, model) for _ in range(2))
    plain(model, tiny.batch(8)).total.backward()
    got = per_example_clipped_mean(clipped, model, tiny.batch(8), clip_norm=1e6)
    for p, gradient in zip(model.parameters(), got.gradients):
        assert torch.allclose(p.grad, gradient, atol=1e-5)
        assert gradient.abs().sum() > 0


def test_tables_hide_categories_as_a_whole():
    model = orchestra_model("mlp", 9, "group", hidden_dim=8, projection_dim=8, heads=HEADS)
    assert model.decoder.out_features == 9
    views = build_row_wise_views("table", one_hot=[[2, 3, 4]])
    objective = MaskedObjective(model, views, MaskedObjective.settings_class(), generator())
    batch = {"inputs": torch.randn(20, 9, generator=generator(1))}
    _, prepared = objective.per_example(model, batch)
    assert prepared["hidden"][:, 2:5].sum(dim=1).unique().tolist() == [0, 3]


def test_a_decoder_of_another_size_is_refused():
    for given in (None, 0, "10", 2.0):
        rule = f"`decoded_values` of the model to be a whole number of at least 1 .* got {given!r};"
        with pytest.raises(ParameterError, match=rule):
            tiny.OrchestraModel(torch.nn.Identity(), 3, heads=HEADS, decoded_values=given)
    prepared = hide(torch.rand(2, 3, 8, 8), 0.5, generator())
    with pytest.raises(ModelError, match=r"to give 192 values .*, got 64; .*decoded_values=192"):
        reconstruction_loss(tiny.model(HEADS), prepared)
