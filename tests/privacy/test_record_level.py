"""Record level: DP-SGD with Poisson samples."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from orchestra_strategy.errors import ModelError, ParameterError
from orchestra_strategy.privacy import (
    GaussianMechanism,
    NoiseSource,
    PrivacyLedger,
    RecordLevelPrivacy,
    Release,
)
from orchestra_strategy.privacy.record_level import poisson_batches
from orchestra_strategy.users import UserMultiStep, UserSingleStep


class Rowwise:
    """The mean over rows of a square; counts how often a step moved it on."""

    def __init__(self):
        self.steps = 0

    def __call__(self, model, batch):
        return model(batch["inputs"]).square().mean()

    def per_example(self, model, batch):
        self.steps += 1
        return lambda model, batch: model(batch["inputs"]).square().mean(), batch

    def empty_step(self, model):
        self.steps += 1


def private(model, z=1e-9, clip_norm=0.5, n=100, batch_size=20):
    mechanism = GaussianMechanism(PrivacyLedger(), NoiseSource(0, "alice"))
    return RecordLevelPrivacy(model, clip_norm, z, n, batch_size, mechanism)


def batch(rows, scale=1.0):
    x = torch.randn(rows, 4, generator=torch.Generator().manual_seed(rows))
    return {"inputs": scale * x}


def linear(out=300):
    torch.manual_seed(0)
    return nn.Linear(4, out)


def flat(tensors):
    return torch.cat([t.flatten() for t in tensors])


def test_the_sum_of_clipped_gradients_is_divided_by_the_expected_size():
    model = linear(3)
    rows, want = batch(7, scale=3.0), torch.zeros(15)
    for x in rows["inputs"].split(1):
        gradient = flat(torch.autograd.grad(model(x).square().mean(), list(model.parameters())))
        want += gradient * min(1, 0.5 / gradient.norm()) / 20
    got, loss = private(model).gradient(Rowwise(), rows)
    assert torch.allclose(flat(got), want, atol=1e-6)
    assert loss.total.item() == pytest.approx(model(rows["inputs"]).square().mean().item())


def test_one_record_moves_the_gradient_by_c_over_b():
    model, rows = linear(), batch(7, scale=100.0)
    fewer = {"inputs": rows["inputs"][1:]}
    both = [flat(private(model).gradient(Rowwise(), b)[0]) for b in (rows, fewer)]
    assert (both[0] - both[1]).norm().item() == pytest.approx(0.5 / 20, rel=1e-3)


@pytest.mark.parametrize("rows", [7, 0])
def test_noise_is_on_the_sum_and_also_without_a_record(rows):
    model, objective = linear(), Rowwise()
    quiet, _ = private(model).gradient(objective, batch(rows))
    noisy_privacy = private(model, z=3.0)
    noisy, loss = noisy_privacy.gradient(objective, batch(rows))
    std = (flat(noisy) - flat(quiet)).std().item()
    assert std == pytest.approx(3.0 * 0.5 / 20, rel=0.05)
    assert noisy_privacy.mechanism.ledger.spent == {Release(3.0, 0.2): 1}
    assert objective.steps == 2  # a target network moves on without records, too
    assert (loss is None) == (rows == 0)


def test_poisson_samples():
    source = NoiseSource(1, "alice")
    drawn = list(poisson_batches(50, 0.1, 4000, source))
    sizes = np.array([len(rows) for rows in drawn])
    assert sizes.mean() == pytest.approx(5, rel=0.03)
    assert sizes.var() == pytest.approx(50 * 0.1 * 0.9, rel=0.1)  # binomial: sizes vary
    assert (sizes == 0).any()
    each = np.bincount(np.concatenate(drawn), minlength=50) / 4000
    assert np.abs(each - 0.1).max() < 0.025
    assert all(len(np.unique(rows)) == len(rows) for rows in drawn)
    (everyone,) = poisson_batches(50, 1.0, 1, source)
    assert everyone.tolist() == list(range(50))
    first, again = (next(poisson_batches(50, 0.5, 1, NoiseSource(None))) for _ in range(2))
    assert first.tolist() != again.tolist()


def test_local_steps_take_private_gradients():
    cfg = SimpleNamespace(local_learning_rate=0.1)
    batches = lambda: iter([batch(5), batch(0), batch(6)])  # noqa: E731
    user = UserMultiStep(
        linear(), Rowwise(), None, {"device": "cpu", "dtype": torch.float32}, 0, cfg,
        batches=batches,
    )  # fmt: skip
    user.record_privacy = private(user.model, z=3.0)
    start = [p.detach().clone() for p in user.model.parameters()]
    shared, _ = user.compute_local_updates({"parameters": start, "buffers": None})
    # Three steps of learning rate 0.1, each with noise of 3 * 0.5 / 20.
    std = flat(shared["gradients"]).std().item()
    assert std == pytest.approx(0.1 * 3 * 0.5 / 20 * 3**0.5, rel=0.06)
    assert user.record_privacy.mechanism.ledger.spent == {Release(3.0, 0.2): 3}
    assert user.steps_done == 2  # of the empty one there is nothing to log
    assert "record level: each example's gradient clipped" in repr(user)


@pytest.mark.parametrize("rows", [3, 0])
def test_a_single_gradient_of_a_poisson_sample(rows):
    cfg = SimpleNamespace(num_data_points="all")
    setup = {"device": "cpu", "dtype": torch.float32}
    user = UserSingleStep(linear(), Rowwise(), [batch(rows)], setup, 0, cfg)
    user.record_privacy = private(user.model, z=3.0)
    start = [p.detach().clone() for p in user.model.parameters()]
    shared, _ = user.compute_local_updates({"parameters": start, "buffers": None})
    assert flat(shared["gradients"]).std().item() == pytest.approx(0.075, rel=0.07)
    assert set(user.loss_means) == ({"total"} if rows else set())


def test_coupled_examples_and_batch_norm_are_refused():
    def contrastive(model, batch):
        return model(batch["inputs"]).std()

    model = linear()
    with pytest.raises(ParameterError, match=r"an objective with `per_example`.*couples the exam"):
        private(model).gradient(contrastive, batch(3))
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    with pytest.raises(ModelError, match=r"without batch statistics.*Use GroupNorm"):
        private(model).gradient(Rowwise(), batch(3))
