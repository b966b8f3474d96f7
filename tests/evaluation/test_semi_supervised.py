import copy

import numpy as np
import pytest
import torch
from torch import nn

from orchestra_strategy.errors import DataError, ModelError, ParameterError
from orchestra_strategy.evaluation import FineTuning, fine_tune, semi_supervised_protocol
from orchestra_strategy.evaluation import fine_tuning as training

QUICK = FineTuning(epochs=20, batch_size=16, lr=0.1)


def table(n, seed):
    """Three classes on the signs of two products: no linear classifier tells them apart."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 6)).astype(np.float32)
    return x, (x[:, 0] * x[:, 1] > 0).astype(np.int64) + (x[:, 2] * x[:, 3] > 0)


@pytest.fixture(scope="module")
def data():
    return (*table(400, 0), *table(200, 1))


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = (
            nn.Linear(6, 64, bias=False),
            nn.BatchNorm1d(64),
            nn.ReLU(),
            nn.Linear(64, 32),
            nn.ReLU(),
        )
        return nn.Sequential(*layers)


def test_the_whole_network_learns(data, model, monkeypatch):
    assert fine_tune(model, *data, 1.0, QUICK) > 0.65  # a linear classifier: below 0.55
    step = torch.optim.SGD.step
    weights = []

    def step_and_note(self, *arguments):
        step(self, *arguments)
        weights.append([p.detach().clone() for p in self.param_groups[0]["params"]])

    monkeypatch.setattr(torch.optim.SGD, "step", step_and_note)
    fine_tune(model, *data, 0.1, FineTuning(epochs=1))
    assert len(weights[-1]) == len(list(model.parameters())) + 2  # the head's
    for before, after in zip(model.parameters(), weights[-1]):
        assert not torch.equal(before, after)


def test_more_labels_help(data, model):
    few, many = (
        np.mean([fine_tune(model, *data, f, QUICK, s) for s in range(3)]) for f in (0.02, 1)
    )
    assert many > few + 0.1


def test_frozen_parameters_are_trained_too(data, model):
    expected = fine_tune(model, *data, 0.5, QUICK)
    assert fine_tune(model.requires_grad_(False), *data, 0.5, QUICK) == expected


@pytest.mark.parametrize("training_mode", [True, False])
def test_model_and_generators_stay_as_they_are(data, model, training_mode):
    model.train(training_mode)
    before = copy.deepcopy(model.state_dict())
    state, numpy_state = torch.get_rng_state(), repr(np.random.get_state())
    fine_tune(nn.Sequential(model, nn.Dropout(0.5)), *data, 0.1, QUICK)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training is training_mode
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert repr(np.random.get_state()) == numpy_state


def test_seed_decides_also_for_dropout(data, model):
    network = nn.Sequential(model, nn.Dropout(0.5))
    values = []
    for root, seed in ((1, 0), (2, 0), (3, 1)):
        torch.manual_seed(root)
        values.append(fine_tune(network, *data, 0.2, QUICK, seed))
    assert values[0] == values[1] != values[2]


def test_batch_norm_trains_and_no_batch_has_one_row(data, model, monkeypatch):
    # 33 rows in batches of 16 would leave one, for which BatchNorm has no statistics.
    sizes, x, y = [], data[0][:33], data[1][:33]

    class Spy(nn.Module):
        def forward(self, x):
            if self.training:
                sizes.append(len(x))
            return x

    fine_tune(
        nn.Sequential(Spy(), model), x, y, *data[2:], 1.0, FineTuning(epochs=1, batch_size=16)
    )
    assert sizes == [16, 9, 8]


def test_rows_of_a_fraction_are_nested_and_of_every_class(data, model, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "orchestra_strategy.evaluation.semi_supervised.train_network",
        lambda network, samples, targets, settings, seed: seen.append((samples, targets)),
    )
    for fraction in (0.01, 0.1):
        fine_tune(model, *data, fraction)
    (few, few_targets), (many, _) = seen
    assert set(few_targets.tolist()) == {0, 1, 2}
    rows = [{tuple(row) for row in samples.tolist()} for samples in (few, many)]
    assert rows[0] < rows[1]
    assert (len(rows[0]), len(rows[1])) == (4, 40)


def test_learning_rate_falls_as_a_cosine(data, model, monkeypatch):
    rates = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam,
        "step",
        lambda self: rates.append(self.param_groups[0]["lr"]) or step(self),
    )
    settings = FineTuning(epochs=2, batch_size=20, optimizer="adam", lr=0.01)
    fine_tune(model, *data, 0.1, settings)
    assert rates == pytest.approx([0.01, 0.01, 0.005, 0.005])


def test_augmentation_sees_training_samples_as_they_are_stored(model):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 4, 4), dtype=np.uint8)
    labels, network, seen = np.arange(40) % 2, nn.Sequential(nn.Flatten(), nn.Linear(16, 4)), []

    def augment(x, generator):
        seen.append((x.dtype, tuple(x.shape), torch.rand(1, generator=generator).item()))
        return x.float().unsqueeze(1) / 255

    arguments = (network, images[:30], labels[:30], images[30:], labels[30:], 1.0)
    fine_tune(*arguments, FineTuning(epochs=1, batch_size=15, augment=augment))
    assert [s[:2] for s in seen] == [(torch.uint8, (15, 4, 4))] * 2
    assert seen[0][2] != seen[1][2]
    assert 0 <= fine_tune(*arguments, FineTuning(epochs=1)) <= 1


def test_head_is_drawn_as_torch_draws_it():
    head = training.new_head(16, 2000, seed=0)
    assert head.weight.abs().max().item() == pytest.approx(1 / 4, rel=1e-3)
    assert head.weight.mean().abs() < 0.01
    assert torch.equal(head.weight, training.new_head(16, 2000, seed=0).weight)


class TestProtocol:
    def test_is_fine_tune_for_each_model_and_fraction(self, data, model):
        models = {"orchestra": model, "untrained": nn.Identity()}
        results = semi_supervised_protocol(models, *data, (0.05, 0.5), QUICK, seeds=2)
        assert {name: list(r) for name, r in results.items()} == {
            "orchestra": ["5%", "50%"],
            "untrained": ["5%", "50%"],
        }
        values = results["orchestra"]["50%"].values
        assert len(set(values)) == 2
        assert np.mean(values) > results["untrained"]["50%"].mean

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"models": {}}, "at least one run, got 0, 2 and 3"),
            ({"fractions": ()}, "at least one run, got 1, 0 and 3"),
            ({"seeds": 0}, "at least one run, got 1, 2 and 0"),
            ({"fractions": (0.1, 1.5)}, r"`fraction` to be in \(0, 1\], got 1.5"),
        ],
    )
    def test_refuses(self, data, changed, message):
        named = dict(zip(("train_x", "train_y", "test_x", "test_y"), data))
        with pytest.raises(ParameterError, match=message):
            semi_supervised_protocol(**{"models": {"a": nn.Identity()}, **named, **changed})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epochs": 0}, "`epochs` to be at least 1, got 0"),
        ({"torch_threads": 0}, "`torch_threads` to be at least 1, got 0"),
        ({"batch_size": 1}, "`batch_size` to be at least 2, since BatchNorm .* got 1"),
        ({"optimizer": "lars"}, "`optimizer` to be 'sgd' or 'adam', got 'lars'"),
        ({"lr": 0.0}, "`lr` to be a finite number above 0, got 0.0"),
        ({"momentum": 1.0}, r"`momentum` to be in \[0, 1\), got 1.0"),
        ({"weight_decay": -0.1}, "`weight_decay` to be a finite number of at least 0, got -0.1"),
    ],
)
def test_settings_out_of_range_are_refused(changed, message):
    with pytest.raises(ParameterError, match=message):
        FineTuning(**changed)


def test_data_and_models_that_cannot_be_used_are_refused(data, model):
    x, y, test_x, test_y = data
    with pytest.raises(DataError, match="to be disjoint, got 1 of 2"):
        fine_tune(model, x, y, np.stack([test_x[0], x[3]]), test_y[:2], 0.1)
    with pytest.raises(DataError, match="`train_y` to have at least two classes, got only class 0"):
        fine_tune(model, x, y * 0, test_x, test_y, 0.1)
    with pytest.raises(DataError, match=r"`test_y` to have shape \(200,\)"):
        fine_tune(model, x, y, test_x, test_y[1:], 0.1)
    with pytest.raises(ModelError, match="training has diverged"):
        fine_tune(model, *data, 0.5, FineTuning(epochs=5, lr=1e30))
