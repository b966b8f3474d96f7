import copy
import logging
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from orchestra_strategy.errors import DataError, OrchestraError, ParameterError
from orchestra_strategy.users import MultiUserAggregate, UserMultiStep, UserSingleStep
from tests.reference import users as reference
from tests.users import toy

LOSS = nn.CrossEntropyLoss()


def rows_of(idx):
    return 6 + 2 * (idx % 3)  # even: BatchNorm cannot do a last slice of one


def loader_of(idx):
    """Each user has other samples, and another number of them."""
    return toy.loader(rows=rows_of(idx), seed=100 + idx)


def aggregate(model, users, cfg_user=None, loss=LOSS, dataloaders=loader_of, **options):
    return MultiUserAggregate(
        model, loss, dataloaders, toy.SETUP, cfg_user or toy.cfg(), users, **options
    )


def singles(model, users, sent, cfg_user=None, loss=LOSS):
    """Each user on its own: update and buffers."""
    found = []
    for idx in users:
        told = copy.copy(cfg_user or toy.cfg())
        told.provide_buffers = True
        one = UserMultiStep(model, loss, loader_of(idx), toy.SETUP, idx, told)
        found.append(one.compute_local_updates(sent)[0])
    return [f["gradients"] for f in found], [f["buffers"] for f in found]


@settings(max_examples=20, deadline=None)
@given(
    users=st.lists(st.integers(0, 50), min_size=1, max_size=5, unique=True),
    weights=st.sampled_from(["uniform", "num_samples"]),
    buffers=st.booleans(),
    noise=st.sampled_from([0.0, 0.5]),
)
def test_k_users_are_the_exact_weighted_mean_of_k_single_users(users, weights, buffers, noise):
    model = toy.norm_net()
    sent = toy.payload(model, buffers)
    cfg_user = toy.cfg(
        num_data_points="all",
        aggregate_weights=weights,
        provide_buffers=True,
        local_diff_privacy=toy.privacy(gradient_noise=noise),  # each user keeps its own stream
    )
    shared, _ = aggregate(model, users, cfg_user).compute_local_updates(sent)
    updates, states = singles(model, users, sent, cfg_user)
    by_user = [1] * len(users) if weights == "uniform" else [rows_of(idx) for idx in users]
    toy.assert_close(shared["gradients"], reference.weighted_mean(updates, by_user), 1e-7)
    toy.assert_close(shared["buffers"], reference.weighted_mean(states, by_user), 1e-7)
    assert shared["buffers"][2].dtype == torch.int64


def test_two_users_by_hand():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    loaders = [[(torch.full((1, 1), 1.0),)], [(torch.full((3, 1), 5.0),)]]
    sent = {"parameters": [torch.zeros(1, 1)], "buffers": None}

    def objective(model, batch):  # gradient: the mean input
        return model(batch["inputs"]).mean()

    for weights, mean in (("uniform", (1 + 5) / 2), ("num_samples", (1 * 1 + 3 * 5) / 4)):
        cfg_user = toy.cfg(
            num_data_points="all",
            num_local_updates=1,
            num_data_per_local_update_step=3,
            local_learning_rate=1.0,
            aggregate_weights=weights,
        )
        for shares, sign in (("update", -1), ("gradient", 1), (None, 1)):
            one = aggregate(model, range(2), cfg_user, objective, loaders, shares=shares)
            shared, _ = one.compute_local_updates(sent)
            assert shared["gradients"][0].item() == pytest.approx(sign * mean, rel=1e-6)
            assert one.steps_done == 2


class TestOneLocalStep:
    """The field's default: gradients on all samples, whatever a step's size and rate are."""

    @staticmethod
    def one_step(**changes):
        return toy.all_told(
            num_local_updates=1,
            num_data_per_local_update_step=2,
            local_learning_rate=1e-3,
            **changes,
        )

    @pytest.mark.parametrize("make", [toy.plain_net, toy.norm_net])
    @pytest.mark.parametrize("buffers", [False, True])
    def test_the_mean_gradient_of_each_users_samples(self, make, buffers):
        model, users = make(), [4, 0, 9]
        sent = toy.payload(model, buffers)
        many = aggregate(model, users, self.one_step())
        shared, true = many.compute_local_updates(sent)
        gradients, losses = [], []
        for idx in users:
            mine = copy.deepcopy(model)
            reference.load(mine, **sent)
            x, y = (t[:6] for t in toy.samples(rows_of(idx), 100 + idx))
            losses.append(toy.reference_loss(copy.deepcopy(mine), x, y).item())
            gradients.append(reference.gradient(toy.reference_loss, mine, x, y))
        toy.assert_close(shared["gradients"], reference.weighted_mean(gradients, [1, 1, 1]))
        assert many.loss_means["total"] == pytest.approx(sum(losses) / 3, rel=1e-5)
        assert shared["metadata"]["num_data_points"] == 18
        assert shared["metadata"]["num_users"] == 3
        assert shared["metadata"]["local_hyperparams"] is None  # as of a single-step user
        assert (shared["buffers"] is None) == buffers == (true["buffers"] is None)

    def test_buffers_are_the_mean_of_exact_statistics(self):
        model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, toy.CLASSES))
        many = aggregate(model, [3, 1], self.one_step())
        for query in (1, 2):  # the same samples again: the same mean
            shared, _ = many.compute_local_updates(toy.payload(model))
            rows = [toy.samples(rows_of(idx), 100 + idx)[0][:6].double() for idx in (3, 1)]
            expected = [
                sum(x.mean(0) for x in rows) / 2,
                sum((x - x.mean(0)).square().sum(0) / 5 for x in rows) / 2,
            ]
            for got, value in zip(shared["buffers"], expected):
                torch.testing.assert_close(got.double(), value, rtol=1e-5, atol=1e-6)
            assert shared["buffers"][2].item() == query

    def test_noise_and_clipping_are_the_single_users(self):
        model, sent = toy.plain_net(), toy.payload(toy.plain_net())
        cfg_user = self.one_step(
            local_diff_privacy=toy.privacy(gradient_noise=0.5, per_example_clipping=0.5)
        )
        alone = [
            UserSingleStep(
                model, LOSS, loader_of(idx), toy.SETUP, idx, cfg_user
            ).compute_local_updates(sent)[0]["gradients"]
            for idx in (2, 7)
        ]
        shared, _ = aggregate(model, [2, 7], cfg_user).compute_local_updates(sent)
        toy.assert_close(shared["gradients"], reference.weighted_mean(alone, [1, 1]), 1e-7)

    def test_an_optimizer_of_the_callers_is_used(self):
        model, sent = toy.plain_net(), toy.payload(toy.plain_net())

        def fast(parameters):
            return torch.optim.SGD(parameters, lr=2.0)

        many = aggregate(model, [2, 7], self.one_step(), optimizer_fn=fast)
        shared, _ = many.compute_local_updates(sent)
        assert shared["metadata"]["local_hyperparams"]["lr"] == 2.0
        cfg_user = toy.cfg(num_data_points=2)
        gradients = [
            UserSingleStep(
                model, LOSS, loader_of(idx), toy.SETUP, idx, cfg_user
            ).compute_local_updates(sent)[0]["gradients"]
            for idx in (2, 7)
        ]
        mean = reference.weighted_mean(gradients, [1, 1])
        toy.assert_close(shared["gradients"], [-2.0 * g for g in mean])

    def test_it_says_so(self):
        text = repr(aggregate(toy.plain_net(), range(2), self.one_step()))
        assert "the mean over users of the gradient of the mean loss" in text
        assert "num_local_updates" not in text
        many = repr(aggregate(toy.plain_net(), range(2), self.one_step(), shares="update"))
        assert "the mean over users of local minus server parameters" in many

    def test_gradients_of_several_steps(self):
        with pytest.raises(ParameterError, match=r"`num_local_updates` to be 1 where gra.*got 4"):
            aggregate(toy.plain_net(), range(2), shares="gradient")
        with pytest.raises(ParameterError, match="`shares` to be 'gradient' or 'update', got 'u'"):
            aggregate(toy.plain_net(), range(2), shares="u")


def test_the_order_of_the_users_does_not_matter():
    model = toy.norm_net()
    sent = toy.payload(model)
    there, _ = aggregate(model, [7, 1, 4], toy.all_told()).compute_local_updates(sent)
    back, _ = aggregate(model, [4, 1, 7], toy.all_told()).compute_local_updates(sent)
    toy.assert_close(there["gradients"], back["gradients"], 1e-7)
    toy.assert_close(there["buffers"], back["buffers"], 1e-7)


@pytest.mark.parametrize("make", [toy.plain_net, toy.norm_net])
def test_one_user_is_that_user_query_after_query(make):
    model = make()
    one = UserMultiStep(model, LOSS, loader_of(5), toy.SETUP, 5, toy.all_told())
    many = aggregate(model, [5], toy.all_told())
    for scale in (0.9, 0.8):
        sent = toy.payload(model, scale=scale)
        expected, _ = one.compute_local_updates(sent)
        got, _ = many.compute_local_updates(sent)
        toy.assert_close(got["gradients"], expected["gradients"], 0)
        toy.assert_close(got["buffers"], expected["buffers"], 0)  # they move on alike
        assert got["metadata"]["num_data_points"] == expected["metadata"]["num_data_points"]
        assert torch.equal(got["metadata"]["labels"], expected["metadata"]["labels"])
        assert many.loss_means == pytest.approx(one.loss_means)


def test_dataloaders_as_list_mapping_or_callable():
    model, users = toy.plain_net(), [30, 2]
    sent = toy.payload(model)
    by_index = {idx: loader_of(idx) for idx in users}
    expected = reference.weighted_mean(singles(model, users, sent)[0], [1, 1])
    for dataloaders in ([by_index[30], by_index[2]], {2: by_index[2], 30: by_index[30]}, loader_of):
        shared, _ = aggregate(model, users, dataloaders=dataloaders).compute_local_updates(sent)
        toy.assert_close(shared["gradients"], expected, 1e-7)


def test_dataloaders_are_asked_for_when_the_users_turn_comes():
    log = []

    def objective(model, batch):
        log.append("step")
        return model(batch["inputs"]).square().mean()

    def lazy(idx):
        log.append(idx)
        return loader_of(idx)

    model = toy.plain_net()
    one = aggregate(model, [3, 4], toy.cfg(num_local_updates=1), objective, lazy)
    assert log == []
    one.compute_local_updates(toy.payload(model))
    assert log == [3, "step", 4, "step"]


def test_momentum_does_not_pass_from_user_to_user():
    def momentum(parameters):
        return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)

    model, sent = toy.plain_net(), toy.payload(toy.plain_net())
    many = aggregate(model, [1, 2], optimizer_fn=momentum)
    alone = [
        UserMultiStep(
            model, LOSS, loader_of(idx), toy.SETUP, idx, toy.cfg(), optimizer_fn=momentum
        ).compute_local_updates(sent)[0]["gradients"]
        for idx in (1, 2)
    ]
    for _ in range(2):
        shared, _ = many.compute_local_updates(sent)
        toy.assert_close(shared["gradients"], reference.weighted_mean(alone, [1, 1]), 1e-7)


def test_nothing_of_the_caller_changes():
    model = toy.norm_net()
    before = copy.deepcopy(model.state_dict())
    sent = toy.payload(model, buffers=True)
    kept = {name: toy.copies(tensors) for name, tensors in sent.items()}
    aggregate(model, range(3), toy.all_told()).compute_local_updates(sent)
    assert set(sent) == {"parameters", "buffers"}
    toy.assert_close(sent["parameters"], kept["parameters"], 0)
    toy.assert_close(sent["buffers"], kept["buffers"], 0)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_one_model_however_many_users(monkeypatch):
    made = []
    real = copy.deepcopy
    monkeypatch.setattr(copy, "deepcopy", lambda *args: made.append(1) or real(*args))
    model = toy.plain_net()
    one = aggregate(model, range(40), toy.cfg(num_local_updates=1))
    one.compute_local_updates(toy.payload(model))
    assert len(made) == 1


def test_metadata():
    model = toy.plain_net()
    told = toy.all_told(num_data_points="all", num_local_updates=2)
    one = aggregate(model, [1, 2], told)
    shared, true = one.compute_local_updates(toy.payload(model))
    metadata = shared["metadata"]
    labels = {idx: toy.samples(rows_of(idx), 100 + idx)[1].tolist() for idx in (1, 2)}
    assert metadata["num_data_points"] == rows_of(1) + rows_of(2)
    assert metadata["labels"].tolist() == sorted(labels[1] + labels[2])
    told_labels = metadata["local_hyperparams"].pop("labels")
    assert metadata["local_hyperparams"] == {"lr": 0.1, "steps": 2, "data_per_step": 2}
    assert [[step.tolist() for step in user] for user in told_labels] == [
        [sorted(labels[idx][:2]), sorted(labels[idx][2:4])] for idx in (1, 2)
    ]
    assert metadata["data_key"] == "inputs"
    assert (true["data"], true["labels"]) == (None, None)  # only on request


FLAGS = ("num_data_points", "labels", "local_hyperparams", "buffers")


@pytest.mark.parametrize("told", [*[(flag,) for flag in FLAGS], (), FLAGS])
def test_each_flag_shows_exactly_its_entry(told):
    model = toy.norm_net()
    one = aggregate(model, range(2), toy.cfg(**{f"provide_{flag}": True for flag in told}))
    shared, _ = one.compute_local_updates(toy.payload(model))
    seen = {**shared["metadata"], "buffers": shared["buffers"]}
    assert {name for name in FLAGS if seen[name] is not None} == set(told)


def test_unlabelled_data():
    model = toy.plain_net()
    one = aggregate(
        model,
        range(2),
        toy.all_told(),
        toy.variance_objective,
        lambda idx: toy.unlabelled(seed=idx),
    )
    metadata = one.compute_local_updates(toy.payload(model))[0]["metadata"]
    assert metadata["labels"] is None
    assert metadata["local_hyperparams"]["labels"] == [None, None]


def test_true_data_on_request_are_those_of_all_users():
    model = toy.plain_net()
    noisy = toy.cfg(local_diff_privacy=toy.privacy(input_noise=1.0))
    one = aggregate(model, [1, 2], noisy, keep_true_data=True)
    _, true = one.compute_local_updates(toy.payload(model))
    x, y = zip(*(toy.samples(rows_of(idx), 100 + idx) for idx in (1, 2)))
    assert torch.equal(true["data"], torch.cat([t[:6] for t in x]))
    assert torch.equal(true["labels"], torch.cat([t[:6] for t in y]))


class TestUsersPerRound:
    @staticmethod
    def drawn(seed, rounds=3, users=range(10, 20)):
        model = toy.plain_net()
        cfg_user = toy.cfg(users_per_round=4, seed=seed, num_local_updates=2)
        one = aggregate(model, users, cfg_user)
        found = []
        for _ in range(rounds):
            shared, _ = one.compute_local_updates(toy.payload(model))
            found.append(one.users_done)
        assert shared["metadata"]["num_users"] == 4
        updates = singles(model, found[-1], toy.payload(model), cfg_user)[0]
        toy.assert_close(shared["gradients"], reference.weighted_mean(updates, [1] * 4), 1e-7)
        return found

    def test_seeded_and_different_from_round_to_round(self):
        first = self.drawn(seed=0)
        assert first == self.drawn(seed=0)
        assert first != self.drawn(seed=1)
        assert len({tuple(users) for users in first}) == 3
        assert all(len(set(users)) == 4 and set(users) < set(range(10, 20)) for users in first)

    def test_everyone_has_a_turn(self):
        assert {idx for users in self.drawn(seed=0, rounds=12) for idx in users} == set(
            range(10, 20)
        )

    def test_more_than_there_are(self):
        with pytest.raises(ParameterError, match=r"`users_per_round` to be at most.*got 4 > 3"):
            aggregate(toy.plain_net(), range(3), toy.cfg(users_per_round=4))


class TestUsersThatRaise:
    @staticmethod
    def broken(idx):
        if idx in (1, 3):
            raise OSError(f"disk {idx} is gone")
        return loader_of(idx)

    def test_are_left_out_and_reported(self, caplog):
        model = toy.norm_net()
        sent = toy.payload(model)
        cfg_user = toy.all_told(min_users=2)
        one = aggregate(model, range(4), cfg_user, dataloaders=self.broken)
        shared, _ = one.compute_local_updates(sent)
        updates, states = singles(model, [0, 2], sent, cfg_user)
        toy.assert_close(shared["gradients"], reference.weighted_mean(updates, [1, 1]), 1e-7)
        toy.assert_close(shared["buffers"], reference.weighted_mean(states, [1, 1]), 1e-7)
        assert one.users_done == [0, 2]
        assert one.failed_users == {1: "OSError: disk 1 is gone", 3: "OSError: disk 3 is gone"}
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert "2 of 4 users failed and are left out of the mean: user 1: OSError" in caplog.text

    @pytest.mark.parametrize("min_users", [3, None])  # None: all must succeed
    def test_too_few_left(self, min_users):
        model = toy.norm_net()
        one = aggregate(model, range(4), toy.all_told(min_users=min_users), dataloaders=self.broken)
        before = toy.copies(one.model.buffers())
        message = r"got 2 of 4; failed: user 1: OSError: disk 1 is gone; user 3: OSError: disk 3"
        with pytest.raises(OrchestraError, match=message) as caught:
            one.compute_local_updates(toy.payload(model))
        assert isinstance(caught.value.__cause__, OSError)
        toy.assert_close(list(one.model.buffers()), before, 0)
        one.dataloader_of = loader_of  # the disk is back: the user still works
        shared, _ = one.compute_local_updates(toy.payload(model))
        updates, _ = singles(model, range(4), toy.payload(model))
        toy.assert_close(shared["gradients"], reference.weighted_mean(updates, [1] * 4), 1e-7)
        assert one.counted_queries == 2

    def test_in_the_middle_of_its_steps_leaves_no_trace(self):
        calls = []

        def objective(model, batch):
            calls.append(1)
            if len(calls) == 3:  # the first user's third step
                raise RuntimeError("fault")
            return model(batch["inputs"]).square().mean()

        model, sent = toy.norm_net(), toy.payload(toy.norm_net())
        one = aggregate(model, [0, 1], toy.all_told(min_users=1), objective)
        shared, _ = one.compute_local_updates(sent)

        def faultless(model, batch):
            return model(batch["inputs"]).square().mean()

        updates, states = singles(model, [1], sent, loss=faultless)
        toy.assert_close(shared["gradients"], updates[0], 0)
        toy.assert_close(shared["buffers"], states[0], 0)

    def test_a_user_with_too_few_samples(self):
        model = toy.plain_net()
        one = aggregate(model, [0, 1], toy.cfg(num_data_points=7, min_users=1))
        one.compute_local_updates(toy.payload(model))
        assert one.users_done == [1]
        assert "at most what user 0 owns, got 7 of 6 samples" in one.failed_users[0]

    def test_an_update_that_is_not_finite_counts_as_failed(self):
        model = toy.plain_net()
        bad = {0: [(torch.full((6, 4), torch.nan), torch.zeros(6).long())], 1: loader_of(1)}
        one = aggregate(model, [0, 1], toy.cfg(min_users=1), dataloaders=bad)
        shared, _ = one.compute_local_updates(toy.payload(model))
        assert all(torch.isfinite(g).all() for g in shared["gradients"])
        assert "Expected a finite update, got one that is not from user 0" in one.failed_users[0]
        strict = aggregate(model, [0, 1], dataloaders=bad)
        with pytest.raises(OrchestraError, match="got 1 of 2; failed: user 0: DataError") as caught:
            strict.compute_local_updates(toy.payload(model))
        assert isinstance(caught.value.__cause__, DataError)

    def test_min_users_above_users_per_round(self):
        with pytest.raises(ParameterError, match=r"`min_users` to be at most .*got 3 > 2"):
            aggregate(toy.plain_net(), range(4), toy.cfg(users_per_round=2, min_users=3))


def test_every_user_can_have_an_objective_of_its_own():
    log = []

    @contextmanager
    def objective_for(idx):
        log.append(f"open {idx}")

        def objective(model, batch):
            if idx == 2:
                raise RuntimeError("fault")
            return (model(batch["inputs"]) - idx).square().mean()

        try:
            yield objective
            log.append(f"save {idx}")
        finally:
            log.append(f"close {idx}")

    model, sent = toy.plain_net(), toy.payload(toy.plain_net())
    one = aggregate(model, [1, 2, 3], toy.cfg(min_users=2), objective_for=objective_for)
    shared, _ = one.compute_local_updates(sent)
    assert log == [
        *("open 1", "save 1", "close 1"),
        *("open 2", "close 2"),
        *("open 3", "save 3", "close 3"),
    ]
    updates = [
        singles(model, [i], sent, loss=lambda m, b, i=i: (m(b["inputs"]) - i).square().mean())[0][0]
        for i in (1, 3)
    ]
    toy.assert_close(shared["gradients"], reference.weighted_mean(updates, [1, 1]), 1e-7)


def test_no_users():
    with pytest.raises(
        ParameterError, match=r"`user_indices` to hold at least one user, got range"
    ):
        aggregate(toy.plain_net(), range(3, 3))


def test_a_user_twice():
    with pytest.raises(ParameterError, match=r"each of `user_indices` once, got \[2\] more often"):
        aggregate(toy.plain_net(), [1, 2, 3, 2])


def test_too_few_dataloaders():
    with pytest.raises(ParameterError, match=r"one entry per user.*got 1 for 2 users"):
        aggregate(toy.plain_net(), range(2), dataloaders=[[]])
    with pytest.raises(ParameterError, match=r"`dataloaders` for all users, got none for \[1\]"):
        aggregate(toy.plain_net(), range(2), dataloaders={0: []})
    with pytest.raises(ParameterError, match="callable from user index to data loader, got int"):
        aggregate(toy.plain_net(), range(2), dataloaders=3)


def test_unknown_weights():
    with pytest.raises(ParameterError, match=r"got 'uniforn'; did you mean `uniform`"):
        aggregate(toy.plain_net(), range(2), toy.cfg(aggregate_weights="uniforn"))
