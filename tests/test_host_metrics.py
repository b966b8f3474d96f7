"""Numbers of FLModel's history, which SecretFlow would have TensorFlow divide."""

import pickle

import numpy as np
import pytest

from orchestra_strategy import host
from orchestra_strategy.host_metrics import PartyMean


@pytest.mark.parametrize(
    ("total", "count"), [(1.0, 3.0), (-2.5e-9, 7.0), (1e30, 11.0), (0.1, 0.0), (np.nan, 2.0)]
)
def test_a_mean_is_secretflows_bit_for_bit(total, count):
    parts = [(total, count), (total / 3, 2 * count)]
    means = [sum(kind("loss", *part) for part in parts) for kind in (host.Mean, PartyMean)]
    want, got = (mean.result().numpy() for mean in means)
    assert type(got) is type(want) is np.float32
    assert got.tobytes() == want.tobytes() or (np.isnan(got) and np.isnan(want))


def test_it_is_one_of_secretflows_and_travels():
    mean = pickle.loads(pickle.dumps(PartyMean("loss", 1.0, 2.0)))
    assert isinstance(mean, host.Mean)
    assert (mean.name, float(mean.result())) == ("loss", 0.5)


def test_other_numbers_are_not_added():
    with pytest.raises(AssertionError):
        PartyMean("loss", 1.0, 2.0) + PartyMean("accuracy", 1.0, 2.0)
