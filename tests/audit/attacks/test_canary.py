"""The canary's lower bound: by hand, below a promise that is kept, above one that is broken."""

import numpy as np
import pytest
from scipy.stats import beta

from orchestra_strategy.audit.attacks.canary import (
    Canary,
    lower_bound,
    provable,
    record_runs,
    user_runs,
)
from orchestra_strategy.audit.attacks.scene import Scene
from orchestra_strategy.audit.audited_party import Row, new_party
from orchestra_strategy.privacy import GaussianMechanism, NoiseSource, PrivacyLedger, Release
from orchestra_strategy.privacy.accounting import epsilon_of
from tests.audit.parties import config_of, split

DELTA = 1e-5
PROMISE = Release(4.0)  # of which one costs an epsilon of about 1


class TooQuiet(GaussianMechanism):
    """Adds a twentieth of the noise, and charges for all of it."""

    def add_noise(self, tensors, sensitivity, release):
        return super().add_noise(tensors, sensitivity / 20, release)


def measured(runs_of, mechanism, runs=400):
    found = []
    for present in (True, False):
        made = mechanism(PrivacyLedger(), NoiseSource(int(present), "canary"))
        found.append(runs_of(PROMISE, 1, runs, made, present))
    return lower_bound(*found, DELTA)


@pytest.mark.parametrize("runs_of", [record_runs, user_runs])
def test_a_promise_that_is_kept_and_one_that_is_broken(runs_of):
    told = epsilon_of({PROMISE: 1}, DELTA)
    assert measured(runs_of, GaussianMechanism) < told < 1.5
    assert measured(runs_of, TooQuiet) > 2 * told


def test_a_bound_by_hand():
    # Always right in 20 runs of the second half: the true rate is at least, the false at most so.
    present, absent = np.full(40, 1.0), np.zeros(40)
    low, high = beta.ppf(0.025, 20, 1), beta.ppf(0.975, 1, 20)
    want = np.log(max((low - DELTA) / high, (1 - high - DELTA) / (1 - low)))
    assert lower_bound(present, absent, DELTA) == pytest.approx(want) == provable(40, DELTA)
    assert lower_bound(absent, absent, DELTA) == 0.0


def test_the_audits_canary_says_when_the_noise_is_too_weak():
    config = config_of("fed_rotpred", rounds=1, canary_runs=200)
    row = Row("local_update", {"privacy": "user", "noise_multiplier": 4.0})
    samples = split(config)
    scene = Scene(config, row, samples, new_party(config, row, samples.members, 0), None)
    (kept,), (broken,) = Canary().run(scene), Canary(TooQuiet).run(scene)
    assert not kept.leaks
    assert kept.measured <= kept.upper < kept.provable
    assert broken.leaks
    assert "more than the promise allows" in broken.told
