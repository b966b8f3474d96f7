"""The gate for a party's array, and the comparison of parties."""

import json

import numpy as np
import pytest

from orchestra_strategy.data import PartyReport, as_samples, check_parties, describe_samples
from orchestra_strategy.errors import DataError, ParameterError


def report(shape=(10, 8, 8), dtype=np.float32, y=None, value=0.5):
    return describe_samples(np.full(shape, value, dtype), y)


@pytest.mark.parametrize("shape", [(5, 3), (5, 8, 8), (5, 3, 8, 8), (1, 1)])
@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("uint8", "uint8"),
        ("float32", "float32"),
        ("float64", "float32"),
        ("float16", "float32"),
        (">f4", "float32"),
        ("int64", "float32"),
        ("uint16", "float32"),
        ("int8", "float32"),
    ],
)
def test_as_samples__dtypes_and_ranks(shape, dtype, expected):
    # Pixels but of uint8 are in [0, 1]; columns of a table have no scale.
    x = np.arange(np.prod(shape)).reshape(shape) % (2 if len(shape) > 2 else 100)
    samples = as_samples(x.astype(dtype))
    assert samples.dtype == np.dtype(expected)
    assert samples.dtype.isnative
    assert samples.shape == shape
    assert np.array_equal(samples, x)


def test_not_finite__is_found_in_any_block(monkeypatch):
    monkeypatch.setattr("orchestra_strategy.data.pixels._BLOCK", 6)
    x = np.zeros((7, 3))  # two rows a block
    x[4, 1], x[5, 0], x[6, 2] = np.nan, np.inf, -np.inf
    with pytest.raises(DataError, match=r"got 3 NaN .* of 21 .* the first at index \(4, 1\)"):
        as_samples(x)
    assert describe_samples(x)["num_not_finite"] == 3
    assert describe_samples(np.asfortranarray(x))["num_not_finite"] == 3
    images = np.zeros((7, 2, 2))
    images[6, 1, 1] = 1.5
    assert not describe_samples(images)["unit_range"]
    assert describe_samples(images[:6])["unit_range"]


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_as_samples__is_a_read_only_view(dtype):
    x = np.ones((4, 3), dtype)
    samples = as_samples(x)
    assert np.shares_memory(samples, x)
    assert not samples.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        samples[0, 0] = 2
    assert x.flags.writeable  # the caller's own array stays as it was
    x[0, 0] = 7


def test_as_samples__copies_what_is_not_contiguous():
    x = np.arange(12, dtype=np.float32).reshape(3, 4).T
    samples = as_samples(x)
    assert samples.flags.c_contiguous
    assert not samples.flags.writeable
    assert np.array_equal(samples, x)
    read_only = np.ones((2, 2), np.float32)
    read_only.flags.writeable = False
    assert np.array_equal(as_samples(read_only), read_only)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([[1.0]], r"`x` to be a numpy array, got list; use numpy.asarray"),
        (np.ones((2, 2), bool), "`x` to hold integers or floats, got dtype bool"),
        (np.ones((2, 2), object), "got dtype object"),
        (np.ones((2, 2), complex), "got dtype complex128"),
        (np.array([["a"]]), "got dtype <U1"),
        (np.ones(3), r"a table \(N, F\), grey images .*, got shape \(3,\)"),
        (np.ones(()), r"got shape \(\)"),
        (np.ones((1, 1, 1, 1, 1)), r"got shape \(1, 1, 1, 1, 1\)"),
        (np.ones((0, 3)), r"at least one sample, got shape \(0, 3\)"),
        (np.ones((3, 0)), r"at least one sample, got shape \(3, 0\)"),
    ],
)
def test_as_samples__refuses(x, message):
    with pytest.raises(DataError, match=message):
        as_samples(x)


@pytest.mark.parametrize(
    "bad", [np.nan, np.inf, -np.inf, 1e39], ids=["nan", "inf", "-inf", "overflow"]
)
def test_as_samples__counts_what_is_not_finite(bad):
    x = np.zeros((4, 3))  # float64: 1e39 is finite here, and not in float32
    x[1, 2] = x[3, 0] = bad
    message = r"got 2 NaN or infinite values of 12 \(in float32\), the first at index \(1, 2\)"
    with pytest.raises(DataError, match=message):
        as_samples(x)


def test_describe_samples__plain_values():
    described = describe_samples(np.zeros((3, 8, 8), np.uint8), y=np.arange(3))
    assert described == {
        "num_samples": 3,
        "sample_shape": (8, 8),
        "dtype": "uint8",
        "finite": True,
        "num_not_finite": 0,
        "unit_range": True,
        "num_labels": 3,
        "labels": "",
    }
    assert PartyReport(**described).num_samples == 3
    back = json.loads(json.dumps(described))
    assert back["num_samples"] == 3
    assert all(type(value) in (int, str, bool, tuple) for value in described.values())


def test_describe_samples__without_labels():
    assert describe_samples(np.zeros((3, 8)))["num_labels"] is None


def test_describe_samples__reports_faults_instead_of_raising():
    x = np.array([[0.0, np.nan], [np.inf, 1.0]])
    assert (describe_samples(x)["finite"], describe_samples(x)["num_not_finite"]) == (False, 2)
    assert describe_samples(np.ones((2, 2), object))["dtype"] == "object"
    assert describe_samples(np.zeros((0, 2)))["num_samples"] == 0


@pytest.mark.parametrize(
    ("x", "inside"),
    [
        (np.full((2, 4, 4), 1.0), True),
        (np.full((2, 4, 4), 1.01), False),
        (np.full((2, 4, 4), -0.01), False),
        (np.full((2, 4, 4), 255, np.uint8), True),
        (np.full((2, 4, 4), 255, np.int64), False),
        (np.full((2, 4), 255.0), True),  # a table's values have no common scale
        (np.full((2, 4, 4), np.nan), True),  # counted under num_not_finite
    ],
)
def test_describe_samples__unit_range_of_pixels(x, inside):
    assert describe_samples(x)["unit_range"] is inside


@pytest.mark.parametrize(("x", "got"), [([1.0], "got list"), (np.array(1.0), r"got shape \(\)")])
def test_describe_samples__needs_an_array(x, got):
    with pytest.raises(DataError, match=rf"`x` to be a numpy array \(N, ...\), {got}"):
        describe_samples(x)


def test_check_parties__accepts_equal_parties():
    labelled = report((4, 8, 8), y=[0, 1, 2, 3])
    assert check_parties({"alice": report(), "bob": labelled}, k_min=4) is None
    # Grey with and without a channel axis are the same to a model, and so is uint8.
    mixed = {"alice": report(), "bob": report((9, 1, 8, 8), np.uint8, value=200)}
    assert check_parties(mixed, k_min=4) is None
    # As they look after a trip through JSON.
    trip = {name: json.loads(json.dumps(r)) for name, r in mixed.items()}
    assert check_parties(trip, k_min=4) is None


@pytest.mark.parametrize(
    ("bob", "message"),
    [
        (
            report((10, 64)),
            r"sample shape differs: \(1, 8, 8\) at `alice` `carol`, \(64,\) at `bob`",
        ),
        (report(y=[0] * 9), "party `bob` has 9 labels for 10 samples"),
        (report(y=[]), "party `bob` has 0 labels for 10 samples"),
        (report(value=np.nan), "party `bob` has 640 NaN or infinite values"),
        (report((3, 8, 8)), "party `bob` has 3 samples, below `k_min`=4"),
        (report(dtype=object), "party `bob` has dtype object, no integers or floats"),
        (
            report(value=2.0),
            r"party `bob` has pixels of float32 that are neither .* in \[0, 1\]\. Of pixels",
        ),
    ],
)
def test_check_parties__names_party_and_numbers(bob, message):
    with pytest.raises(DataError, match=message) as caught:
        check_parties({"alice": report(), "bob": bob, "carol": report()}, k_min=4)
    assert ";" not in str(caught.value).split(". Of pixels")[0]  # one fault, one sentence


def test_check_parties__collects_all_problems():
    reports = {
        "alice": report((2, 8, 8), y=[1]),
        "bob": report((10, 64), value=np.inf),
        "carol": report(),
    }
    with pytest.raises(DataError) as caught:
        check_parties(reports, k_min=4)
    assert str(caught.value) == (
        "Expected `reports` of parties that can train together, got: "
        "party `alice` has 2 samples, below `k_min`=4; "
        "party `alice` has 1 labels for 2 samples; "
        "party `bob` has 640 NaN or infinite values; "
        "sample shape differs: (1, 8, 8) at `alice` `carol`, (64,) at `bob`"
    )


def test_check_parties__refuses_no_party_and_foreign_reports():
    with pytest.raises(DataError, match="got: no party has data"):
        check_parties({}, k_min=4)
    with pytest.raises(DataError, match=r"of party `bob` to have the keys \['dtype'.*got \['n'"):
        check_parties({"alice": report(), "bob": {"n": 1}}, k_min=4)
    with pytest.raises(ParameterError, match="`k_min` to be an integer >= 1, got 0"):
        check_parties({"alice": report()}, k_min=0)
