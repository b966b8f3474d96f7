"""FLModel's arguments, a test for each row of ``docs/flmodel.md``: ``evaluate``, ``predict``."""

import numpy as np
import pytest

from orchestra_strategy import host
from orchestra_strategy.data.sources import fed_ndarray
from orchestra_strategy.errors import (
    DataError,
    ParameterError,
)
from tests.federated import toy
from tests.federated.flmodel import (
    array_files,
    fit_plain,
    image_builder,
    labels,
    plain,
)


def test_evaluate__x(devices, ours, x, tmp_path):
    found, _ = ours.evaluate(array_files(devices, tmp_path), return_dict=True)
    want, _ = ours.evaluate(x, return_dict=True)
    assert {n: float(m.result()) for n, m in found.items()} == {
        n: float(m.result()) for n, m in want.items()
    }
    one = fed_ndarray({d: toy.images(d.party)[:1] for d in devices})
    with pytest.raises(DataError, match="party `alice` has 1 samples, below"):
        ours.evaluate(one)


def test_evaluate__y(devices, ours, x):
    ours.fit(x, epochs=1)
    assert "nmi" in ours.evaluate(x, labels(devices), return_dict=True)[0]
    assert "nmi" not in ours.evaluate(x, return_dict=True)[0]
    own = plain(devices)
    fit_plain(own, x, epochs=1)
    assert "nmi" in own.evaluate(x, labels(devices), return_dict=True)[0]


def unequal(devices):
    sizes = dict(zip(devices, (6000, 5), strict=True))
    return fed_ndarray({d: toy.images(d.party, n) for d, n in sizes.items()})


@pytest.mark.parametrize("batch_size", [None, 1, 64])
def test_evaluate__batch_size(devices, ours, batch_size):
    """Of no effect, however unequal the parties are."""
    options = {} if batch_size is None else {"batch_size": batch_size}
    found, by_party = ours.evaluate(unequal(devices), return_dict=True, **options)
    assert {"alignment", "uniformity"} <= set(found)
    assert by_party["alice"]["alignment"].count == 6000
    assert by_party["bob"]["alignment"].count == 5
    own, big = plain(devices), unequal(devices)
    shares = {d: 1e-3 * shape[0] for d, shape in big.partition_shape().items()}
    assert "alignment" in own.evaluate(big, big, batch_size=shares, return_dict=True)[0]


@pytest.mark.parametrize("build", [toy.build, plain])
def test_evaluate__sample_weight(devices, x, build):
    weights = fed_ndarray({d: np.ones(toy.SIZES[d.party]) for d in devices})
    with pytest.raises(ParameterError, match="Expected no `sample_weight`"):
        build(devices).evaluate(x, x, sample_weight=weights)


def test_evaluate__label_decoder(ours, x):
    with pytest.raises(ParameterError, match="Expected no `label_decoder` in `evaluate`"):
        ours.evaluate(x, label_decoder=int)


def test_evaluate__return_dict(ours, x):
    metrics, by_party = ours.evaluate(x)
    named, _ = ours.evaluate(x, return_dict=True)
    assert [m.name for m in metrics] == list(named)
    assert set(by_party) == {"alice", "bob"}


@pytest.mark.parametrize("build", [toy.build, plain])
def test_evaluate__sampler_method(devices, x, build):
    with pytest.raises(ParameterError, match="`sampler_method`"):
        build(devices).evaluate(x, x, sampler_method="possion")


def test_evaluate__random_seed(ours, x):
    one, other = (ours.evaluate(x, random_seed=s, return_dict=True)[0] for s in (1, 2))
    assert float(one["alignment"].result()) == float(other["alignment"].result())


def test_evaluate__dataset_builder(devices, ours, x, tmp_path):
    paths, builders = array_files(devices, tmp_path), dict.fromkeys(devices, image_builder)
    found = [
        ours.evaluate(paths, dataset_builder=builders, return_dict=True)[0],
        ours.evaluate(x, labels(devices), return_dict=True)[0],
    ]
    numbers = [{n: float(m.result()) for n, m in one.items()} for one in found]
    assert numbers[0] == numbers[1]
    assert "nmi" in numbers[0]


def features(predicted):
    return {d.party: f for d, f in host.reveal(predicted).items()}


def test_predict__x(devices, ours, x):
    one = fed_ndarray({d: toy.images(d.party)[:1] for d in devices})
    assert {p: f.shape for p, f in features(ours.predict(one)).items()} == {
        "alice": (1, 512),
        "bob": (1, 512),
    }
    assert np.array_equal(
        features(ours.predict(x))["alice"],
        features(plain(devices).predict(x, batch_size=8))["alice"],
    )


@pytest.mark.parametrize("batch_size", [None, 1, 64])
def test_predict__batch_size(devices, ours, batch_size):
    found = features(ours.predict(unequal(devices), batch_size=batch_size))
    assert {party: len(f) for party, f in found.items()} == {"alice": 6000, "bob": 5}


def test_predict__label_decoder(ours, x):
    with pytest.raises(ParameterError, match="Expected no `label_decoder` in `predict`"):
        ours.predict(x, label_decoder=int)


@pytest.mark.parametrize("build", [toy.build, plain])
def test_predict__sampler_method(devices, x, build):
    with pytest.raises(ParameterError, match="`sampler_method`"):
        host.reveal(build(devices).predict(x, batch_size=8, sampler_method="possion"))


def test_predict__random_seed(ours, x):
    one, other = (features(ours.predict(x, random_seed=s))["bob"] for s in (1, 2))
    assert np.array_equal(one, other)


def test_predict__dataset_builder(devices, ours, x, tmp_path):
    paths, builders = array_files(devices, tmp_path), dict.fromkeys(devices, image_builder)
    found = features(ours.predict(paths, dataset_builder=builders))
    assert np.array_equal(found["bob"], features(ours.predict(x))["bob"])
