"""Numbers for the driver: declared, on every route, or refused before anything leaves."""

from functools import partial

import pytest
import torch

from orchestra_strategy import (
    FederatedStrategy,
    FedRotPredStrategy,
    LossParts,
    OrchestraFLModel,
    OrchestraStrategy,
    host,
    register_strategy,
    server_aggregation,
    session,
)
from orchestra_strategy.data import to_model_input
from orchestra_strategy.errors import ParameterError, ReplyError
from tests.federated import toy

SMALL = {"batch_size": 8, "local_epochs": 1}
PRIVATE = {"privacy": "user", "noise_multiplier": 1.0, "noise_seed": 1}


class Leaking(FederatedStrategy):
    """Calls pixels parts of its loss."""

    def make_objective(self):
        def loss(model, batch):
            x = to_model_input(batch["inputs"])
            pixels = {f"pixel{i}": x[0, 0, 0, i] for i in range(3)}
            return LossParts(model(x).square().mean(), pixels)

        return loss


class Promising(FedRotPredStrategy):
    """Declares a loss that never comes."""

    metric_names = (*FedRotPredStrategy.metric_names, "train_pull")


class Declared(Leaking):
    metric_names = ("train_loss", "train_pixel0", "train_pixel1", "train_pixel2")


def party(cls, **options):
    norm = "group+batch" if "privacy" in options else "batch"
    made = cls(partial(toy.MODEL, norm=norm), random_seed=7, **SMALL, **options)
    made.build_dataset(toy.images("alice", 16))
    return made


@pytest.mark.parametrize("route", ["server", "secure"])
@pytest.mark.parametrize("user_type", ["local_update", "local_gradient", "multiuser_aggregate"])
def test_an_undeclared_part_of_the_loss_is_refused_before_anything_is_sent(user_type, route):
    leaking = party(Leaking, user_type=user_type, route=route)
    sent = []
    leaking._send = lambda *arguments: sent.append(arguments)
    with pytest.raises(
        ReplyError,
        match=r"`Leaking` to be those of its `metric_names`; not declared: \['train_pixel0', "
        r"'train_pixel1', 'train_pixel2'\].* Nothing has been sent. Write `metric_names = "
        r"\('train_loss', 'train_pixel0', 'train_pixel1', 'train_pixel2'\)` in the class",
    ):
        leaking.train_step(None, 0, 1)
    assert sent == []
    assert leaking.get_logs() == {}
    assert leaking.wrap_local_metrics() == []
    declared = party(Declared, user_type=user_type, route=route)
    declared.train_step(None, 0, 1)
    assert set(declared.get_logs()) == set(Declared.metric_names)


@pytest.mark.parametrize("cls", [Leaking, Promising])
def test_the_same_holds_in_the_log_of_a_protected_party(cls):
    """The rehearsal finds it, on made-up samples."""
    with pytest.raises(ReplyError, match="`metric_names`"):
        party(cls, **PRIVATE, log_unprotected=True).train_step(None, 0, 1)


def test_a_declared_loss_that_never_comes_is_refused():
    with pytest.raises(ReplyError, match=r"declared and not there: \['train_pull'\]"):
        party(Promising).train_step(None, 0, 1)


def numbers_of(party):
    told = [row for row in party.manifest_rows() if row["combine"] == "mean in the log"]
    return {row["name"] for row in told} - {"evaluation"}


@pytest.mark.parametrize(
    ("cls", "options", "health"),
    [
        (OrchestraStrategy, {}, {"alignment", "uniformity", "effective_rank", "cluster_balance"}),
        (FedRotPredStrategy, {}, {"alignment", "uniformity", "effective_rank"}),
        (FedRotPredStrategy, {"health_samples": 0}, set()),
        (Declared, {}, set()),
        (FedRotPredStrategy, PRIVATE, None),
    ],
)
def test_the_manifest_lists_the_numbers_that_come_and_no_others(cls, options, health):
    trained = party(cls, **options)
    wire, _ = trained.train_step(None, 0, 1)
    if health is None:  # signal over noise is known of the average
        trained.apply_weights(server_aggregation()([wire])[0])
    if cls is OrchestraStrategy:  # the first was round 0
        trained.apply_weights(server_aggregation()([trained.get_weights()])[0])
        trained.train_step(None, 1, 1)
    private = {"privacy_epsilon", "privacy_snr"}
    expected = private if health is None else {f"health_{name}" for name in health}
    losses = set() if health is None else set(cls.metric_names)
    assert numbers_of(trained) == set(trained.get_logs()) == losses | expected


def test_numbers_of_ones_own_reach_nobody_beside_the_declared_ones():
    """There is one way for numbers out of a worker, and it looks at names."""
    with pytest.raises(ReplyError, match=r"to be in its manifest, got \['secret'\]"):
        party(FedRotPredStrategy).reports.tell({"train_loss": 1.0, "secret": 2.0})


def test_a_driver_gets_the_sentence_and_no_number():
    register_strategy(strategy_name="leaking_pixels", backend="torch")(Leaking)
    with session(toy.PARTIES, mode="debug") as devices:
        model = OrchestraFLModel(
            server=devices[0],
            device_list=devices,
            model=toy.MODEL,
            strategy="leaking_pixels",
            **SMALL,
        )
        with pytest.raises(ReplyError, match=r"not declared: .*train_pixel0"):
            model.fit(toy.data(devices), epochs=1)
        assert host.reveal([w.get_logs() for w in model.workers.values()]) == [{}, {}]


def test_the_names_of_an_evaluation_are_in_the_manifest():
    looking = party(FedRotPredStrategy)
    looking.build_dataset(toy.images("alice", 16), [i % 2 for i in range(16)], stage="eval")
    (row,) = [row for row in looking.manifest_rows() if row["name"] == "evaluation"]
    named = row["meaning"].partition(": ")[2].split(", ")
    assert {metric.name for metric in looking.evaluate()} <= set(named)
    assert row["shape"] == (len(named),)


# ---- What an objective may return ----------------------------------------------------------

ONE = torch.tensor(1.0)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda loss: None, "to return a scalar tensor.* got NoneType; its `return` is missing"),
        (lambda loss: 1.0, "to return a scalar tensor.* got float"),
        (lambda loss: (loss, {}), "to return a scalar tensor.* got tuple"),
        (lambda loss: loss.expand(3), r"the loss to be a scalar, got shape \(3,\); reduce it"),
        (lambda loss: LossParts(None, {}), "the loss to be a scalar, got NoneType"),
        (lambda loss: LossParts(loss, {"x": ONE.expand(2)}), r"part `x` .* got shape \(2,\)"),
        (lambda loss: LossParts(loss, {"x": 1.0}), "part `x` of a loss to be a scalar tensor, got"),
        (lambda loss: LossParts(loss, {"total": ONE}), "names other than .*, got 'total'"),
        (lambda loss: LossParts(loss, {"loss": ONE}), "names other than .*, got 'loss'"),
        (lambda loss: LossParts(loss, {}) + {"l2": ONE}, "a scalar tensor, got dict; join two"),
    ],
)
def test_what_is_no_loss_is_refused(returned, message):
    class Wrong(FederatedStrategy):
        def make_objective(self):
            return lambda model, batch: returned(model(to_model_input(batch["inputs"])).mean())

    with pytest.raises(ParameterError, match=message):
        party(Wrong).train_step(None, 0, 1)


def test_parts_that_change_from_step_to_step_are_refused():
    class Moody(FederatedStrategy):
        def make_objective(self):
            def loss(model, batch):
                total = model(to_model_input(batch["inputs"])).mean()
                self.calls = getattr(self, "calls", 0) + 1
                return LossParts(total, {"late": ONE} if self.calls == 2 else {})

            return loss

    with pytest.raises(ParameterError, match=r"each step to have the same parts, got \[\] and \['"):
        party(Moody).train_step(None, 0, 1)


@pytest.mark.parametrize("order", ["behind", "before"])
def test_a_term_can_be_added_to_a_methods_loss(order):
    class Plain(FedRotPredStrategy):
        pass

    class Regularised(FedRotPredStrategy):
        def loss_terms(self, model, batch):
            loss = super().loss_terms(model, batch)
            term = 0.5 * sum(p.square().sum() for p in model.parameters())
            return loss + term if order == "behind" else term + loss

    weights = []
    for cls in (Plain, Regularised):
        trained = party(cls, lr=0.05)
        trained.train_step(None, 0, 1)
        assert set(trained.get_logs()) >= set(FedRotPredStrategy.metric_names)
        weights.append(sum(p.square().sum().item() for p in trained.model.parameters()))
    assert weights[1] < 0.95 * weights[0]
