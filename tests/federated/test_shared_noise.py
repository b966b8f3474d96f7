"""Shared noise over the real FLModel, in process: four parties through SecureAggregator."""

from functools import partial

import numpy as np
import pytest

from federated_orchestra import FederatedOrchestraTrainer
from orchestra_strategy import FedRotPredStrategy, OrchestraFLModel, host, session
from orchestra_strategy.data.sources import fed_ndarray
from orchestra_strategy.errors import ParameterError, PrivacyError
from orchestra_strategy.privacy import epsilon_of
from orchestra_strategy.privacy.accounting import Release
from tests.federated import toy

NAMES = ("alice", "bob", "carol", "dave")
GROUP = partial(toy.MODEL, norm="group", heads=("degeneracy_head",))
COMMON = {k: toy.PARAMETERS[k] for k in ("batch_size", "local_epochs", "lr")}
SHARED = {"privacy": "user", "noise": "shared", "noise_multiplier": 1.5, "clip_norm": 0.1}
SHARED |= {"noise_seed": 1}
VIRTUAL = {"user_type": "multiuser_aggregate", "num_virtual_users": 3}


@pytest.fixture(scope="module")
def four():
    with session(NAMES, mode="debug") as devices:
        yield devices


def data(devices):
    rng = np.random.default_rng(0)
    return fed_ndarray({d: rng.random((18, 8, 8), dtype=np.float32) for d in devices})


def build(devices, **kwargs):
    options = {"device_list": devices, "model": GROUP, "random_seed": 7, **COMMON, **SHARED}
    options |= {"strategy": "fed_rotpred", **kwargs}
    if "aggregator" not in options:
        options["aggregator"] = host.SecureAggregator(devices[0], devices)
    return OrchestraFLModel(**options)


def averaged(worker):
    return host.reveal(worker.averaged_weights())


def moved(after, before):
    return np.concatenate([(after[n].astype(float) - before[n]).ravel() for n in before])


def own_part(worker):
    """What a party knows: the noise that it has added, and its users' sum."""
    released = worker.user_type.user.update_privacy.released
    return np.concatenate([t.numpy().ravel() for t in released])


@pytest.mark.parametrize(("colluding", "users"), [(1, VIRTUAL), (2, {}), (3, {})])
def test_colluding_parties_find_the_declared_noise_in_the_mean(four, colluding, users):
    model = build(four, max_colluding=colluding, lr=1e-9, **users)
    workers = list(model.workers.values())
    before = averaged(workers[0])
    history = model.fit(data(four), epochs=1)
    n = 4 * users.get("num_virtual_users", 1)
    total = moved(averaged(workers[0]), before) * n
    known = sum(host.reveal(w.apply(own_part)) for w in workers[:colluding])
    assert (total - known).std() == pytest.approx(1.5 * 0.1, rel=0.05)
    told = epsilon_of({Release(1.5): 1}, 1e-5)
    assert history["global_history"]["privacy_epsilon"] == [pytest.approx(told)]
    assert history["global_history"]["privacy_snr"][0] < 0.2  # nothing is learnt
    for worker in workers[1:]:
        for name, value in averaged(worker).items():
            assert np.array_equal(value, averaged(workers[0])[name]), name


@pytest.mark.parametrize("user_type", ["local_update", "local_gradient", "multiuser_aggregate"])
def test_with_hardly_any_noise_it_is_the_training_without(four, user_type):
    """The same steps, through sums in place of weights."""
    options = {"user_type": user_type, "num_virtual_users": 3, "clip_norm": 1.0}
    options |= {"noise_multiplier": 2e-4}
    ends = []
    for noise in ("local", "shared"):
        model = build(four, **{**options, "noise": noise})
        worker = next(iter(model.workers.values()))
        before = averaged(worker)
        model.fit(data(four), epochs=1)
        ends.append(moved(averaged(worker), before))
    assert np.linalg.norm(ends[1] - ends[0]) < 0.2 * np.linalg.norm(ends[0])


def test_a_party_sends_whole_numbers_and_tells_the_assumption(four):
    config = {
        **{"strategy": "orchestra_private", "rounds": 1, "seed": 7, "progress": False},
        "model": {"backbone": "conv4", "in_channels": 1, "norm": "group"}
        | {"hidden_dim": 16, "projection_dim": 16},
        "parameters": {**toy.PARAMETERS, **SHARED, "max_colluding": 2},
    }
    aggregator = host.SecureAggregator(four[0], four)
    trainer = FederatedOrchestraTrainer(config, four, aggregator=aggregator)
    results = trainer.train(data(four))
    assert results.epsilon_assumes.startswith("at most 2 of 4 parties pool what they know")
    rows = {row["name"]: row for row in results.manifest if row["when"] != "start"}
    sums = [name for name in rows if name.startswith("sums/")]
    assert sums
    assert not [name for name in rows if name.startswith("weights/")]
    assert "epsilon holds while at most 2 of 4" in rows[sums[0]]["meaning"]
    assert rows["moments/S"]["to"] == "aggregator"
    worker = next(iter(trainer.fl_model.workers.values()))
    sent = host.reveal(worker.apply(lambda w: w.privacy.outgoing({}, True)))
    assert sorted(sent) == sorted(sums)
    for name, array in sent.items():
        assert np.array_equal(array, array.round()), name
        assert np.abs(array).max() <= 2**24, name


def test_a_partys_own_update_never_enters_its_model(four):
    model = build(four)
    worker = next(iter(model.workers.values()))
    x = data(four)
    model.fit(x, epochs=1)

    def trained_alone(strategy):
        before = {n: p.detach().clone() for n, p in strategy.model.named_parameters()}
        strategy.train_step(None, 1, 1)
        return all((p == before[n]).all() for n, p in strategy.model.named_parameters())

    assert host.reveal(worker.apply(trained_alone))


def test_refusals_come_on_the_driver(four):
    with pytest.raises(PrivacyError, match=r"three parties or more .* got 2: each of two"):
        build(four[:2], aggregator=host.SecureAggregator(four[0], four[:2]))
    with pytest.raises(PrivacyError, match=r"`max_colluding` to be below .* got 4 of 4"):
        build(four, max_colluding=4)
    with pytest.raises(PrivacyError, match=r"an aggregator that sees no single sum"):
        build(four, aggregator=host.PlainAggregator(four[0]))
    with pytest.raises(PrivacyError, match=r"Expected route 'secure' with `noise='shared'`"):
        build(four, aggregator=None, server=four[0])
    with pytest.raises(ParameterError, match=r"`privacy` to be 'user' with `noise='shared'`"):
        build(four, privacy="record")
    with pytest.raises(PrivacyError, match=r"to know the number of parties .* OrchestraFLModel"):
        FedRotPredStrategy(GROUP, route="secure", **COMMON, **SHARED)


def test_pcg64_is_warned_of(four, caplog):
    build(four)
    assert [r for r in caplog.records if "PCG64" in r.getMessage()]
