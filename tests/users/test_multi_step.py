import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from orchestra_strategy.algorithms.objective import LossParts
from orchestra_strategy.errors import ModelError, ParameterError
from orchestra_strategy.users import UserMultiStep, UserSingleStep
from tests.reference import users as reference
from tests.users import toy

LOSS = nn.CrossEntropyLoss()


def user(model, cfg_user=None, dataloader=None, loss=LOSS, idx=0, **options):
    data = toy.loader() if dataloader is None else dataloader
    return UserMultiStep(model, loss, data, toy.SETUP, idx, cfg_user or toy.cfg(), **options)


def expected_update(model, sent, loss=toy.reference_loss, rows=6, labels=True, **steps):
    mine = copy.deepcopy(model)
    reference.load(mine, **sent)
    x, y = (t[:rows] for t in toy.samples())
    options = {"steps": 4, "size": 2, "lr": 0.1, **steps}
    update, mean_loss = reference.local_sgd(loss, mine, x, y if labels else None, **options)
    return update, mean_loss, mine


@settings(max_examples=20, deadline=None)
@given(
    points=st.integers(2, 9),
    size=st.integers(1, 9),
    steps=st.integers(1, 7),
    lr=st.floats(1e-3, 0.5),
    buffers=st.booleans(),
)
def test_update_is_that_of_a_plain_loop(points, size, steps, lr, buffers):
    size = min(size, points)
    model = toy.plain_net()
    sent = toy.payload(model, buffers)
    cfg_user = toy.cfg(
        num_data_points=points,
        num_local_updates=steps,
        num_data_per_local_update_step=size,
        local_learning_rate=lr,
    )
    one = user(model, cfg_user)
    shared, _ = one.compute_local_updates(sent)
    update, mean_loss, _ = expected_update(model, sent, rows=points, steps=steps, size=size, lr=lr)
    toy.assert_close(shared["gradients"], update)
    assert one.loss_means["total"] == pytest.approx(mean_loss, rel=1e-5)
    assert one.steps_done == steps


@pytest.mark.parametrize("buffers", [False, True])
def test_batch_norm(buffers):
    model = toy.norm_net()
    sent = toy.payload(model, buffers)
    one = user(model, toy.all_told())
    shared, true = one.compute_local_updates(sent)
    update, _, mine = expected_update(model, sent)
    toy.assert_close(shared["gradients"], update)
    toy.assert_close(shared["buffers"], list(mine.buffers()))
    toy.assert_close(true["buffers"], list(mine.buffers()))
    assert shared["buffers"][2].item() == (1 if buffers else 4)


@pytest.mark.parametrize("make", [toy.plain_net, toy.norm_net])
@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_one_step_is_minus_lr_times_the_single_step_gradient(make, clip):
    model = make()
    sent = toy.payload(model, buffers=True)
    defence = toy.privacy(per_example_clipping=clip)
    cfg_user = toy.cfg(
        num_local_updates=1, num_data_per_local_update_step=6, local_diff_privacy=defence
    )
    multi, _ = user(model, cfg_user).compute_local_updates(sent)
    single = UserSingleStep(model, LOSS, toy.loader(), toy.SETUP, 0, cfg_user)
    gradients = single.compute_local_updates(sent)[0]["gradients"]
    toy.assert_close(multi["gradients"], [-0.1 * g for g in gradients])


def test_data_go_round():
    seen = []

    def objective(model, batch):
        seen.append(batch["ids"].tolist())
        assert torch.equal(batch["inputs"], toy.samples()[0][batch["ids"]])
        return model(batch["inputs"]).square().mean()

    model = toy.plain_net()
    cfg_user = toy.cfg(num_data_points=5, num_local_updates=6)
    user(model, cfg_user, loss=objective).compute_local_updates(toy.payload(model))
    assert seen == [[0, 1], [2, 3], [4], [1, 2], [3, 4], [0, 1]]


def test_self_supervised_objective_on_unlabelled_data():
    model = toy.plain_net()
    one = user(model, toy.all_told(), toy.unlabelled(), toy.variance_objective)
    sent = toy.payload(model)
    shared, true = one.compute_local_updates(sent)
    update, _, _ = expected_update(model, sent, toy.variance_loss, labels=False)
    toy.assert_close(shared["gradients"], update)
    assert shared["metadata"]["labels"] is None
    assert shared["metadata"]["local_hyperparams"]["labels"] is None
    assert true["labels"] is None


def test_clipping_is_per_example_in_every_step():
    model = toy.plain_net()
    sent = toy.payload(model)
    one = user(model, toy.cfg(local_diff_privacy=toy.privacy(per_example_clipping=0.3)))
    shared, _ = one.compute_local_updates(sent)
    update, _, _ = expected_update(model, sent, clip_norm=0.3)
    toy.assert_close(shared["gradients"], update)
    toy.assert_far(update, expected_update(model, sent)[0])


def test_privacy_off_is_plain():
    model = toy.plain_net()
    sent = toy.payload(model)
    off = toy.privacy(gradient_noise=0.0, input_noise=0.0, per_example_clipping=0.0)
    shared, _ = user(model, toy.cfg(local_diff_privacy=off)).compute_local_updates(sent)
    plain, _ = user(model).compute_local_updates(sent)
    toy.assert_close(shared["gradients"], plain["gradients"], 0)


@pytest.mark.parametrize(("distribution", "std"), [("gaussian", 0.3), ("laplacian", 0.3 * 2**0.5)])
def test_noise_of_every_step_adds_up(distribution, std):
    torch.manual_seed(0)
    model = nn.Linear(4, 25_000)
    noise = toy.privacy(gradient_noise=0.3, distribution=distribution)
    objective = lambda model, batch: 0.0 * model(batch["inputs"]).sum()  # noqa: E731
    one = user(model, toy.cfg(local_diff_privacy=noise), toy.unlabelled(), objective)
    update = one.compute_local_updates(toy.payload(model))[0]["gradients"][0].flatten()
    # The gradient is zero, so the update is -lr times the sum of 4 independent draws.
    assert update.std().item() == pytest.approx(0.1 * std * 4**0.5, rel=0.1)


def test_input_noise_stays_out_of_the_true_data():
    model = toy.plain_net()
    one = user(model, toy.cfg(local_diff_privacy=toy.privacy(input_noise=0.5)))
    shared, true = one.compute_local_updates(toy.payload(model))
    toy.assert_far(shared["gradients"], expected_update(model, toy.payload(model))[0])
    assert torch.equal(true["data"], toy.samples()[0][:6])
    assert torch.equal(true["labels"], toy.samples()[1][:6])


FLAGS = ("num_data_points", "labels", "local_hyperparams", "buffers")


@pytest.mark.parametrize("told", [*[(flag,) for flag in FLAGS], (), FLAGS])
def test_each_flag_shows_exactly_its_entry(told):
    model = toy.norm_net()
    one = user(model, toy.cfg(**{f"provide_{flag}": True for flag in told}))
    shared, _ = one.compute_local_updates(toy.payload(model))
    metadata = shared["metadata"]
    assert set(metadata) == {"num_data_points", "labels", "local_hyperparams", "data_key"}
    seen = {**metadata, "buffers": shared["buffers"]}
    assert {name for name in FLAGS if seen[name] is not None} == set(told)
    labels = toy.samples()[1].tolist()
    if "num_data_points" in told:
        assert metadata["num_data_points"] == 6
    if "labels" in told:
        assert metadata["labels"].tolist() == sorted(labels[:6])
    if "local_hyperparams" in told:
        told_labels = [step.tolist() for step in metadata["local_hyperparams"].pop("labels")]
        assert metadata["local_hyperparams"] == {"lr": 0.1, "steps": 4, "data_per_step": 2}
        assert told_labels == [sorted(labels[i : i + 2]) for i in (0, 2, 4, 0)]


def test_nothing_of_the_caller_changes():
    model = toy.norm_net()
    before = copy.deepcopy(model.state_dict())
    sent = toy.payload(model, buffers=True)
    kept = {name: toy.copies(tensors) for name, tensors in sent.items()}
    user(model, toy.all_told()).compute_local_updates(sent)
    toy.assert_close(sent["parameters"], kept["parameters"], 0)
    toy.assert_close(sent["buffers"], kept["buffers"], 0)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_every_query_starts_from_the_payload():
    model = toy.plain_net()
    one = user(model)
    sent = toy.payload(model)
    first, _ = one.compute_local_updates(sent)
    second, _ = one.compute_local_updates(sent)
    toy.assert_close(first["gradients"], second["gradients"], 0)
    assert one.counted_queries == 2


def momentum(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.01)


def test_momentum_survives_the_rounds():
    model = toy.plain_net()
    one = user(model, optimizer_fn=momentum)
    mine = copy.deepcopy(model)
    optimizer = momentum(mine.parameters())
    x, y = toy.samples()
    for scale in (0.9, 0.8):
        sent = toy.payload(model, scale=scale)
        shared, _ = one.compute_local_updates(sent)
        reference.load(mine, sent["parameters"])
        for start in (0, 2, 4, 0):
            optimizer.zero_grad()
            toy.reference_loss(mine, x[start : start + 2], y[start : start + 2]).backward()
            optimizer.step()
        update = [p.detach() - s for p, s in zip(mine.parameters(), sent["parameters"])]
        toy.assert_close(shared["gradients"], update)


def test_optimizer_state_can_be_carried_over():
    model = toy.plain_net()
    sent = toy.payload(model)
    one, other = (user(model, optimizer_fn=momentum) for _ in range(2))
    one.compute_local_updates(sent)
    state = one.optimizer_state()
    expected, _ = one.compute_local_updates(sent)
    other.load_optimizer_state(state)  # not changed by the steps in between
    got, _ = other.compute_local_updates(sent)
    toy.assert_close(got["gradients"], expected["gradients"], 0)
    fresh, _ = user(model, optimizer_fn=momentum).compute_local_updates(sent)
    toy.assert_far(fresh["gradients"], expected["gradients"])


def test_a_failed_query_leaves_buffers_and_momentum_as_they_were():
    model = toy.norm_net()
    calls = []

    def objective(model, batch):
        calls.append(1)
        out = model(batch["inputs"])
        if len(calls) == 6:
            raise RuntimeError("a fault in the second step of the second query")
        return out.square().mean()

    sent = toy.payload(model)
    one, other = (user(model, loss=loss, optimizer_fn=momentum) for loss in (objective, square))
    one.compute_local_updates(sent)
    other.compute_local_updates(sent)
    with pytest.raises(RuntimeError, match="in the second step"):
        one.compute_local_updates(sent)
    got, _ = one.compute_local_updates(sent)
    expected, _ = other.compute_local_updates(sent)
    toy.assert_close(got["gradients"], expected["gradients"], 0)
    assert one.counted_queries == 3


def square(model, batch):
    return model(batch["inputs"]).square().mean()


def test_unused_parameters_stay_out_of_weight_decay():
    model = nn.ModuleList([nn.Linear(4, 2), nn.Linear(4, 2)])

    def objective(model, batch):
        return model[0](batch["inputs"]).square().mean()

    one = user(model, loss=objective, optimizer_fn=momentum)
    update = one.compute_local_updates(toy.payload(model))[0]["gradients"]
    assert [bool(g.any()) for g in update] == [True, True, False, False]


def test_optimizer_options():
    model = toy.plain_net()
    one = user(model)
    one.set_optimizer_options(lr=0.2, momentum=0.5)
    one.compute_local_updates(toy.payload(model))
    assert one.optimizer.param_groups[0]["lr"] == 0.2
    with pytest.raises(ParameterError, match=r"option of SGD, got `momentun`; did you mean `momen"):
        one.set_optimizer_options(momentun=0.5)


class TestStreamedBatches:
    """Batches that the owner gives, in place of slices of the user's samples."""

    @staticmethod
    def streamed(model, batches, **changes):
        names = ("num_data_points", "num_local_updates", "num_data_per_local_update_step")
        cfg_user = toy.all_told(**dict.fromkeys(names), **changes)
        return UserMultiStep(model, LOSS, None, toy.SETUP, 0, cfg_user, batches=batches)

    def test_steps_run_over_exactly_these_batches(self):
        model = toy.norm_net()
        x, y = toy.samples()
        order = [[3, 4, 5], [8, 0], [1, 2, 6, 7]]

        def batches():
            for rows in order:
                yield {"inputs": x[rows], "labels": y[rows]}

        one = self.streamed(model, batches)
        sent = toy.payload(model)
        shared, true = one.compute_local_updates(sent)
        mine = copy.deepcopy(model)
        reference.load(mine, sent["parameters"])
        for rows in order:
            step = reference.gradient(toy.reference_loss, mine, x[rows], y[rows])
            with torch.no_grad():
                for p, g in zip(mine.parameters(), step):
                    p -= 0.1 * g
        update = [p.detach() - s for p, s in zip(mine.parameters(), sent["parameters"])]
        toy.assert_close(shared["gradients"], update)
        toy.assert_close(shared["buffers"], list(mine.buffers()))
        assert (true["data"], true["labels"]) == (None, None)
        assert one.steps_done == 3
        metadata = shared["metadata"]
        assert metadata["num_data_points"] == 9
        assert metadata["labels"].tolist() == sorted(y.tolist())
        hyperparams = metadata["local_hyperparams"]
        assert (hyperparams["steps"], hyperparams["data_per_step"]) == (3, 4)
        told = [labels.tolist() for labels in hyperparams["labels"]]
        assert told == [sorted(y[rows].tolist()) for rows in order]

    def test_batches_are_drawn_one_at_a_time_and_anew_in_each_query(self):
        log = []

        def batches():
            for i in range(3):
                log.append(f"batch {i}")
                yield (toy.samples()[0][:4],)

        def objective(model, batch):
            log.append("step")
            return model(batch["inputs"]).square().mean()

        model = toy.plain_net()
        one = UserMultiStep(
            model, objective, None, toy.SETUP, 0, toy.cfg(), batches=batches, optimizer_fn=momentum
        )
        one.compute_local_updates(toy.payload(model))
        assert log == ["batch 0", "step", "batch 1", "step", "batch 2", "step"]
        one.compute_local_updates(toy.payload(model))
        assert len(log) == 12

    def test_no_batch_is_no_update(self):
        model = toy.norm_net()
        one = self.streamed(model, lambda: iter(()))
        shared, _ = one.compute_local_updates(toy.payload(model))
        assert not any(g.any() for g in shared["gradients"])
        assert (one.steps_done, one.loss_means) == (0, {})
        assert shared["metadata"]["num_data_points"] == 0

    def test_only_the_learning_rate_is_needed(self):
        with pytest.raises(
            ParameterError, match="Expected `cfg_user` to have `local_learning_rate`"
        ):
            self.streamed(toy.plain_net(), lambda: (), local_learning_rate=None)


def test_parts_of_the_loss_are_averaged():
    def objective(model, batch):
        value = batch["inputs"].mean() + 0 * model(batch["inputs"]).sum()
        return LossParts(2 * value, {"half": value})

    model = toy.plain_net()
    one = user(model, loss=objective)
    one.compute_local_updates(toy.payload(model))
    x = toy.samples()[0]
    half = sum(x[i : i + 2].mean().item() for i in (0, 2, 4, 0)) / 4
    assert one.loss_means == {"total": pytest.approx(2 * half), "half": pytest.approx(half)}


def test_all_data_points_and_a_step_larger_than_them():
    model = toy.plain_net()
    cfg_user = toy.all_told(num_data_points="all", num_data_per_local_update_step=50)
    shared, _ = user(model, cfg_user).compute_local_updates(toy.payload(model))
    assert shared["metadata"]["num_data_points"] == 9
    assert shared["metadata"]["local_hyperparams"]["data_per_step"] == 9
    update, _, _ = expected_update(model, toy.payload(model), rows=9, size=9)
    toy.assert_close(shared["gradients"], update)  # every step on all samples


def test_a_step_larger_than_the_data_asked_for():
    with pytest.raises(ParameterError, match=r"at most `num_data_points`, got 7 > 6"):
        user(toy.plain_net(), toy.cfg(num_data_per_local_update_step=7))


def test_batch_norm_cannot_be_clipped():
    model = toy.norm_net()
    one = user(model, toy.cfg(local_diff_privacy=toy.privacy(per_example_clipping=0.5)))
    with pytest.raises(ModelError, match=r"got BatchNorm1d at `1`.*Use GroupNorm"):
        one.compute_local_updates(toy.payload(model))
