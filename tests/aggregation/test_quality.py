"""The server's mean where parties send how good their clusters are."""

import numpy as np
import pytest

from orchestra_strategy import server_aggregation
from orchestra_strategy.aggregation.weighted import weighted_mean
from orchestra_strategy.errors import ParameterError, ReplyError


def wire(value, samples, quality):
    arrays = {"weights/w": np.full(2, value, np.float32)}
    if quality is not None:
        arrays["quality"] = np.asarray(quality, np.float32)
    meta = {"version": 1, "round": 1, "phase": "round", "num_samples": samples}
    return {"meta": meta, "arrays": arrays}


def mean(*wires, aggregation="quality", **options):
    replies = server_aggregation(aggregation=aggregation, **options)(wires)
    assert "quality" not in replies[0]["arrays"]
    return replies[0]["arrays"]["weights/w"][0]


def test_a_partys_weight_is_its_samples_times_its_quality():
    got = mean(wire(1.0, 10, [0.5]), wire(4.0, 5, [0.25]))
    assert got == pytest.approx((1.0 * 10 * 0.5 + 4.0 * 5 * 0.25) / (10 * 0.5 + 5 * 0.25))


def test_equal_qualities_change_nothing_and_a_quality_of_0_counts_for_nothing():
    assert mean(wire(1.0, 1, [0.5]), wire(4.0, 2, [0.5])) == 3.0
    assert mean(wire(1.0, 1, [0.0]), wire(4.0, 2, [0.5])) == 4.0


def test_qualities_that_are_all_0_leave_the_numbers_of_samples():
    assert mean(wire(1.0, 1, [0.0]), wire(4.0, 2, [0.0])) == 3.0


def test_a_custom_aggregation_beside_it_is_refused():
    with pytest.raises(ParameterError, match="got both: 'weighted_mean' and 'quality'"):
        mean(wire(1.0, 1, [0.5]), aggregate_weights=weighted_mean)


@pytest.mark.parametrize("aggregation", ["mean", "median"])
def test_a_quality_that_is_not_asked_for_is_refused(aggregation):
    with pytest.raises(ReplyError, match="Expected no `quality` from party 0, got one"):
        mean(wire(1.0, 1, [0.5]), wire(4.0, 2, [0.5]), aggregation=aggregation)


@pytest.mark.parametrize(
    ("quality", "message"),
    [
        ([1.5], r"`quality` of party 1 to be one number in \[0, 1\], got 1.5"),
        ([-0.1], r"`quality` of party 1 to be one number in \[0, 1\]"),
        ([0.5, 0.5], r"`quality` of party 1 to be one number in \[0, 1\], got shape \(2,\)"),
        ([], r"`quality` of party 1 to be one number in \[0, 1\], got shape \(0,\)"),
        (0.5, r"`quality` of party 1 to be one number in \[0, 1\], got shape \(\)"),
        ([np.nan], "`quality` of party 1 to be finite, got NaN"),
        (None, "Expected a `quality` from party 1, got none: `aggregation` has to be 'quality' at"),
    ],
)
def test_anything_else_is_refused(quality, message):
    with pytest.raises(ReplyError, match=message):
        mean(wire(1.0, 1, [1.0]), wire(1.0, 1, quality))
