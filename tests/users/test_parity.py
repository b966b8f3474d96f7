"""Our users against those of the field's reference, with its own configurations.

The package is no dependency of the tests; they are skipped without it (extra ``audit``).
"""

import copy

import pytest
import torch
from torch import nn

from orchestra_strategy.users import MultiUserAggregate, UserMultiStep, UserSingleStep
from tests.users import toy

breaching = pytest.importorskip("breaching", reason="the extra `audit` is not installed")
theirs = pytest.importorskip("breaching.cases.users")

LOSS = nn.CrossEntropyLoss()
KINDS = {
    "local_gradient": (UserSingleStep, theirs.UserSingleStep),
    "local_updates": (UserMultiStep, theirs.UserMultiStep),
}


class Container(nn.Module):
    """Takes a batch by name and its inputs from it, as the reference's models do."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, inputs, **others):
        return self.model(inputs)


class Loader(list):
    name = "toy"


def settings(kind, **changes):
    cfg = breaching.get_config([f"case/user={kind}"]).case.user
    for name, value in {"num_data_points": 6, **changes}.items():
        cfg[name] = value
    if "num_local_updates" in cfg:
        cfg.num_data_per_local_update_step, cfg.local_learning_rate = 2, 0.1
    return cfg


def batches(seed=0):
    return Loader({"inputs": x, "labels": y} for x, y in toy.loader(seed=seed))


def assert_same(ours, reference):
    assert (ours is None) == (reference is None)
    if ours is not None:
        toy.assert_close(ours, [t.detach() for t in reference])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("buffers", [False, True])
def test_gradients_updates_and_buffers_query_after_query(kind, buffers):
    model = Container(toy.norm_net())
    cfg = settings(kind, provide_buffers=True, provide_labels=True)
    users = [user(model, LOSS, batches(), toy.SETUP, 0, cfg) for user in KINDS[kind]]
    for scale in (0.9, 0.8):
        sent = toy.payload(model, buffers, scale)
        (shared, true), (other, other_true) = [
            user.compute_local_updates(copy.deepcopy(sent)) for user in users
        ]
        assert_same(shared["gradients"], other["gradients"])
        assert_same(shared["buffers"], other["buffers"])
        assert_same(true["buffers"], other_true["buffers"])
        assert torch.equal(true["data"], other_true["data"])
        for name in ("num_data_points", "data_key"):
            if name in other["metadata"]:
                assert shared["metadata"][name] == other["metadata"][name]
        assert torch.equal(shared["metadata"]["labels"], other["metadata"]["labels"].sort()[0])
        steps, other_steps = (s["metadata"]["local_hyperparams"] for s in (shared, other))
        assert (steps is None) == (other_steps is None)
        for name in ("lr", "steps", "data_per_step") if steps else ():
            assert steps[name] == other_steps[name]


def test_clipping_of_one_gradient():
    model = Container(toy.plain_net())
    cfg = settings("local_gradient")
    cfg.local_diff_privacy.per_example_clipping = 0.5
    ours, other = (
        user(model, LOSS, batches(), toy.SETUP, 0, cfg) for user in KINDS["local_gradient"]
    )
    sent = toy.payload(model)
    shared, reference = (user.compute_local_updates(sent)[0] for user in (ours, other))
    assert_same(shared["gradients"], reference["gradients"])


def test_an_aggregate_of_one_user_by_its_default_configuration():
    # Of more users the reference's is no mean.
    model = Container(toy.plain_net())
    cfg = settings("multiuser_aggregate")
    sent = toy.payload(model, buffers=True)
    ours = MultiUserAggregate(model, LOSS, [batches()], toy.SETUP, cfg, [0])
    other = theirs.MultiUserAggregate(model, LOSS, [batches()], toy.SETUP, cfg, [0])
    shared, _ = ours.compute_local_updates(sent)
    reference, _ = other.compute_local_updates(sent, return_true_user_data=True)
    assert cfg.num_local_updates == 1
    assert_same(shared["gradients"], reference["gradients"])
    assert shared["metadata"]["num_users"] == reference["metadata"]["num_users"] == 1
