import random

import numpy as np
import pytest
import torch
from torch import nn

from orchestra_strategy.data.sources import fed_ndarray
from orchestra_strategy.errors import DataError, HostError, ParameterError
from orchestra_strategy.evaluation import extract_features, linear_probe_accuracy
from orchestra_strategy.runtime import probe_party
from orchestra_strategy.runtime.federated_probe import federated_linear_probe
from orchestra_strategy.runtime.probe_driver import sampling_rate
from tests.federated import toy

SIZES = {"alice": 90, "bob": 37}


def samples(party, test=False):
    """Blobs of two classes, in the upper or in the lower half; a few too near the middle to say."""
    n = SIZES[party] + 60 * test
    rng = np.random.default_rng([toy.PARTIES.index(party), test])
    labels = rng.integers(0, 2, n)
    centre = np.stack([2.3 + 2.4 * labels + rng.normal(size=n), rng.uniform(1, 6, n)])
    rows, columns = np.mgrid[:8, :8]
    x = np.exp(
        -((rows - centre[0][:, None, None]) ** 2 + (columns - centre[1][:, None, None]) ** 2)
    )
    return x.astype(np.float32), labels


def federated(devices, test=False):
    parts = {d: samples(d.party, test) for d in devices}
    return tuple(fed_ndarray({d: part[i] for d, part in parts.items()}) for i in (0, 1))


def together(test=False):
    parts = [samples(party, test) for party in toy.PARTIES]
    return tuple(np.concatenate(columns) for columns in zip(*parts))


@pytest.fixture(scope="module")
def encoder():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return toy.MODEL().eval()


def probe(encoder, devices, **changed):
    x, y = federated(devices)
    test_x, test_y = federated(devices, test=True)
    arguments = {"x": x, "y": y, "devices": devices, "server": devices[0], "num_classes": 2}
    return federated_linear_probe(
        encoder, **{**arguments, "test_x": test_x, "test_y": test_y, **changed}
    )


class TestAccuracy:
    def test_is_near_that_of_all_data_in_one_place(self, encoder, devices, capfd):
        result = probe(encoder, devices)
        (x, y), (test_x, test_y) = together(), together(test=True)
        features = extract_features(encoder, x), extract_features(encoder, test_x)
        expected = linear_probe_accuracy(features[0], y, features[1], test_y)
        assert 0.7 < expected < 0.99
        assert result.accuracy == pytest.approx(expected, abs=0.05)
        assert "loss" not in capfd.readouterr().out

    def test_counts_rows_and_not_parties(self, encoder, devices):
        result = probe(encoder, devices)
        assert result.num_train == SIZES
        assert result.num_test == {"alice": 150, "bob": 97}
        right = {party: result.per_party[party] * n for party, n in result.num_test.items()}
        assert result.accuracy == pytest.approx(sum(right.values()) / 247)
        assert result.per_party["alice"] != result.per_party["bob"]

    def test_predicts_features_of_ones_own(self, encoder, devices):
        result = probe(encoder, devices)
        assert result.weight.shape[0] == len(result.bias) == 2
        for party in toy.PARTIES:
            x, y = samples(party, test=True)
            found = result.predict(extract_features(encoder, x))
            assert np.mean(found == y) == pytest.approx(result.per_party[party])

    def test_parties_with_one_class_each(self, encoder, devices):
        # Alone, neither party could learn anything.
        x, y = together()
        sorted_x, sorted_y = (
            fed_ndarray({d: v[y == i] for i, d in enumerate(devices)}) for v in (x, y)
        )
        assert probe(encoder, devices, x=sorted_x, y=sorted_y).accuracy > 0.7

    def test_without_test_data(self, encoder, devices):
        result = probe(encoder, devices, test_x=None, test_y=None)
        assert result.accuracy is None
        assert result.per_party == result.num_test == {}
        assert result.weight.any()

    def test_classes_that_no_party_has_are_never_found(self, encoder, devices):
        result = probe(encoder, devices, num_classes=4)
        assert result.weight.shape[0] == 4
        assert set(result.predict(extract_features(encoder, together()[0]))) == {0, 1}

    def test_labels_as_tables_give_them(self, encoder, devices):
        columns = fed_ndarray({d: samples(d.party)[1].astype(np.float64)[:, None] for d in devices})
        expected = probe(encoder, devices)
        got = probe(encoder, devices, y=columns)
        assert (got.weight == expected.weight).all()


class TestState:
    def test_seed_decides(self, encoder, devices):
        first, again, other = (probe(encoder, devices, rounds=2, seed=s) for s in (0, 0, 1))
        assert (first.weight == again.weight).all()
        assert (first.weight != other.weight).any()

    def test_encoder_and_global_state_stay_as_they_are(self, encoder, devices):
        before = {k: v.clone() for k, v in encoder.state_dict().items()}
        torch.manual_seed(3)
        random.seed(3)
        state = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())
        deterministic = torch.backends.cudnn.deterministic
        probe(encoder.train(), devices, rounds=1)
        assert torch.equal(torch.get_rng_state(), state[0])
        assert random.getstate() == state[1]
        assert repr(np.random.get_state()) == state[2]
        assert torch.backends.cudnn.deterministic == deterministic
        assert encoder.training
        encoder.eval()
        assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())


class TestScale:
    def test_is_that_of_all_rows_together(self):
        rng = np.random.default_rng(0)
        parts = [rng.normal(3, 2, (n, 5)).astype(np.float32) for n in (4, 30, 7)]
        scale = probe_party.scale_from([probe_party.sums_of(part) for part in parts])
        rows = np.concatenate(parts).astype(np.float64)
        assert np.allclose(scale["mean"], rows.mean(axis=0), rtol=1e-12)
        assert np.allclose(scale["divisor"], rows.std(axis=0) * np.sqrt(5), rtol=1e-9)
        lengths = [(probe_party.scaled(part, scale) ** 2).sum() for part in parts]
        assert sum(lengths) / 41 == pytest.approx(1)

    def test_constant_columns_become_zero(self):
        part = np.full((50, 2), 1234.567, np.float32)
        scale = probe_party.scale_from([probe_party.sums_of(part)])
        assert np.abs(probe_party.scaled(part, scale)).max() < 1e-6

    def test_unscaled_weights_give_the_same_logits(self):
        rng = np.random.default_rng(1)
        rows = rng.normal(5, 3, (20, 4)).astype(np.float32)
        weights = [rng.normal(size=(3, 4)), rng.normal(size=3)]
        scale = probe_party.scale_from([probe_party.sums_of(rows)])
        weight, bias = probe_party.unscaled(weights, scale)
        expected = probe_party.scaled(rows, scale) @ weights[0].T + weights[1]
        assert np.allclose(rows @ weight.T + bias, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "batch_size", "steps", "rows"),
    [
        ((100, 50), 20, 5, (20, 10)),
        ((49, 49), 1, 49, (1, 1)),
        ((1000, 10), 32, 10, (100, 1)),  # a row of the smallest in every step
        ((40, 30), 64, 1, (40, 30)),
    ],
)
def test_sampling_rate(sizes, batch_size, steps, rows):
    rate = sampling_rate(dict(zip("ab", sizes)), batch_size)
    assert np.ceil(1 / rate) == steps
    assert tuple(int(n * rate) for n in sizes) == rows


class TestRefusals:
    def test_labels_out_of_range_name_the_party(self, encoder, devices):
        message = "`y` to be integer classes from 0 to 1, got: party `bob` has labels from 0 to 7."
        y = fed_ndarray({d: samples(d.party)[1] for d in devices})
        y.partitions[devices[1]] = devices[1](lambda v: v * 7)(y.partitions[devices[1]])
        with pytest.raises(DataError, match=message):
            probe(encoder, devices, y=y)

    @pytest.mark.parametrize(
        ("change", "found"),
        [
            (lambda v: v + 0.5, "labels of shape .* and dtype float64"),
            (lambda v: np.stack([v, v], axis=1), r"labels of shape \(37, 2\)"),
            (lambda v: v - 1, "labels from -1 to 0"),
            (lambda v: v.astype(str), "labels of shape .* and dtype <U"),
        ],
    )
    def test_what_are_no_labels(self, encoder, devices, change, found):
        y = fed_ndarray({d: change(samples(d.party)[1]) for d in devices})
        with pytest.raises(DataError, match=f"`y` to be integer classes from 0 to 1.*{found}"):
            probe(encoder, devices, y=y)

    def test_too_few_rows_for_a_sum(self, encoder, devices):
        with pytest.raises(DataError, match="party `bob` has 37 samples, below `k_min`=38"):
            probe(encoder, devices, k_min=38)

    def test_another_number_of_labels(self, encoder, devices):
        y = fed_ndarray({d: samples(d.party)[1][:30] for d in devices})
        with pytest.raises(DataError, match="party `alice` has 30 labels for 90 samples"):
            probe(encoder, devices, y=y)

    def test_partitions_of_other_devices(self, encoder, devices):
        y = fed_ndarray({devices[0]: samples("alice")[1]})
        with pytest.raises(
            DataError, match=r"`test_y` to have one partition per device, got \['alice'\] for"
        ):
            probe(encoder, devices, test_y=y)

    def test_parties_too_different_in_size(self):
        with pytest.raises(
            DataError, match=r"numbers of rows to be nearer to each other, got \{'a'"
        ):
            sampling_rate({"a": 20_000, "b": 10}, 32)

    @pytest.mark.parametrize(
        ("changed", "error", "message"),
        [
            ({"num_classes": 1}, ParameterError, "`num_classes` to be an integer >= 2, got 1"),
            ({"rounds": 0}, ParameterError, "`rounds` to be an integer >= 1, got 0"),
            ({"batch_size": 0}, ParameterError, "`batch_size` to be an integer >= 1, got 0"),
            ({"batch_size": 1001}, ParameterError, "`batch_size` to be at most 1000, got 1001"),
            ({"lr": 0.0}, ParameterError, "`lr` to be a finite number above 0, got 0.0"),
            ({"momentum": 1.0}, ParameterError, r"`momentum` to be in \[0, 1\), got 1.0"),
            ({"seed": -1}, ParameterError, "`seed` to be an integer >= 0, got -1"),
            ({"test_x": None}, DataError, "`test_x` and `test_y` together, got no `test_x`"),
            (
                {"x": np.ones((3, 8, 8))},
                DataError,
                "to be a FedNdarray, .*, got ndarray",
            ),
            ({"server": "alice"}, HostError, "`server` to be a PYU"),
        ],
    )
    def test_arguments(self, devices, changed, error, message):
        with pytest.raises(error, match=message):
            probe(nn.Identity(), devices, **changed)
