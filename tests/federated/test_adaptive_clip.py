"""A clip that follows a private quantile of the users' norms."""

from functools import partial

import numpy as np
import pytest
import torch

from orchestra_strategy import OrchestraFLModel, host, server_aggregation, session
from orchestra_strategy.data.sources import fed_ndarray
from orchestra_strategy.errors import ParameterError
from orchestra_strategy.privacy import epsilon_of
from orchestra_strategy.privacy.accounting import Release
from tests.federated import toy
from tests.strategies.test_private import COMMON, FedRotPredStrategy, party

GROUP = partial(toy.MODEL, norm="group", heads=("degeneracy_head",))
NAMES = ("alice", "bob", "carol")
ADAPTIVE = {
    **{"privacy": "user", "noise_multiplier": 0.5, "noise_seed": 1, "strategy": "fed_rotpred"},
    **{"user_type": "multiuser_aggregate", "num_virtual_users": 6, "health_samples": 0},
    **{"clip_quantile": 0.5, "clip_rate": 1.5, "clip_share": 0.1, "clip_norm": 1e-3},
}


@pytest.fixture(scope="module")
def three():
    with session(NAMES, mode="debug") as devices:
        yield devices


def data(devices):
    rng = np.random.default_rng(0)
    return fed_ndarray({d: rng.random((18, 8, 8), dtype=np.float32) for d in devices})


def build(devices, **kwargs):
    options = {"device_list": devices, "model": GROUP, "random_seed": 7, **COMMON, **ADAPTIVE}
    if kwargs.get("noise") == "shared":
        options["aggregator"] = host.SecureAggregator(devices[0], devices)
    return OrchestraFLModel(**{**options, **kwargs})


def norms(worker):
    """Norms of the users' updates of a round from the present weights, without a clip."""
    found, user = [], worker.user_type.user
    difference = user._difference

    def spy(parameters):
        update = difference(parameters)
        found.append(float(torch.cat([u.flatten() for u in update]).norm()))
        return update

    user._difference = spy
    worker.user_type.query()
    user._difference = difference
    return found


@pytest.mark.parametrize("noise", ["local", "shared"])
def test_the_clip_finds_the_median_norm_and_is_paid_for(three, noise):
    model = build(three, noise=noise, lr=1e-3)
    history = model.fit(data(three), epochs=7)["global_history"]
    clips = history["privacy_clip"]
    assert clips[0] == pytest.approx(1e-3)
    assert clips[1] == pytest.approx(1e-3 * np.exp(0.75), rel=0.4)  # nobody is below it
    middle = np.median([host.reveal(w.apply(norms)) for w in model.workers.values()])
    assert clips[-1] == pytest.approx(middle, rel=0.6)
    assert not clips[0] * 3 > middle
    # All of a round costs what one release with the noise multiplier does.
    told = epsilon_of({Release(0.5): 7}, 1e-5)
    assert history["privacy_epsilon"][-1] == pytest.approx(told, rel=0.01)
    now = {host.reveal(w.apply(lambda w: w.privacy.clip_norm)) for w in model.workers.values()}
    assert len(now) == 1


def test_the_count_has_its_own_share_of_the_noise_and_a_sensitivity_of_a_half():
    alone = party(FedRotPredStrategy, **{k: v for k, v in ADAPTIVE.items() if k != "strategy"})
    sent = []
    mechanism = alone.privacy.mechanism
    add = mechanism.add_noise
    mechanism.add_noise = lambda *given: (sent.append(given), add(*given))[1]
    for _ in range(2):
        alone.train_step(None, 0, 1)
    update, count = sent[:2]
    plan = alone.privacy.plan()
    assert (update[1], update[2]) == (1e-3, plan.update)
    assert (count[1], count[2]) == (0.5, plan.within)
    assert plan.within.noise_multiplier == pytest.approx(0.5 / 0.1**0.5)
    assert count[0][0].item() == -3.0  # six users, none below a thousandth
    assert alone.privacy.ledger.spent == {plan.update: 2, plan.within: 2}
    # A count never tells more than its noise: it is what the payload has.
    wire, _ = alone.train_step(None, 0, 1)
    released = alone.privacy._within / 6
    assert wire["arrays"]["counts/within"] == pytest.approx(np.float32([released]))


def test_the_clip_is_kept_in_a_checkpoint_and_taken_over_by_who_was_away():
    options = {k: v for k, v in ADAPTIVE.items() if k != "strategy"}
    one, other, third = (party(FedRotPredStrategy, **options) for _ in range(3))
    for _ in range(3):
        wire, _ = one.train_step(None, 0, 1)
        one.apply_weights(server_aggregation()([wire])[0])
    assert one.privacy.clip_norm != pytest.approx(1e-3, rel=0.01)
    other.privacy.load_state(one.privacy.state())
    third.load_common_state(one.common_state())
    assert other.privacy.clip_norm == third.privacy.clip_norm == one.privacy.clip_norm


def test_refusals():
    for options, message in [
        ({"privacy": "record"}, r"`privacy` to be 'user' with `clip_quantile`, got 'record'"),
        ({"clip_share": 1.0}, r"`clip_share` to be less than 1, got 1"),
    ]:
        with pytest.raises(ParameterError, match=message):
            FedRotPredStrategy(
                GROUP,
                **COMMON,
                **{"privacy": "user", "noise_multiplier": 1.0, "clip_quantile": 0.5, **options},
            )
