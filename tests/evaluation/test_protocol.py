import dataclasses
import re

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.preprocessing import StandardScaler
from torch import nn

from orchestra_strategy.errors import DataError, ParameterError
from orchestra_strategy.evaluation import (
    ProbeResult,
    knn_accuracy,
    probe_protocol,
    protocol,
    with_controls,
)
from orchestra_strategy.evaluation.linear_probe import Outcome


@pytest.fixture(scope="module")
def digits():
    """Real data, train and test: 400 and 200 of scikit-learn's digits, uint8."""
    x, y = load_digits(return_X_y=True)
    x = (x.reshape(-1, 8, 8) * 15).astype(np.uint8)
    return x[:400], y[:400], x[400:600], y[400:600]


@pytest.fixture
def numbered():
    """Features whose first column is the row's number, so that a draw can be read off them."""
    labels = np.repeat(np.arange(3), 30)
    rows = np.arange(90.0)
    train = np.stack([rows, labels * 100.0], axis=1).astype(np.float32)
    return {"a": (train, train), "b": (train * [1, 2], train)}, labels


@pytest.fixture
def drawn(monkeypatch):
    """The row numbers that each linear probe was trained on, in order of the calls."""
    calls = []

    def spy(train_features, train_labels, *_, statistics_from):
        assert len(statistics_from) == 90  # all training rows, labelled or not
        rows = train_features[:, 0].astype(int)
        assert (train_labels == rows // 30).all()
        calls.append(rows.tolist())
        return Outcome(len(rows) / 1000, None)

    monkeypatch.setattr(protocol, "linear_probe", spy)
    return calls


class TestProbeResult:
    def test_mean_and_sample_deviation(self):
        # Mean 0.5; squared deviations 0.01 + 0 + 0.01 over n - 1 = 2: variance 0.01.
        result = ProbeResult.from_values([0.4, 0.5, 0.6])
        assert (result.mean, result.std) == (pytest.approx(0.5), pytest.approx(0.1))
        assert result.values == (0.4, 0.5, 0.6)

    def test_single_value_has_no_deviation(self):
        assert ProbeResult.from_values([0.4]) == ProbeResult(0.4, 0.0, (0.4,))

    def test_is_frozen(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            ProbeResult.from_values([0.4]).mean = 1.0


class TestProbeProtocol:
    def test_same_labelled_rows_for_every_feature_set(self, numbered, drawn):
        sets, labels = numbered
        probe_protocol(sets, labels, labels, seeds=3)
        assert len(drawn) == 2 * (3 + 3 + 3 + 1)
        assert drawn[:10] == drawn[10:]

    def test_exact_counts_other_rows_per_seed_nested_within_a_seed(self, numbered, drawn):
        sets, labels = numbered
        probe_protocol({"a": sets["a"]}, labels, labels, seeds=3)
        one, five, twenty = drawn[:3], drawn[3:6], drawn[6:9]
        for subsets, count in ((one, 1), (five, 5), (twenty, 20)):
            assert all(np.bincount(labels[rows]).tolist() == [count] * 3 for rows in subsets)
            assert len({tuple(rows) for rows in subsets}) == 3
        for few, more, most in zip(one, five, twenty, strict=True):
            assert set(few) < set(more) < set(most)
        assert drawn[9] == list(range(90))

    def test_root_seed_decides(self, numbered, drawn):
        sets, labels = numbered
        for root_seed in (0, 0, 1):
            probe_protocol(
                {"a": sets["a"]}, labels, labels, labels_per_class=(5,), root_seed=root_seed
            )
        assert drawn[:5] == drawn[5:10] != drawn[10:]

    def test_keys_and_number_of_values(self, numbered, drawn):
        sets, labels = numbered
        results = probe_protocol(sets, labels, labels, seeds=4)
        assert list(results) == ["a", "b"]
        lengths = {key: len(result.values) for key, result in results["a"].items()}
        assert lengths == {"1": 4, "5": 4, "20": 4, "all": 1, "knn": 1}
        assert results["a"]["5"].mean == pytest.approx(15 / 1000)

    def test_knn_is_that_of_knn_accuracy(self, digits):
        x, y, test_x, test_y = digits
        pairs = x.reshape(400, -1).astype(np.float32), test_x.reshape(200, -1).astype(np.float32)
        result = probe_protocol({"pixels": pairs}, y, test_y, labels_per_class=())
        tensors = [torch.from_numpy(a) for a in (pairs[0], y, pairs[1], test_y)]
        assert result["pixels"] == {"knn": ProbeResult.from_values([knn_accuracy(*tensors)])}

    def test_more_labels_help_and_signal_beats_noise(self, digits):
        x, y, test_x, test_y = digits
        pixels = x.reshape(400, -1).astype(np.float32), test_x.reshape(200, -1).astype(np.float32)
        rng = np.random.default_rng(0)
        noise = rng.normal(size=(400, 8)), rng.normal(size=(200, 8))
        results = probe_protocol({"pixels": pixels, "noise": noise}, y, test_y, (1, 20), seeds=2)
        assert results["pixels"]["20"].mean > 0.7 > results["pixels"]["1"].mean > 0.3
        assert max(results["noise"][key].mean for key in ("1", "20", "knn")) < 0.2

    def test_leaves_the_global_generators_alone(self, numbered):
        sets, labels = numbered
        numpy_state, torch_state = repr(np.random.get_state()), torch.get_rng_state()
        probe_protocol({"a": sets["a"]}, labels, labels, (1,), seeds=1)
        assert repr(np.random.get_state()) == numpy_state  # with its position, unlike the key alone
        assert torch.equal(torch.get_rng_state(), torch_state)

    def test_two_classes_are_ranked_too(self, digits):
        x, y, test_x, test_y = digits
        rows = x.reshape(400, -1).astype(np.float32), test_x.reshape(200, -1).astype(np.float32)
        eight, test_eight = (y == 8).astype(int), (test_y == 8).astype(int)
        found = probe_protocol({"pixels": rows}, eight, test_eight, (5, None), seeds=2)["pixels"]
        assert list(found) == [f"{p}{m}" for p in ("5", "all", "knn") for m in ("", " auc", " ap")]
        assert [len(found[key].values) for key in ("5 auc", "5 ap", "all auc", "knn ap")] == [
            *(2, 2, 1, 1)
        ]
        scaled = StandardScaler().fit(rows[0].astype(np.float64))
        probe = LogisticRegression(max_iter=10_000).fit(scaled.transform(rows[0]), eight)
        chances = probe.predict_proba(scaled.transform(rows[1]))[:, 1]
        assert found["all auc"].mean == pytest.approx(roc_auc_score(test_eight, chances), abs=1e-6)
        assert found["all ap"].mean == pytest.approx(average_precision_score(test_eight, chances))
        assert 0.9 < found["knn auc"].mean <= 1
        # Upside down, all is as bad as it was good.
        turned = probe_protocol({"pixels": rows}, eight, 1 - test_eight, (), seeds=2)["pixels"]
        assert turned["knn auc"].mean == pytest.approx(1 - found["knn auc"].mean)

    def test_labels_of_two_classes_need_not_be_0_and_1(self, digits):
        x, y, test_x, test_y = digits
        rows = x.reshape(400, -1).astype(np.float32), test_x.reshape(200, -1).astype(np.float32)
        results = [
            probe_protocol({"p": rows}, a + b * (y == 8), a + b * (test_y == 8), (None,))["p"]
            for a, b in ((0, 1), (3, 4))
        ]
        assert results[0] == results[1]

    def test_one_class_in_the_test_is_not_ranked(self, digits):
        x, y, test_x, _ = digits
        rows = x.reshape(400, -1).astype(np.float32), test_x.reshape(200, -1).astype(np.float32)
        ones = np.ones(200, int)
        found = probe_protocol({"pixels": rows}, (y == 8).astype(int), ones, (None,))["pixels"]
        assert list(found) == ["all", "knn"]

    @pytest.mark.parametrize(
        ("changed", "error", "message"),
        [
            ({"features_by_name": {}}, ParameterError, "to name a feature set, got none"),
            ({"seeds": 0}, ParameterError, "`seeds` to be at least 1, got 0"),
            ({"labels_per_class": (31,)}, DataError, "`per_class` = 31 rows, got 30 of class 0"),
            ({"train_labels": np.zeros(90)}, DataError, "`train_labels` to be integer classes"),
            ({"test_labels": np.full(90, -1)}, DataError, "`test_labels` to be classes of at"),
            (
                {"train_labels": np.zeros(80, int)},
                DataError,
                "`features_by_name['a'] (train)` to have 80 rows, one for each label, got 90",
            ),
            ({"test_labels": np.zeros(1, int)}, DataError, "['a'] (test)` to have 1 rows"),
            (
                {"features_by_name": {"c": (np.full((90, 1), np.nan), np.ones((90, 1)))}},
                DataError,
                "`features_by_name['c'] (train)` to be finite",
            ),
        ],
    )
    def test_refuses(self, numbered, changed, error, message):
        sets, labels = numbered
        request = {"features_by_name": sets, "train_labels": labels, "test_labels": labels}
        with pytest.raises(error, match=re.escape(message)):
            probe_protocol(**(request | changed))


class TestWithControls:
    def test_three_sets_with_their_own_features(self, digits):
        x, _, test_x, _ = digits
        trained, untrained = (nn.Sequential(nn.Flatten(), nn.Linear(64, d)) for d in (5, 3))
        sets = with_controls(trained, untrained, x, test_x, batch_size=150, name="fed_byol")
        shapes = {name: (train.shape, test.shape) for name, (train, test) in sets.items()}
        assert shapes == {
            "fed_byol": ((400, 5), (200, 5)),
            "untrained": ((400, 3), (200, 3)),
            "pixels": ((400, 64), (200, 64)),
        }
        assert {a.dtype for pair in sets.values() for a in pair} == {np.dtype(np.float32)}

    @pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
    def test_pixels_are_the_raw_input(self, digits, convert):
        x, _, test_x, _ = digits
        sets = with_controls(nn.Flatten(), nn.Flatten(), convert(x), convert(test_x))
        assert sets["pixels"][0].tolist() == x.reshape(400, 64).tolist()
        assert sets["pixels"][1].tolist() == test_x.reshape(200, 64).tolist()

    def test_those_of_a_table_are_its_columns(self, digits):
        rows = digits[0].reshape(400, 64)
        sets = with_controls(nn.Flatten(), nn.Flatten(), rows[:300], rows[300:])
        assert list(sets) == ["trained", "untrained", "columns"]
        assert sets["columns"][1].tolist() == rows[300:].tolist()

    def test_overlap_is_refused_unless_allowed(self, digits):
        x = digits[0]
        models = nn.Flatten(), nn.Flatten()
        with pytest.raises(DataError, match=r"disjoint, got 10 of 10 test rows .* = test row 0"):
            with_controls(*models, x, x[5:15])
        assert with_controls(*models, x, x[5:15], allow_duplicates=True)["pixels"][1].shape[0] == 10

    def test_a_method_is_not_called_as_a_control(self, digits):
        with pytest.raises(ParameterError, match=r"`name` to be none of .* got 'untrained'"):
            with_controls(nn.Flatten(), nn.Flatten(), digits[0], digits[2], name="untrained")

    def test_one_model_twice_is_no_control(self, digits):
        model = nn.Flatten()
        with pytest.raises(ParameterError, match="`untrained_model` to be another module than"):
            with_controls(model, model, digits[0], digits[2])
