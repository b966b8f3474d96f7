"""Privacy inside a strategy: off is plain, what leaves is covered, and each refusal."""

from functools import partial

import numpy as np
import pytest
import torch

from orchestra_strategy import (
    FedBYOLStrategy,
    FedRotPredStrategy,
    FedSimCLRStrategy,
    OrchestraAdvancedStrategy,
    OrchestraPrivateStrategy,
    OrchestraStrategy,
    orchestra_model,
    server_aggregation,
)
from orchestra_strategy.config import StrategyConfig, parse_config
from orchestra_strategy.errors import ModelError, ParameterError, PrivacyError
from orchestra_strategy.privacy import epsilon_of
from orchestra_strategy.privacy.accounting import Release
from orchestra_strategy.strategies.orchestra_config import OrchestraConfig
from orchestra_strategy.strategies.private import OrchestraPrivateConfig
from tests.federated import toy

GROUP = partial(toy.MODEL, norm="group")
TWO_HEADS = partial(GROUP, heads=("predictor", "degeneracy_head"))
COMMON = {k: toy.PARAMETERS[k] for k in ("batch_size", "local_epochs", "lr")}
USER = {"privacy": "user", "noise_multiplier": 2.0, "noise_seed": 1}
RECORD = {**USER, "privacy": "record"}
VIRTUAL = {"user_type": "multiuser_aggregate", "num_virtual_users": 4}


def party(cls=OrchestraPrivateStrategy, name="alice", model=GROUP, size=None, **kwargs):
    own = {"ema_decay": 0.9} if cls is FedBYOLStrategy else {}
    base = toy.PARAMETERS if issubclass(cls, OrchestraStrategy) else {**COMMON, **own}
    strategy = cls(model, random_seed=7, **{"party": name, **base, **kwargs})
    strategy.build_dataset(toy.images(name, size))
    return strategy


def exchange(strategy, wire):
    strategy.apply_weights(server_aggregation(num_global_clusters=4)([wire])[0])


def trained(rounds=1, **kwargs):
    strategy = party(**kwargs)
    wires = [strategy.get_weights()]
    exchange(strategy, wires[0])
    for _ in range(rounds):
        wires.append(strategy.train_step(None, 0, 1)[0])
        exchange(strategy, wires[-1])
    return strategy, wires


def weights_of(wire):
    return {k: v for k, v in wire["arrays"].items() if k.startswith(("weights/", "gradients/"))}


def moved(before, after):
    names = weights_of(after)
    return np.concatenate([(after["arrays"][k] - before["arrays"][k]).ravel() for k in names])


# ---- Off is plain ----------------------------------------------------------------------------


@pytest.mark.parametrize("kwargs", [{}, VIRTUAL, {"user_type": "local_gradient"}])
def test_off_is_plain_bit_for_bit(kwargs):
    plain, wires = trained(cls=FedBYOLStrategy, model=TWO_HEADS, **kwargs)
    off, others = trained(cls=FedBYOLStrategy, model=TWO_HEADS, privacy="none", **kwargs)
    for name, value in weights_of(wires[-1]).items():
        assert np.array_equal(value, others[-1]["arrays"][name]), name
    assert not plain.privacy.protected
    assert not off.privacy.protected
    assert "privacy_epsilon" not in plain.get_logs()


def test_a_clip_that_does_not_bind_and_hardly_any_noise_is_nearly_plain():
    # The views of a protected party follow from `noise_seed`, those of a plain one from the seed.
    options = {"clip_norm": 1e6, "noise_multiplier": 1e-16, "privacy": "user", "noise_seed": 7}
    _, plain = trained(cls=FedRotPredStrategy)
    _, private = trained(cls=FedRotPredStrategy, **options)
    for name, value in weights_of(plain[-1]).items():
        assert np.allclose(value, private[-1]["arrays"][name], atol=1e-6), name


# ---- What leaves -----------------------------------------------------------------------------


@pytest.mark.parametrize("kwargs", [{}, VIRTUAL])
def test_weights_leave_as_start_plus_clipped_update_plus_noise(kwargs):
    quiet = {**USER, "noise_multiplier": 1e-9, "clip_norm": 0.01, **kwargs}
    _, wires = trained(cls=FedRotPredStrategy, **quiet)
    assert np.linalg.norm(moved(*wires)) <= 0.01 * (1 + 1e-3)
    assert np.linalg.norm(moved(*wires)) > 0.002
    _, noisy = trained(cls=FedRotPredStrategy, **{**quiet, "noise_multiplier": 2.0})
    users = 4 if kwargs else 1
    assert moved(wires[-1], noisy[-1]).std() == pytest.approx(2.0 * 0.01 / users, rel=0.05)
    # The weight of a party is its number of users, never that of samples.
    assert [w["meta"]["num_samples"] for w in noisy] == [users, users]


def test_signal_over_noise_of_a_mean_gradient_is_the_gradients():
    snr = {}
    for z in (1e-9, 0.01):
        strategy, wires = trained(
            cls=FedRotPredStrategy,
            **{**USER, "noise_multiplier": z, "clip_norm": 0.1},
            user_type="local_gradient",
        )
        gradient = np.concatenate([g.ravel() for g in weights_of(wires[-1]).values()])
        snr[z] = strategy.get_logs()["privacy_snr"], np.linalg.norm(gradient), len(gradient)
    _, signal, weights = snr[1e-9]
    assert snr[0.01][0] == pytest.approx(signal / (0.01 * 0.1 * weights**0.5), rel=0.05)


def test_losses_and_health_stay_unless_asked_for():
    strategy, _ = trained(**USER)
    assert set(strategy.get_logs()) == {"privacy_epsilon", "privacy_snr"}
    names = {entry.name for entry in strategy.manifest().entries}
    assert "privacy_epsilon" in names
    assert not {n for n in names if n.startswith(("train_", "health_"))}
    assert strategy.inspection.collapse is None
    told, _ = trained(**USER, log_unprotected=True)
    assert {"privacy_epsilon", "train_loss"} <= set(told.get_logs())


@pytest.mark.parametrize("options", [USER, RECORD])
def test_centroids_come_from_private_moments_and_none_in_round_0(options):
    strategy, wires = trained(rounds=2, **{**options, "noise_multiplier": 0.3})
    assert len(wires[0]["arrays"]["local_centroids"]) == 0
    assert strategy.objective.centroids is not None  # the server's random ones, to begin with
    sent = wires[-1]["arrays"]["local_centroids"]
    assert np.allclose(np.linalg.norm(sent, axis=1), 1, atol=1e-5)
    plan = strategy.privacy.plan()
    assert strategy.privacy.ledger.spent == {plan.update: 2 * plan.steps, plan.moments: 2}
    # The moments on hand are the noisy ones: the others are gone.
    clean = strategy.method.moments(None)
    assert clean.n.sum().item() == 41
    assert not torch.equal(strategy.method.moments_sum.n, clean.n)


def test_moments_are_of_all_samples_each_once():
    strategy, _ = trained(**RECORD)
    all_ = strategy.method.moments(None)
    strategy._data = type(strategy._data)(strategy._data.samples[:-1])
    assert all_.n.sum().item() - strategy.method.moments(None).n.sum().item() == 1


def test_virtual_users_do_not_act_on_each_other_through_the_target():
    """It is made of what all parties know: the first network, and the noisy mean."""
    first = dict(party(**USER, **VIRTUAL).objective.target.named_parameters())["1.0.weight"]
    strategy, _ = trained(rounds=1, **USER, **VIRTUAL)
    keep = 0.9**strategy.objective.moves
    assert keep < 1
    strategy.open_round()
    online = strategy.model.state_dict()["projector.0.weight"]
    target = dict(strategy.objective.target.named_parameters())["1.0.weight"]
    torch.testing.assert_close(target, keep * first + (1 - keep) * online)


def test_parties_draw_different_noise_from_the_same_seed():
    streams = [
        trained(name=name, size=20, **USER)[0].privacy.mechanism.source.normal(10_000)
        for name in ("alice", "bob")
    ]
    assert abs(np.corrcoef(streams)[0, 1]) < 0.05


def test_a_further_fit_goes_on_with_the_noise_and_the_budget():
    strategy, _ = trained(rounds=2, **USER)
    draws, spent = strategy.privacy.mechanism.source.draws, strategy.privacy.epsilon()
    strategy.build_dataset(toy.images("alice"))
    strategy.train_step(None, 0, 1)
    assert strategy.privacy.mechanism.source.draws == draws + 2
    assert strategy.privacy.epsilon() > spent


# ---- Accounting ------------------------------------------------------------------------------


def test_epsilon_of_rounds_is_that_of_gaussians():
    strategy, _ = trained(rounds=3, **USER)
    assert strategy.privacy.epsilon() == pytest.approx(epsilon_of({Release(2.0): 3}, 1e-5))
    assert strategy.get_logs()["privacy_epsilon"] == strategy.privacy.epsilon()
    assert strategy.privacy_spent() == {"epsilon": strategy.privacy.epsilon(), "delta": 1e-5}


def test_epsilon_of_dp_sgd_counts_every_step():
    strategy, _ = trained(cls=FedRotPredStrategy, **RECORD)
    assert strategy.privacy.ledger.spent == {Release(2.0, 8 / 41): 6}
    # Sizes of the samples are secret: the driver is told what was expected.
    assert strategy.work_done() == {"rounds": 1, "rows": 6 * 8, "left_out": 0}


def test_the_noise_for_a_target_is_found_by_each_party():
    options = {"privacy": "record", "target_epsilon": 3.0, "planned_rounds": 2, "noise_seed": 1}
    found = {}
    for name in toy.PARTIES:
        strategy, _ = trained(rounds=2, name=name, **options)
        assert 2.9 <= strategy.privacy.epsilon() <= 3.0
        found[name] = strategy.privacy.plan().update.noise_multiplier
        assert strategy.privacy_rounds_left(toy.SIZES[name]) == 0
    assert found["bob"] > found["alice"]  # 20 records in batches of 8 need more than 41


def test_a_spent_budget_refuses_before_anything_moves():
    budget = epsilon_of({Release(2.0): 2}, 1e-5)
    strategy, _ = trained(rounds=2, **USER, max_epsilon=budget * 1.0001)
    before = {k: v.clone() for k, v in strategy.model.state_dict().items()}
    draws = strategy.privacy.mechanism.source.draws
    with pytest.raises(PrivacyError, match=r"a further round to stay within the budget"):
        strategy.train_step(None, 0, 1)
    assert strategy.privacy.mechanism.source.draws == draws
    assert strategy.rounds_done == 2
    assert all(torch.equal(before[k], v) for k, v in strategy.model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("noise_multiplier", 0.1), ("clip_norm", 0.1), ("max_epsilon", 1e6), ("delta", 0.1)),
        *(("log_unprotected", True), ("privacy", "record"), ("streams", "secret")),
    ],
)
def test_what_a_training_promises_stays(name, value):
    """Neither a fit's parameters nor a call from the driver loosen it."""
    strategy, _ = trained(**USER, max_epsilon=100.0)
    with pytest.raises(ParameterError, match=f"`{name}` to stay as in the constructor"):
        strategy.configure({name: value})


# ---- How the server combines -------------------------------------------------------------------


@pytest.mark.parametrize("options", [USER, RECORD])
@pytest.mark.parametrize("how", ["median", "trimmed_mean"])
def test_robust_aggregation_is_done_on_noisy_replies_and_costs_nothing(options, how):
    """A party's noise, and what it has spent, do not depend on what the server does with it."""
    after = {}
    for aggregation in ("mean", how):
        strategy, (_, wire) = trained(aggregation=aggregation, **options)
        after[aggregation] = wire, strategy.privacy.epsilon(), strategy.privacy.ledger.spent
    assert after[how][1:] == after["mean"][1:]
    noisy = weights_of(after[how][0])
    assert noisy.keys() == weights_of(after["mean"][0]).keys()
    assert all(np.array_equal(v, noisy[k]) for k, v in weights_of(after["mean"][0]).items())
    wires = [after[how][0], trained(name="bob", aggregation=how, **options)[1][1]]
    server = server_aggregation(num_global_clusters=4, aggregation=how, trim=0.0)
    for name, value in weights_of(server(wires)[0]).items():
        theirs = [w["arrays"][name] for w in wires]
        assert np.allclose(value, (theirs[0] + theirs[1]) / 2, atol=1e-6), name


@pytest.mark.parametrize("options", [USER, RECORD])
def test_quality_is_refused_since_it_would_leave_without_noise(options):
    message = rf"`aggregation` to be .* with privacy='{options['privacy']}', got 'quality'"
    with pytest.raises(PrivacyError, match=message):
        party(aggregation="quality", **options)


# ---- Refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"noise_multiplier": 1.0}, "`privacy` to be 'user' or 'record' where `noise_multiplier`"),
        ({"privacy": "user"}, "either `noise_multiplier` or `target_epsilon`.*got neither"),
        ({**USER, "target_epsilon": 1.0, "planned_rounds": 1}, "got both"),
        ({"privacy": "user", "target_epsilon": 1.0}, "`planned_rounds` together.*1.0 and None"),
        ({**USER, "planned_rounds": 3}, "`planned_rounds` together"),
        ({**USER, "clip_norm": 0.0}, "`clip_norm` to be greater than 0, got 0.0"),
        ({**USER, "delta": 1.0}, "`delta` to be less than 1"),
        ({"privacy": "users"}, "`privacy` to be 'none', 'user' or 'record', got 'users'"),
    ],
)
def test_contradictory_parameters_are_refused(values, message):
    with pytest.raises(ParameterError, match=message):
        parse_config(StrategyConfig, values)


def test_records_of_virtual_users_are_refused():
    with pytest.raises(ParameterError, match="'user' with `user_type='multiuser_aggregate'`, got"):
        party(**RECORD, **VIRTUAL)


def test_orchestra_private_needs_a_budget_and_privacy():
    with pytest.raises(ParameterError, match=r"got neither"):
        parse_config(OrchestraPrivateConfig, {})
    with pytest.raises(ParameterError, match=r"`privacy` to be 'user' or 'record', got 'none'"):
        parse_config(OrchestraPrivateConfig, {"privacy": "none"})
    assert parse_config(OrchestraConfig, {}).privacy == "none"


@pytest.mark.parametrize(
    ("cls", "what"),
    [(OrchestraStrategy, "`local_centroids`"), (OrchestraAdvancedStrategy, "`quality`")],
)
def test_strategies_that_send_more_than_weights_are_refused(cls, what):
    with pytest.raises(PrivacyError, match=f"sends weights alone.*{what}.*'orchestra_private'"):
        party(cls, **USER)


@pytest.mark.parametrize(("options", "norm"), [(USER, r"group\+batch"), (RECORD, "group")])
def test_batch_norm_is_refused_with_the_remedy(options, norm):
    remedy = rf"without BatchNorm.*`orchestra_model\(..., norm='{norm}'\)`"
    with pytest.raises(ModelError, match=remedy):
        party(model=toy.MODEL, **options)


def test_statistics_of_the_batch_alone_are_fine_by_user_and_refused_by_record():
    model = partial(toy.MODEL, norm="group+batch")
    _, wires = trained(model=model, **{**USER, **VIRTUAL})
    assert all(np.isfinite(a).all() for a in wires[-1]["arrays"].values())
    with pytest.raises(ModelError, match=r"normalises by the batch: each.*norm='group'\)`"):
        party(model=model, **RECORD)


def test_contrastive_objectives_are_refused_at_record_level():
    with pytest.raises(PrivacyError, match=r"`per_example`.*got SimCLRObjective.*privacy='user'"):
        party(FedSimCLRStrategy, **RECORD)
    party(FedSimCLRStrategy, **USER).train_step(None, 0, 1)


def test_an_own_loss_is_refused_at_record_level():
    class Mine(FedRotPredStrategy):
        def loss_terms(self, model, batch):
            return 2 * super().loss_terms(model, batch).total

    with pytest.raises(PrivacyError, match=r"`loss_terms` not to be overridden"):
        party(Mine, **RECORD)
    party(Mine, **USER).train_step(None, 0, 1)


def test_the_unit_of_protection_stays():
    strategy = party(**USER)
    with pytest.raises(ParameterError, match=r"`privacy` to stay as in the constructor"):
        strategy.configure({"privacy": "record"})


def test_group_norm_is_what_the_remedy_says():
    assert not list(orchestra_model("conv4", in_channels=1, norm="group").buffers())
