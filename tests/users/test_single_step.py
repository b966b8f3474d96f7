import copy

import pytest
import torch
from torch import nn

from orchestra_strategy.errors import DataError, ModelError, ParameterError
from orchestra_strategy.users import UserSingleStep
from tests.reference import users as reference
from tests.users import toy

LOSS = nn.CrossEntropyLoss()


def user(model, cfg_user=None, dataloader=None, loss=LOSS, idx=0, **options):
    data = toy.loader() if dataloader is None else dataloader
    return UserSingleStep(model, loss, data, toy.SETUP, idx, cfg_user or toy.cfg(), **options)


@pytest.mark.parametrize("make", [toy.plain_net, toy.norm_net])
@pytest.mark.parametrize("buffers", [False, True])
def test_gradient_is_that_of_a_plain_backward(make, buffers):
    model = make()
    sent = toy.payload(model, buffers)
    shared, _ = user(model).compute_local_updates(sent)
    x, y = toy.samples()
    mine = copy.deepcopy(model)
    reference.load(mine, **sent)
    toy.assert_close(
        shared["gradients"], reference.gradient(toy.reference_loss, mine, x[:6], y[:6])
    )


def test_self_supervised_objective_on_unlabelled_data():
    model = toy.plain_net()
    one = user(model, toy.all_told(), toy.unlabelled(), toy.variance_objective)
    shared, true = one.compute_local_updates(toy.payload(model))
    mine = copy.deepcopy(model)
    reference.load(mine, toy.payload(model)["parameters"])
    x = toy.samples()[0][:6]
    toy.assert_close(shared["gradients"], reference.gradient(toy.variance_loss, mine, x, None))
    assert shared["metadata"]["labels"] is None
    assert true["labels"] is None


@pytest.mark.parametrize("mask", [False, True])
def test_text_is_called_by_name(mask):
    model = toy.text_net()
    ids = torch.randint(0, 11, (6, 5), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "labels": torch.arange(6) % 3}
    if mask:
        batch["attention_mask"] = (ids > 4).float()
    shared, true = user(model, toy.all_told(), [batch]).compute_local_updates(toy.payload(model))
    assert shared["metadata"]["data_key"] == "input_ids"
    assert torch.equal(true["data"], ids)
    mine = copy.deepcopy(model)
    reference.load(mine, toy.payload(model)["parameters"])

    def loss(model, x, y):
        return LOSS(model(x, batch.get("attention_mask")), y)

    toy.assert_close(shared["gradients"], reference.gradient(loss, mine, ids, batch["labels"]))


@pytest.mark.parametrize("clip", ["off", "huge"])
def test_privacy_off_is_plain(clip):
    model = toy.plain_net()
    off = {"gradient_noise": 0.0, "input_noise": 0.0, "per_example_clipping": 0.0}
    if clip == "huge":
        off["per_example_clipping"] = 1e9
    plain, _ = user(model).compute_local_updates(toy.payload(model))
    private = user(model, toy.cfg(local_diff_privacy=toy.privacy(**off)))
    shared, _ = private.compute_local_updates(toy.payload(model))
    toy.assert_close(shared["gradients"], plain["gradients"])


def test_clipping_is_per_example():
    model = toy.plain_net()
    cfg_user = toy.cfg(local_diff_privacy=toy.privacy(per_example_clipping=0.5))
    shared, _ = user(model, cfg_user).compute_local_updates(toy.payload(model))
    mine = copy.deepcopy(model)
    reference.load(mine, toy.payload(model)["parameters"])
    x, y = (t[:6] for t in toy.samples())
    expected = reference.clipped_gradient(toy.reference_loss, mine, x, y, 0.5)
    toy.assert_close(shared["gradients"], expected)
    whole = reference.gradient(toy.reference_loss, mine, x, y)
    factor = min(1, 0.5 / reference.norm(whole))
    toy.assert_far(expected, [g * factor for g in whole])  # clipping the batch would be another


@pytest.mark.parametrize(("distribution", "std"), [("gaussian", 0.3), ("laplacian", 0.3 * 2**0.5)])
@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_gradient_noise(distribution, std, clip):
    torch.manual_seed(0)
    model = nn.Linear(4, 25_000)
    settings = {"gradient_noise": 0.3, "distribution": distribution, "per_example_clipping": clip}
    data = [(toy.samples()[0],)]

    def objective(model, batch):
        return model(batch["inputs"]).square().mean()

    quiet = toy.cfg(local_diff_privacy=toy.privacy(per_example_clipping=clip))
    noisy = toy.cfg(local_diff_privacy=toy.privacy(**settings))
    sent = toy.payload(model)
    clean, _ = user(model, quiet, data, objective).compute_local_updates(sent)
    shared, _ = user(model, noisy, data, objective).compute_local_updates(sent)
    noise = (shared["gradients"][0] - clean["gradients"][0]).flatten()  # 10^5 draws
    assert len(noise) == 100_000
    assert noise.std().item() == pytest.approx(std, rel=0.1)
    assert abs(noise.mean().item()) < 0.01


def test_input_noise_stays_out_of_the_true_data():
    model = toy.plain_net()
    one = user(model, toy.cfg(local_diff_privacy=toy.privacy(input_noise=0.5)))
    clean, _ = user(model).compute_local_updates(toy.payload(model))
    shared, true = one.compute_local_updates(toy.payload(model))
    toy.assert_far(shared["gradients"], clean["gradients"])
    assert torch.equal(true["data"], toy.samples()[0][:6])


def test_noise_streams():
    model = toy.plain_net()
    settings = toy.privacy(gradient_noise=1.0)

    def gradients(idx=0, queries=1, seed=0, **options):
        cfg_user = toy.cfg(local_diff_privacy=settings, seed=seed)
        one = user(model, cfg_user, idx=idx, **options)
        for _ in range(queries):
            shared, _ = one.compute_local_updates(toy.payload(model))
        return shared["gradients"]

    toy.assert_close(gradients(), gradients())
    for other in ({"idx": 1}, {"queries": 2}, {"seed": 1}):
        toy.assert_far(gradients(), gradients(**other))
    own = [gradients(generator=torch.Generator().manual_seed(s)) for s in (5, 5, 6)]
    toy.assert_close(own[0], own[1])
    toy.assert_far(own[0], own[2])


def test_global_generator_is_not_touched():
    model = toy.plain_net()
    settings = toy.privacy(gradient_noise=1.0, input_noise=1.0, per_example_clipping=1.0)
    before = torch.random.get_rng_state()
    user(model, toy.cfg(local_diff_privacy=settings)).compute_local_updates(toy.payload(model))
    assert torch.equal(before, torch.random.get_rng_state())


FLAGS = ("num_data_points", "labels", "buffers")


@pytest.mark.parametrize("told", [*[(flag,) for flag in FLAGS], (), FLAGS])
def test_each_flag_shows_exactly_its_entry(told):
    model = toy.norm_net()
    one = user(model, toy.cfg(**{f"provide_{flag}": True for flag in told}))
    shared, true = one.compute_local_updates(toy.payload(model))
    assert set(shared) == {"gradients", "buffers", "metadata"}
    metadata = shared["metadata"]
    assert set(metadata) == {"num_data_points", "labels", "local_hyperparams", "data_key"}
    seen = {**metadata, "buffers": shared["buffers"]}
    assert {name for name in FLAGS if seen[name] is not None} == set(told)
    if "num_data_points" in told:
        assert metadata["num_data_points"] == 6
    if "labels" in told:
        assert metadata["labels"].tolist() == sorted(toy.samples()[1][:6].tolist())
    if "buffers" in told:
        toy.assert_close(shared["buffers"], list(one.model.buffers()))
    assert metadata["local_hyperparams"] is None
    assert metadata["data_key"] == "inputs"
    assert torch.equal(true["labels"], toy.samples()[1][:6])  # in their own order


def test_local_hyperparams_are_none_even_if_told():
    model = toy.plain_net()
    shared, _ = user(model, toy.all_told()).compute_local_updates(toy.payload(model))
    assert shared["metadata"]["local_hyperparams"] is None


def test_buffers_follow_the_payload():
    model = toy.norm_net()
    one = user(model, toy.all_told())
    sent = toy.payload(model, buffers=True)
    shared, true = one.compute_local_updates(sent)
    assert (shared["buffers"], true["buffers"]) == (None, None)  # eval mode: the server's own
    toy.assert_close(list(one.model.buffers()), sent["buffers"])
    assert not one.model.training
    shared, _ = one.compute_local_updates(toy.payload(model))
    assert one.model.training
    assert shared["buffers"][2].item() == 2  # the server's 1, kept, and one batch
    assert shared["buffers"][2].dtype == torch.int64
    toy.assert_far(shared["buffers"][:2], sent["buffers"][:2])


def columns(rows):
    """Mean and unbiased variance, number by number."""
    means = [sum(column) / len(column) for column in zip(*rows)]
    variances = [
        sum((v - mean) ** 2 for v in column) / (len(column) - 1)
        for mean, column in zip(means, zip(*rows))
    ]
    return means, variances


def statistics_after(queries=1, cfg_user=None, **options):
    """A BatchNorm that sees the samples themselves."""
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, toy.CLASSES))
    one = user(model, cfg_user or toy.all_told(), **options)
    for _ in range(queries):
        shared, true = one.compute_local_updates(toy.payload(model))
    toy.assert_close(shared["buffers"], true["buffers"], 0)
    assert one.model[0].momentum == 0.1  # what was in between is over
    return shared["buffers"]


def test_a_servers_first_query_tells_the_exact_statistics_of_the_batch():
    mean, variance, count = statistics_after()
    expected = columns(toy.samples()[0][:6].tolist())
    assert mean.tolist() == pytest.approx(expected[0], rel=1e-5)
    assert variance.tolist() == pytest.approx(expected[1], rel=1e-5)
    assert count.item() == 1


def test_further_queries_tell_the_mean_of_their_statistics():
    x, _ = toy.samples()
    loader = [[(x[:6], toy.samples()[1][:6])], [(x[3:], toy.samples()[1][3:])]]

    class Changing:
        def __iter__(self):
            return iter(loader.pop(0))

    mean, variance, count = statistics_after(2, dataloader=Changing())
    first, second = columns(x[:6].tolist()), columns(x[3:].tolist())
    assert mean.tolist() == pytest.approx([(a + b) / 2 for a, b in zip(first[0], second[0])])
    assert variance.tolist() == pytest.approx(
        [(a + b) / 2 for a, b in zip(first[1], second[1])], rel=1e-5
    )
    assert count.item() == 2


def test_statistics_by_momentum_on_request():
    mean, variance, _ = statistics_after(exact_statistics=False)
    means, variances = columns(toy.samples()[0][:6].tolist())
    assert mean.tolist() == pytest.approx([0.1 * m for m in means], rel=1e-5)
    assert variance.tolist() == pytest.approx([0.9 + 0.1 * v for v in variances], rel=1e-5)


@pytest.mark.parametrize("buffers", [False, True])
def test_nothing_of_the_caller_changes(buffers):
    model = toy.norm_net()
    before = copy.deepcopy(model.state_dict())
    sent = toy.payload(model, buffers)
    kept = {name: toy.copies(tensors) for name, tensors in sent.items()}
    one = user(model, toy.all_told())
    shared, _ = one.compute_local_updates(sent)
    own = toy.copies(one.model.state_dict().values())
    for tensor in (*shared["gradients"], *(shared["buffers"] or ())):
        tensor.fill_(7)  # what is shared is no part of the user's model either
    toy.assert_close(list(one.model.state_dict().values()), own, 0)
    assert set(sent) == {"parameters", "buffers"}
    toy.assert_close(sent["parameters"], kept["parameters"], 0)
    if buffers:
        toy.assert_close(sent["buffers"], kept["buffers"], 0)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert model.training


def test_counted_queries_and_losses():
    model = toy.plain_net()
    one = user(model)
    assert (one.counted_queries, one.loss_means, one.steps_done) == (0, {}, 0)
    for query in (1, 2):
        one.compute_local_updates(toy.payload(model))
        assert one.counted_queries == query
    mine = copy.deepcopy(model)
    reference.load(mine, toy.payload(model)["parameters"])
    x, y = (t[:6] for t in toy.samples())
    assert one.loss_means == {"total": pytest.approx(toy.reference_loss(mine, x, y).item())}
    assert one.steps_done == 1


def test_a_failed_query_leaves_the_user_as_it_was():
    model = toy.norm_net()
    fail = [False]

    def objective(model, batch):
        out = model(batch["inputs"])
        if fail[0]:
            raise RuntimeError("a fault in the middle of a step")
        return out.square().mean()

    one = user(model, toy.all_told(), loss=objective)
    one.compute_local_updates(toy.payload(model))
    before = toy.copies(one.model.buffers())
    fail[0] = True
    with pytest.raises(RuntimeError, match="in the middle"):
        one.compute_local_updates(toy.payload(model))
    toy.assert_close(list(one.model.buffers()), before, 0)
    fail[0] = False
    shared, _ = one.compute_local_updates(toy.payload(model))
    assert one.counted_queries == 3
    assert shared["buffers"][2].item() == 2


def test_frozen_and_unused_parameters_are_zeros():
    model = nn.ModuleList([nn.Linear(4, 2), nn.Linear(4, 2), nn.Linear(4, 2)])
    model[1].requires_grad_(False)
    settings = toy.privacy(gradient_noise=1.0)

    def objective(model, batch):
        return (model[0](batch["inputs"]) + model[1](batch["inputs"])).square().mean()

    for privacy in (None, settings):
        one = user(model, toy.cfg(local_diff_privacy=privacy), loss=objective)
        gradients = one.compute_local_updates(toy.payload(model))[0]["gradients"]
        assert [bool(g.any()) for g in gradients[:4]] == [True, True, False, False]
        # Which parameters are used may depend on the data, so noise covers the unused ones too.
        assert all(bool(g.any()) == (privacy is not None) for g in gradients[4:])


def test_all_data_points():
    model = toy.plain_net()
    one = user(model, toy.all_told(num_data_points="all"))
    assert one.compute_local_updates(toy.payload(model))[0]["metadata"]["num_data_points"] == 9


def test_true_data_can_be_left_out():
    model = toy.norm_net()
    _, true = user(model, keep_true_data=False).compute_local_updates(toy.payload(model))
    assert true["data"] is None
    assert true["labels"] is None
    assert len(true["buffers"]) == 3


def test_more_samples_asked_than_owned():
    model = toy.plain_net()
    one = user(model, toy.cfg(num_data_points=10), idx=3)
    with pytest.raises(DataError, match=r"at most what user 3 owns, got 10 of 9 samples"):
        one.compute_local_updates(toy.payload(model))


@pytest.mark.parametrize("points", [4, "all"])
def test_no_samples(points):
    model = toy.plain_net()
    one = user(model, toy.cfg(num_data_points=points), dataloader=[])
    with pytest.raises(DataError, match=f"got {points} of 0 samples"):
        one.compute_local_updates(toy.payload(model))


def test_no_dataloader():
    one = UserSingleStep(toy.plain_net(), LOSS, None, toy.SETUP, 1, toy.cfg())
    with pytest.raises(DataError, match="Expected a `dataloader` for user 1, got None"):
        one.compute_local_updates(toy.payload(one.model))


def test_supervised_loss_without_labels():
    model = toy.plain_net()
    with pytest.raises(DataError, match="Expected `labels` for the supervised loss CrossEntropyL"):
        user(model, dataloader=toy.unlabelled()).compute_local_updates(toy.payload(model))


def test_input_noise_on_token_ids():
    batch = {"input_ids": torch.zeros(6, 2, dtype=torch.int64), "labels": torch.zeros(6).long()}
    model = toy.text_net()
    one = user(model, toy.cfg(local_diff_privacy=toy.privacy(input_noise=0.1)), [batch])
    with pytest.raises(ParameterError, match=r"`input_noise` to be 0 for `input_ids` of dtype tor"):
        one.compute_local_updates(toy.payload(model))


def test_batch_norm_cannot_be_clipped_in_train_mode_but_in_eval_mode():
    model = toy.norm_net()
    one = user(model, toy.cfg(local_diff_privacy=toy.privacy(per_example_clipping=0.5)))
    with pytest.raises(ModelError, match=r"got BatchNorm1d at `1`.*let the server send buffers"):
        one.compute_local_updates(toy.payload(model))
    sent = toy.payload(model, buffers=True)
    shared, _ = one.compute_local_updates(sent)
    mine = copy.deepcopy(model)
    reference.load(mine, **sent)
    x, y = (t[:6] for t in toy.samples())
    expected = reference.clipped_gradient(toy.reference_loss, mine, x, y, 0.5)
    toy.assert_close(shared["gradients"], expected)


def test_nothing_to_train():
    with pytest.raises(ModelError, match="Expected `model` to have trainable parameters, got Id"):
        user(nn.Identity())


def test_a_loss_that_is_none():
    with pytest.raises(ParameterError, match="Expected `loss` to be a loss module or an objective"):
        user(toy.plain_net(), loss=3)
