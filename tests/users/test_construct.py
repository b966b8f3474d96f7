from types import SimpleNamespace

import pytest
import torch
from torch import nn

import orchestra_strategy.privacy
import orchestra_strategy.users
from orchestra_strategy.errors import ParameterError
from orchestra_strategy.users import (
    MultiUserAggregate,
    UserMultiStep,
    UserSingleStep,
    construct_dataloader,
    construct_user,
)
from tests.reference import users as reference
from tests.users import toy

X, Y = toy.samples(rows=30)


def case(kind, **changes):
    where = {"user_range": [1, 4]} if kind == "multiuser_aggregate" else {"user_idx": 2}
    data = {"inputs": X, "labels": Y, "default_clients": 4, "batch_size": 3, "partition": "mixup"}
    return SimpleNamespace(
        user=toy.all_told(**{"user_type": kind, **where, **changes}),
        data=SimpleNamespace(**data),
        impl=SimpleNamespace(threads=0, shuffle=False),
    )


def build(cfg_case, model=None, **options):
    return construct_user(
        model or toy.plain_net(), nn.CrossEntropyLoss(), cfg_case, toy.SETUP, **options
    )


@pytest.mark.parametrize(
    ("user_type", "user_class"),
    [
        ("local_gradient", UserSingleStep),
        ("local_update", UserMultiStep),
        ("multiuser_aggregate", MultiUserAggregate),
    ],
)
def test_user_types(user_type, user_class):
    one = build(case(user_type))
    assert type(one) is user_class
    shared, _ = one.compute_local_updates(toy.payload(toy.plain_net()))
    assert set(shared) == {"gradients", "buffers", "metadata"}


def test_every_user_has_its_own_part_of_the_data():
    _, true = build(case("local_update")).compute_local_updates(toy.payload(toy.plain_net()))
    assert torch.equal(true["data"], X[2::4][:6])
    many = build(case("multiuser_aggregate"), keep_true_data=True)
    assert many.user_indices == [1, 2, 3]
    _, true = many.compute_local_updates(toy.payload(toy.plain_net()))
    assert torch.equal(true["data"], torch.cat([X[idx::4][:6] for idx in (1, 2, 3)]))


def test_aggregate_is_the_mean_of_the_users_of_its_range():
    sent = toy.payload(toy.plain_net())
    updates = [
        build(case("local_update", user_idx=idx)).compute_local_updates(sent)[0]["gradients"]
        for idx in (1, 2, 3)
    ]
    shared, _ = build(case("multiuser_aggregate")).compute_local_updates(sent)
    toy.assert_close(shared["gradients"], reference.weighted_mean(updates, [1, 1, 1]), 1e-7)


def test_inheritance():
    assert issubclass(UserMultiStep, UserSingleStep)
    assert issubclass(MultiUserAggregate, UserMultiStep)


def test_options_reach_the_class():
    generator = torch.Generator()
    assert build(case("local_update"), generator=generator).generator is generator


def test_unknown_type():
    message = r"'local_gradient', 'local_update', 'multiuser_aggregate', got 'local_updates'; did"
    with pytest.raises(ParameterError, match=message):
        build(case("local_updates"))


@pytest.mark.parametrize(
    ("user_type", "changes", "message"),
    [
        ("local_update", {"user_type": None}, "`cfg_user` to have `user_type`"),
        ("local_update", {"user_idx": None}, "`cfg_user` to have `user_idx`"),
        ("local_update", {"user_idx": 4}, r"`user_idx` to be in 0..3"),
        ("local_gradient", {"user_idx": -1}, "Expected `user_idx` to be an integer >= 0, got -1"),
        ("multiuser_aggregate", {"user_range": None}, "`cfg_user` to have `user_range`"),
        ("multiuser_aggregate", {"user_range": (3, 3)}, r"at least one user, got \[3, 3\]"),
        ("multiuser_aggregate", {"user_range": (3, 1)}, r"at least one user, got \[3, 1\]"),
        ("multiuser_aggregate", {"user_range": (-1, 2)}, r"at least one user, got \[-1, 2\]"),
        ("multiuser_aggregate", {"user_range": (2,)}, r"at least one user, got \[2\]"),
        ("multiuser_aggregate", {"user_range": (2, 5)}, r"`user_idx` to be in 0..3 .* got 4"),
    ],
)
def test_errors(user_type, changes, message):
    with pytest.raises(ParameterError, match=message):
        build(case(user_type, **changes))


@pytest.mark.parametrize("package", [orchestra_strategy.users, orchestra_strategy.privacy])
def test_public_names(package):
    assert sorted(package.__all__) == package.__all__
    assert all(hasattr(package, name) for name in package.__all__)
    assert construct_dataloader is orchestra_strategy.users.construct_dataloader
