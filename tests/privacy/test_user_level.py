"""User level: what a user shares is clipped, and the noise fits the weights that are used."""

import logging
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from orchestra_strategy.errors import ParameterError, PrivacyError
from orchestra_strategy.privacy import (
    GaussianMechanism,
    NoiseSource,
    PrivacyLedger,
    Release,
    UserLevelPrivacy,
    clip_update,
)
from orchestra_strategy.users import MultiUserAggregate, UserMultiStep, UserSingleStep

SETUP = {"device": "cpu", "dtype": torch.float32}


def private(clip_norm=0.1, z=1e-9, seed=0):
    mechanism = GaussianMechanism(PrivacyLedger(), NoiseSource(seed, "alice"))
    return UserLevelPrivacy(clip_norm, z, mechanism)


def settings(**kwargs):
    return SimpleNamespace(
        num_data_points="all",
        num_local_updates=2,
        num_data_per_local_update_step=3,
        local_learning_rate=0.5,
        **kwargs,
    )


def objective(model, batch):
    return (model(batch["inputs"]) - 5).square().mean()


def samples(idx, rows=6):
    generator = torch.Generator().manual_seed(idx)
    return [torch.randn(rows, 4, generator=generator) * (1 + idx)]


def aggregate(sizes=(6, 6, 6), **kwargs):
    torch.manual_seed(0)
    loaders = [samples(i, n) for i, n in enumerate(sizes)]
    cfg = settings(**kwargs)
    return MultiUserAggregate(nn.Linear(4, 300), objective, loaders, SETUP, cfg, range(len(sizes)))


def payload(user):
    return {"parameters": [p.detach().clone() for p in user.model.parameters()], "buffers": None}


def norm(tensors):
    return torch.cat([t.flatten() for t in tensors]).norm().item()


def test_an_update_is_shortened_to_c_and_a_short_one_is_left():
    long, short = [torch.tensor([3.0]), torch.tensor([[4.0]])], [torch.tensor([0.3, 0.4])]
    assert [t.flatten().tolist() for t in clip_update(long, 1.0)] == [
        [pytest.approx(0.6)],
        [pytest.approx(0.8)],
    ]
    assert torch.equal(clip_update(short, 1.0)[0], short[0])
    assert not clip_update([torch.zeros(3)], 1.0)[0].any()
    for value in (torch.nan, torch.inf):
        update = [torch.tensor([value]), torch.ones(2)]
        assert [t.tolist() for t in clip_update(update, 1.0)] == [[0.0], [0.0, 0.0]]


@pytest.mark.parametrize("user_class", [UserSingleStep, UserMultiStep])
def test_what_a_single_user_shares_is_its_clipped_update_and_noise(user_class):
    torch.manual_seed(0)
    user = user_class(nn.Linear(4, 300), objective, samples(1), SETUP, 0, settings())
    start = payload(user)
    plain = user.compute_local_updates(start)[0]["gradients"]
    assert norm(plain) > 0.2  # above the clip norm, or the test shows nothing
    user.update_privacy = private()
    if isinstance(user, UserMultiStep):
        assert user.optimizer.state_dict()["state"] == {}  # plain SGD: the two queries are alike
    clipped = user.compute_local_updates(start)[0]["gradients"]
    assert norm(clipped) == pytest.approx(0.1, rel=1e-4)
    cosine = torch.cosine_similarity(
        *(torch.cat([t.flatten() for t in x]) for x in (plain, clipped)), dim=0
    )
    assert cosine.item() == pytest.approx(1, abs=1e-4)
    user.update_privacy = private(0.1, z=2.0)
    noisy = user.compute_local_updates(start)[0]["gradients"]
    noise = torch.cat([(a - b).flatten() for a, b in zip(noisy, clipped)])
    assert noise.std().item() == pytest.approx(2.0 * 0.1, rel=0.05)
    assert user.update_privacy.mechanism.ledger.spent == {Release(2.0): 1}
    assert "user level: each update clipped to an L2 norm of 0.1" in repr(user)


def test_noise_of_an_aggregate_is_on_the_sum_of_clipped_updates():
    users = aggregate()
    start = payload(users)
    users.update_privacy = private()
    mean = users.compute_local_updates(start)[0]["gradients"]
    by_hand = [torch.zeros_like(p) for p in start["parameters"]]
    for idx in range(3):
        torch.manual_seed(0)
        single = UserMultiStep(nn.Linear(4, 300), objective, samples(idx), SETUP, idx, settings())
        update = clip_update(single.compute_local_updates(start)[0]["gradients"], 0.1)
        by_hand = [total + u / 3 for total, u in zip(by_hand, update)]
    for got, want in zip(mean, by_hand):
        assert torch.allclose(got, want, atol=1e-6)
    users.update_privacy = private(0.1, z=2.0)
    noisy = users.compute_local_updates(start)[0]["gradients"]
    noise = torch.cat([(a - b).flatten() for a, b in zip(noisy, mean)])
    assert noise.std().item() == pytest.approx(2.0 * 0.1 / 3, rel=0.05)
    assert users.update_privacy.mechanism.ledger.spent == {Release(2.0): 1}


def test_one_user_moves_the_sum_by_c_at_most():
    users = aggregate()
    users.update_privacy = private()
    start = payload(users)
    before = users.compute_local_updates(start)[0]["gradients"]
    users.dataloader_of = [samples(0), [samples(1)[0] * 1e3], samples(2)].__getitem__
    after = users.compute_local_updates(start)[0]["gradients"]
    moved = norm([a - b for a, b in zip(after, before)]) * 3
    assert 0.01 < moved <= 2 * 0.1 * (1 + 1e-4)  # replaced: once out, once in


@pytest.mark.parametrize("bad", [[torch.full((6, 4), torch.nan)], [torch.zeros(6, 5)], []])
def test_a_failed_user_counts_as_zero_and_does_not_show(bad, caplog):
    users = aggregate()
    users.update_privacy = private()
    start = payload(users)
    users.dataloader_of = [samples(0), samples(1), samples(2)].__getitem__
    others = users.compute_local_updates(start)[0]["gradients"]
    users.dataloader_of = [samples(0), bad, samples(2)].__getitem__
    with caplog.at_level(logging.DEBUG):
        mean = users.compute_local_updates(start)[0]["gradients"]
    assert users.users_done == [0, 1, 2]
    assert not users.failed_users
    assert not caplog.records
    assert norm([a - b for a, b in zip(others, mean)]) * 3 <= 0.1 * (1 + 1e-4)
    users.update_privacy = private(0.1, z=2.0)
    noisy = users.compute_local_updates(start)[0]["gradients"]
    assert torch.cat([t.flatten() for t in noisy]).std().item() == pytest.approx(0.2 / 3, rel=0.07)


def test_if_all_users_fail_there_is_noise_alone():
    users = aggregate()
    users.update_privacy = private(0.1, z=2.0)
    users.dataloader_of = lambda idx: []
    shared, _ = users.compute_local_updates(payload(users))
    noise = torch.cat([t.flatten() for t in shared["gradients"]])
    assert noise.std().item() == pytest.approx(0.2 / 3, rel=0.07)
    assert users.loss_means == {}


def test_a_frozen_parameter_gets_no_noise():
    users = aggregate()
    users.model.bias.requires_grad_(False)
    users.update_privacy = private(0.1, z=2.0)
    weight, bias = users.compute_local_updates(payload(users))[0]["gradients"]
    assert weight.any()
    assert not bias.any()


def test_weights_by_sample_count_are_refused():
    users = aggregate((6, 60, 6), aggregate_weights="num_samples")
    users.update_privacy = private()
    with pytest.raises(PrivacyError, match=r"`aggregate_weights` to be 'uniform'.*'num_samples'"):
        users.compute_local_updates(payload(users))


def test_a_clip_norm_of_zero_is_refused():
    with pytest.raises(ParameterError, match=r"`clip_norm` to be positive, got 0"):
        private(clip_norm=0)
