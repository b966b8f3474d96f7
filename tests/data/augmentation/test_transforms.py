"""The transformations against obvious versions: torch's own, and loops over pixels."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra_strategy.data.augmentation.transforms import (
    affine_matrices,
    corrupt_features,
    roll_quarters,
    rotate_quarters,
    warp,
)

EVERY_QUARTER = torch.tensor([0, 1, 2, 3])


def move(x, degrees=0.0, shear=0.0, scale=1.0, shift=(0.0, 0.0), padding="zeros"):
    """Move all images of ``x`` alike."""
    ones = torch.ones(len(x))
    matrices = affine_matrices(
        degrees * ones, shear * ones, scale * ones, torch.tensor([shift] * len(x))
    )
    return warp(x, matrices, padding)


def numbered(*shape):
    return torch.arange(float(math.prod(shape))).reshape(shape)


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("side", [1, 7, 8, 28])
def test_warp__identity_parameters_reproduce_the_input(side, padding):
    x = torch.rand(3, 2, side, side, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(move(x, padding=padding), x, rtol=0, atol=1e-5)


def test_warp__shift_moves_the_content_right_and_down():
    x = numbered(1, 1, 4, 4) + 1
    right = move(x, shift=(0.25, 0.0))[0, 0]  # a quarter of four pixels: one
    assert right[:, 0].tolist() == pytest.approx([0, 0, 0, 0])
    torch.testing.assert_close(right[:, 1:], x[0, 0, :, :-1])
    down = move(x, shift=(0.0, 0.5))[0, 0]
    torch.testing.assert_close(down[2:], x[0, 0, :-2])
    assert down[:2].abs().max() < 1e-5


def test_warp__border_repeats_the_edge():
    x = numbered(1, 1, 4, 4) + 1
    right = move(x, shift=(0.25, 0.0), padding="border")[0, 0]
    torch.testing.assert_close(right[:, 0], x[0, 0, :, 0])


@pytest.mark.parametrize("side", [4, 5])
def test_warp__turns_clockwise(side):
    x = numbered(2, 3, side, side)
    expected = torch.rot90(x, -1, dims=(2, 3))
    torch.testing.assert_close(move(x, degrees=90.0), expected, rtol=0, atol=1e-3)


def test_warp__scale_above_one_enlarges():
    x = torch.zeros(1, 1, 8, 8)
    x[:, :, 3:5, 3:5] = 1.0
    assert move(x, scale=2.0).sum() == pytest.approx(16, rel=0.1)  # 4 pixels become 4 * 2**2
    assert move(x, scale=0.5).sum() == pytest.approx(1, rel=0.1)


def slow_warp(image, degrees, shear, scale, shift, padding):
    """Move one (H, H) picture: for every output pixel, find where its content came from."""
    side = len(image)
    angle = math.radians(degrees)
    rotate = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    forward = scale * rotate @ np.array([[1.0, shear], [0.0, 1.0]])
    moved = np.zeros((side, side))
    for row in range(side):
        for column in range(side):
            here = np.array([(2 * column + 1) / side - 1, (2 * row + 1) / side - 1])
            there = np.linalg.solve(forward, here) - 2 * np.array(shift)
            x, y = ((there + 1) * side - 1) / 2
            if padding == "border":
                x, y = np.clip([x, y], 0, side - 1)
            for r in (math.floor(y), math.floor(y) + 1):
                for c in (math.floor(x), math.floor(x) + 1):
                    if 0 <= r < side and 0 <= c < side:
                        moved[row, column] += image[r, c] * (1 - abs(y - r)) * (1 - abs(x - c))
    return moved


@settings(max_examples=25, deadline=None)
@given(
    degrees=st.lists(st.floats(-180, 180), min_size=2, max_size=2),
    shear=st.floats(-0.5, 0.5),
    scale=st.floats(0.5, 2.0),
    shift=st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5)),
    padding=st.sampled_from(["zeros", "border"]),
)
def test_warp__equals_the_slow_version(degrees, shear, scale, shift, padding):
    x = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    ones = torch.ones(2)
    shifts = torch.tensor([shift, (0.0, 0.0)])  # each image has its own numbers
    matrices = affine_matrices(torch.tensor(degrees), shear * ones, scale * ones, shifts)
    fast = warp(x, matrices, padding).numpy()
    for i in range(2):
        slow = slow_warp(x[i, 0].numpy(), degrees[i], shear, scale, shifts[i].tolist(), padding)
        np.testing.assert_allclose(fast[i, 0], slow, atol=1e-4)


@pytest.mark.parametrize("side", [1, 2, 5, 8])
@pytest.mark.parametrize("channels", [1, 3])
def test_rotate_quarters__equals_rot90(side, channels):
    x = numbered(4, channels, side, side)
    turned = rotate_quarters(x, EVERY_QUARTER)
    for a in range(4):
        assert torch.equal(turned[a], torch.rot90(x[a], a, dims=(1, 2)))


@pytest.mark.parametrize("num_features", range(4, 30))
def test_roll_quarters__equals_roll_and_tells_four_apart(num_features):
    x = numbered(1, num_features).repeat(4, 1)
    rolled = roll_quarters(x, EVERY_QUARTER)
    for a in range(4):
        assert torch.equal(rolled[a], torch.roll(x[a], a * num_features // 4))
    assert len({tuple(row) for row in rolled.tolist()}) == 4


def test_roll_quarters__each_row_by_its_own():
    rolled = roll_quarters(numbered(2, 4), torch.tensor([3, 1]))
    assert rolled.tolist() == [[1, 2, 3, 0], [7, 4, 5, 6]]


def test_corrupt_features__by_hand():
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    replaced = torch.tensor([[[1, 0], [0, 1], [1, 1]], [[0, 0], [0, 0], [0, 1]]]).bool()
    donors = torch.tensor([[[2, 1], [0, 0], [1, 0]], [[1, 1], [2, 2], [0, 1]]])
    assert corrupt_features(x, replaced, donors).tolist() == [
        [[5, 2], [3, 2], [3, 2]],
        [[1, 2], [3, 4], [5, 4]],
    ]
