"""Each baseline and variant, with each kind of user, stepped by hand."""

from functools import partial

import numpy as np
import pytest
import torch

from orchestra_strategy import orchestra_model, registered_strategies, server_aggregation
from orchestra_strategy.algorithms.heads import HEADS
from orchestra_strategy.config import parse_config
from orchestra_strategy.errors import DataError, ModelError, ParameterError
from orchestra_strategy.strategies.registry import lookup_strategy
from orchestra_strategy.threads import torch_threads
from tests.algorithms import tiny
from tests.federated import toy

SHARED = {name: toy.PARAMETERS[name] for name in ("batch_size", "local_epochs", "lr")}
PARAMETERS = {
    "orchestra_simple": {**SHARED, "num_clusters": 2},
    "orchestra_advanced": toy.PARAMETERS,
    "orchestra_plus": toy.PARAMETERS,
    "fed_simclr": SHARED,
    "fed_simsiam": SHARED,
    "fed_byol": {**SHARED, "ema_decay": 0.9},
    "fed_specloss": SHARED,
    "fed_rotpred": SHARED,
    "fed_masked": SHARED,
    "fed_supervised": SHARED,
}
EVERY = sorted(PARAMETERS)
CLUSTERLESS = [name for name in EVERY if name not in ("orchestra_advanced", "orchestra_plus")]
USER_TYPES = ["local_gradient", "local_update", "multiuser_aggregate"]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with torch_threads(1):
        yield


def party(strategy, name="alice", size=None, heads=None, norm="batch", **kwargs):
    cls = lookup_strategy(strategy)
    options = {"num_virtual_users": 3, **PARAMETERS[strategy], **kwargs}
    model = partial(tiny.model, cls.heads if heads is None else heads, norm)
    made = cls(model, random_seed=7, party=name, **options)
    made.build_dataset(toy.images(name, size), toy.labels(name, size) if cls.needs_labels else None)
    return made


def exchange(parties, wires):
    how = parties[0].config.aggregation
    replies = server_aggregation(num_global_clusters=4, seed=7, aggregation=how)(wires)
    for each, reply in zip(parties, replies):
        each.apply_weights(reply)


def trained(strategy, rounds=1, **kwargs):
    """Alice and bob, the payloads of their last round, and alice's loss in each."""
    parties = [party(strategy, name, **kwargs) for name in toy.PARTIES]
    exchange(parties, [p.get_weights() for p in parties])
    losses = []
    for step in range(rounds):
        wires = [p.train_step(None, step, 1)[0] for p in parties]
        losses.append(parties[0].get_logs()["train_loss"])
        exchange(parties, wires)
    return parties, wires, losses


def test_all_are_registered():
    assert {f"{name}_torch" for name in EVERY} <= set(registered_strategies())


@pytest.mark.parametrize("user_type", USER_TYPES)
@pytest.mark.parametrize("strategy", EVERY)
def test_a_round_by_hand(strategy, user_type):
    """Exactly the manifest leaves, the loss is finite, and all parties end with one moved model."""
    parties, wires, losses = trained(strategy, user_type=user_type)
    before = party(strategy, user_type=user_type).model.state_dict()
    for each, wire in zip(parties, wires):
        assert list(wire["arrays"]) == list(each.manifest().arrays())
        assert wire["meta"]["phase"] == "round"
        assert set(each.metric_names) <= set(each.get_logs())
    assert all(np.isfinite(losses))
    first, second = (p.model.state_dict() for p in parties)
    for name, parameter in parties[0].model.named_parameters():
        assert torch.equal(first[name], second[name]), name
        assert not torch.equal(first[name], before[name]), name
        assert parameter.requires_grad


@pytest.mark.parametrize("strategy", EVERY)
def test_what_is_logged_is_what_the_manifest_says(strategy):
    (alice, _), _, _ = trained(strategy)
    logged = {name for name in alice.get_logs() if name.startswith("train_")}
    assert logged == set(alice.metric_names)
    assert logged <= {row["name"] for row in alice.manifest_rows()}


@pytest.mark.parametrize("strategy", CLUSTERLESS)
def test_weights_alone_leave_and_there_is_no_round_0(strategy):
    alice = party(strategy)
    assert not alice.method.needs_initial_pass()
    assert alice.get_weights()["meta"]["phase"] == "sync"
    wire, num_samples = alice.train_step(None, 0, 1)
    assert all(name.startswith("weights/") for name in wire["arrays"])
    assert num_samples == 41
    sent = " ".join(wire["arrays"])
    assert "target" not in sent
    assert "centroid" not in sent


@pytest.mark.parametrize("strategy", EVERY)
def test_a_run_repeats_bit_for_bit_and_depends_on_the_seed(strategy):
    models = [trained(strategy)[0][0].model.state_dict() for _ in range(2)]
    assert all(torch.equal(models[0][k], models[1][k]) for k in models[0])
    draws = [torch.rand(3, generator=party(strategy, p).stream("views")) for p in toy.PARTIES]
    assert not torch.equal(*draws)


@pytest.mark.parametrize(
    "strategy",
    ["fed_simclr", "fed_simsiam", "fed_byol", "fed_specloss", "fed_supervised", "orchestra_simple"],
)
def test_the_loss_goes_down_over_rounds(strategy):
    _, _, losses = trained(strategy, rounds=4, local_epochs=2, lr=0.05)
    assert losses[-1] < losses[0] - 0.1


def test_rotations_are_learnt_over_rounds():
    """Of pictures that have an upright; toy.images are round blobs anywhere."""
    alice = party("fed_rotpred", lr=0.05, batch_size=64, local_epochs=8)
    alice.build_dataset(tiny.images(64).numpy())
    losses = []
    for step in range(4):
        alice.train_step(None, step, 1)
        losses.append(alice.get_logs()["train_loss"])
    assert losses[-1] < 1.1 < losses[0]


@pytest.mark.parametrize("strategy", EVERY)
def test_a_model_with_more_heads_is_fine(strategy):
    trained(strategy, heads=tuple(HEADS))


@pytest.mark.parametrize(
    ("strategy", "head"),
    [
        ("fed_byol", "predictor"),
        ("fed_simsiam", "predictor"),
        ("fed_rotpred", "degeneracy_head"),
        ("fed_masked", "decoder"),
        ("fed_supervised", "classifier"),
        ("orchestra_advanced", "degeneracy_head"),
    ],
)
def test_a_model_without_the_head_is_refused_with_the_remedy(strategy, head):
    with pytest.raises(ModelError, match=rf"without `{head}`.*heads=\('{head}',\)"):
        party(strategy, heads=())
    with pytest.raises(ModelError, match=f"without `{head}`"):
        lookup_strategy(strategy).check_model(tiny.model())


def test_published_parameters_are_the_defaults():
    config = {name: lookup_strategy(name).config_class() for name in EVERY}
    assert config["fed_simclr"].temperature == 0.5
    assert config["fed_byol"].ema_decay == 0.996
    assert config["fed_specloss"].scale == 1.0
    assert config["orchestra_simple"].temperature == 0.5
    assert config["orchestra_advanced"].temperature == 0.1
    assert {c.batch_size for c in config.values()} == {16}


@pytest.mark.parametrize(
    ("strategy", "parameters", "message"),
    [
        ("fed_simclr", {"temperature": 0}, "`temperature` to be greater than 0, got 0"),
        ("fed_simclr", {"ema_decay": 0.9}, "got `ema_decay`"),
        ("fed_byol", {"ema_decay": 1.5}, "`ema_decay` to be less than or equal to 1"),
        ("fed_byol", {"ema_deacy": 0.5}, "did you mean `ema_decay`"),
        ("fed_specloss", {"scale": 0}, "`scale` to be greater than 0"),
        ("fed_rotpred", {"temperature": 1.0}, "got `temperature`"),
        ("fed_masked", {"mask_ratio": 1.0}, "`mask_ratio` to be less than 1, got 1"),
        ("orchestra_simple", {"num_clusters": 0}, "`num_clusters` to be greater than or equal"),
        ("orchestra_simple", {"cluster_weight": -1}, "`cluster_weight` to be greater than or"),
        ("orchestra_advanced", {"l2_weight": -1}, "`l2_weight` to be greater than or equal"),
    ],
)
def test_bad_parameters_are_refused(strategy, parameters, message):
    with pytest.raises(ParameterError, match=message):
        parse_config(lookup_strategy(strategy).config_class, parameters)


@pytest.mark.parametrize("strategy", CLUSTERLESS)
def test_users_of_a_single_sample_are_refused(strategy):
    with pytest.raises(DataError, match="this party to have at least 2 samples, got 1"):
        party(strategy, size=1)
    with pytest.raises(DataError, match="each of 3 virtual users to have at least 2 samples"):
        party(strategy, size=5, user_type="multiuser_aggregate")


ROWWISE = ["fed_simsiam", "fed_byol", "fed_rotpred", "fed_masked", "fed_supervised"]


@pytest.mark.parametrize("strategy", CLUSTERLESS)
def test_what_a_single_sample_is_too_few_for_is_told(strategy):
    rowwise = strategy in ROWWISE
    told = "BatchNorm has no statistics of one" if rowwise else "compares samples with each other"
    with pytest.raises(DataError, match=told):
        party(strategy, size=1)
    if not rowwise:
        with pytest.raises(DataError, match=told):
            party(strategy, size=1, norm="group")


@pytest.mark.parametrize("split", ["shuffled", "blocks"])
@pytest.mark.parametrize("strategy", ROWWISE)
def test_users_without_a_sample_are_refused_by_all(strategy, split):
    few = {"user_type": "multiuser_aggregate", "user_split": split}
    with pytest.raises(DataError, match="each of 3 virtual users to have at least 1 sample, got 0"):
        party(strategy, size=2, norm="group", **few)


@pytest.mark.parametrize("user_type", USER_TYPES)
@pytest.mark.parametrize("strategy", ROWWISE)
def test_users_of_a_single_sample_train_where_rows_do_not_act_on_each_other(strategy, user_type):
    """A phone with one picture on it, in a network without BatchNorm."""
    size = 3 if user_type == "multiuser_aggregate" else 1
    only = party(strategy, size=size, user_type=user_type, norm="group")
    before = {k: v.clone() for k, v in only.model.state_dict().items()}
    exchange([only], [only.get_weights()])
    exchange([only], [only.train_step(None, 0, 1)[0]])
    after = only.model.state_dict()
    assert np.isfinite(only.get_logs()["train_loss"])
    assert all(torch.isfinite(v).all() for v in after.values())
    assert any(not torch.equal(after[k], v) for k, v in before.items())


def test_another_server_method_is_refused():
    with pytest.raises(ParameterError, match=r"to be `orchestra_strategy.server_aggregation"):
        party("fed_simclr", server_agg_method=np.mean)
    party("fed_simclr", server_agg_method=server_aggregation())


def test_parameters_of_one_call_reach_the_objective():
    byol, simple = party("fed_byol"), party("orchestra_simple")
    byol.configure({"ema_decay": 0.5, "view_options": {"rotation": 3.0}})
    simple.configure({"contrastive_weight": 0.25})
    assert byol.objective.settings.ema_decay == 0.5
    assert byol.objective.views.rotation == 3.0
    assert simple.objective.settings.contrastive_weight == 0.25


def test_byol_keeps_its_target_from_round_to_round():
    (alice, _), _, _ = trained("fed_byol", rounds=2, ema_decay=0.999)
    fresh = party("fed_byol").objective.target.state_dict()["0.0.weight"]
    kept = alice.objective.target.state_dict()["0.0.weight"]
    online = alice.model.state_dict()["backbone.0.weight"]
    assert 0 < (kept - fresh).norm() < 0.1 * (online - fresh).norm()


def test_local_centroids_are_each_users_own_and_new_in_each_round():
    alice = party("orchestra_simple", user_type="multiuser_aggregate")
    seen, draws = [], []
    fit = alice.objective.fit_centroids

    def after_user(user):
        seen.append(alice.objective.centroids.clone())

    def fit_centroids(model, batch, generator):
        draws.append(sorted(batch["ids"].tolist()))
        fit(model, batch, generator)

    alice.after_local_training, alice.objective.fit_centroids = after_user, fit_centroids
    for step in range(2):
        alice.train_step(None, step, 1)
    assert draws == [part.tolist() for part in alice.user_type.parts] * 2
    assert all(c.shape == (2, 16) for c in seen)
    assert len({c.numpy().tobytes() for c in seen}) == 6


def test_centroids_come_of_a_draw_from_a_large_party():
    alice = party("orchestra_simple", size=100)
    draws, fit = [], alice.objective.fit_centroids

    def fit_centroids(model, batch, generator):
        draws.append(batch["ids"].tolist())
        fit(model, batch, generator)

    alice.objective.fit_centroids = fit_centroids
    for step in range(2):
        alice.train_step(None, step, 1)
    assert [len(set(ids)) for ids in draws] == [32, 32]  # 16 for each of 2 clusters
    assert draws[0] != draws[1]


def test_fewer_clusters_than_asked_for_are_told(caplog):
    party("orchestra_simple", size=6, num_clusters=8)
    assert "this party has 6 samples: num_clusters is 3 instead of 8." in caplog.messages
    caplog.clear()
    party("orchestra_simple", size=16, num_clusters=8)
    assert not caplog.messages


def test_the_usual_model_fits_the_methods_that_need_no_predictor():
    for name in EVERY:
        cls = lookup_strategy(name)
        if not {"predictor", "classifier", "decoder"} & set(cls.heads):
            cls.check_model(orchestra_model("conv4", in_channels=1))
