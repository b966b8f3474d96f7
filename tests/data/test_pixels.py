"""The scale of images: which pixels are refused, where, and how they are brought to [0, 1]."""

import numpy as np
import pytest

from orchestra_strategy.data import as_samples, check_parties, describe_samples
from orchestra_strategy.data.pixels import check_value_range, to_unit_range
from orchestra_strategy.errors import DataError, ParameterError

GREY = np.arange(2 * 4 * 4).reshape(2, 4, 4)

OTHERS = {
    "digits from 0 to 16": GREY % 17 + 0.0,
    "0..255 as float": GREY * 8.0,
    "0..255 as int64": GREY * 8,
    "16 bits": (GREY * 2000).astype(np.uint16),
    "normalised by mean and deviation": (GREY - 15.5) / 9,
    "Hounsfield units": (GREY * 100 - 1000).astype(np.int16),
    "a hair below 0": np.where(GREY == 3, -1e-3, 0.5),
    "of a batch of colour": np.full((1, 3, 2, 2), 2.0),
}


@pytest.mark.parametrize("x", OTHERS.values(), ids=OTHERS)
def test_other_pixels_are_refused_at_the_party_and_on_the_driver(x):
    with pytest.raises(DataError, match=r"to be uint8 or in \[0, 1\], got .*`value_range=\(black"):
        as_samples(x)
    reports = {"alice": describe_samples(x), "bob": describe_samples(x)}
    with pytest.raises(
        DataError, match=r"`alice` .* neither uint8 nor in \[0, 1\]; party `bob` ha"
    ):
        check_parties(reports, k_min=1)


@pytest.mark.parametrize(
    "x", [GREY.astype(np.uint8), GREY / 31, GREY // 31, GREY / 31 + 5e-7, GREY.reshape(2, 16)]
)
def test_pixels_in_the_unit_range_and_tables_pass(x):
    assert as_samples(x).shape == x.shape
    check_parties({"alice": describe_samples(x)}, k_min=1)


def test_where_values_may_not_be_looked_at_the_dtype_decides():
    floats = GREY * 8.0
    assert describe_samples(floats, values=False)["unit_range"]
    assert as_samples(floats, mend=True).max() == 1
    # Cut off at 1, whole numbers would all be black or white.
    assert not describe_samples(GREY, values=False)["unit_range"]
    with pytest.raises(DataError, match="got int64 outside"):
        as_samples(GREY // 31, mend=True)
    assert as_samples(GREY.astype(np.uint8), mend=True).max() == 31


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int64", "float32", "float64", ">i2"])
def test_to_unit_range__black_is_0_white_is_1_and_the_rest_is_cut(dtype, monkeypatch):
    monkeypatch.setattr("orchestra_strategy.data.pixels._BLOCK", 20)  # a row at a time
    scaled = to_unit_range((GREY + 1).astype(dtype), (1.0, 21.0))
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, np.minimum(GREY / 20, 1), atol=1e-7)
    assert as_samples(scaled).max() == 1


def test_to_unit_range__keeps_the_digits_of_a_range_far_from_0():
    x = np.array([[[1e9, 1e9 + 1, 1e9 + 4]]])
    assert to_unit_range(x, (1e9, 1e9 + 4)).tolist() == [[[0, 0.25, 1]]]


def test_to_unit_range__leaves_nan_to_be_found():
    with pytest.raises(DataError, match="got 1 NaN"):
        as_samples(to_unit_range(np.array([[[np.nan, 1.0]]]), (0.0, 2.0)))


@pytest.mark.parametrize(
    ("x", "got"),
    [(np.ones((2, 3)), r"float64 \(2, 3\)"), (np.ones((1, 2, 2), bool), "bool"), ([1], "list")],
)
def test_to_unit_range__is_for_images(x, got):
    with pytest.raises(DataError, match=f"Expected images .* for `value_range`, got {got}"):
        to_unit_range(x, (0.0, 1.0))


@pytest.mark.parametrize(
    "value_range", [(0,), (1, 0), (0, 0), (0, np.inf), (np.nan, 1), "01", 255, (False, True)]
)
def test_check_value_range__refuses(value_range):
    with pytest.raises(ParameterError, match=r"`value_range` to be \(black, white\), two finite"):
        check_value_range(value_range)
