"""Crafted weights, public streams and local centroids: what finds an undefended party, and not
a defended one."""

import pytest
import torch
import torch.nn.functional as F

from orchestra_strategy.algorithms.ema import frozen_copy
from orchestra_strategy.algorithms.model import parts_of
from orchestra_strategy.audit import read_data
from orchestra_strategy.audit.answer import answer_of
from orchestra_strategy.audit.attacks.crafted_weights import CraftedWeights
from orchestra_strategy.audit.attacks.local_centroids import LocalCentroids
from orchestra_strategy.audit.attacks.public_streams import PublicStreams, repeated_views
from orchestra_strategy.audit.attacks.scene import FirstCentroids, Scene
from orchestra_strategy.audit.attacks.table import ATTACKS
from orchestra_strategy.audit.audited_party import Row, exchange, new_party
from orchestra_strategy.audit.samples import split_of
from orchestra_strategy.data import LocalData, ViewSet, to_model_input
from orchestra_strategy.rng import torch_generator
from tests.audit.parties import GRADIENT, attacked, config_of, split

WIDE = {"hidden_dim": 64, "projection_dim": 32, "attack_steps": 150, "members": 64}
RECORD = {"privacy": "record", "noise_multiplier": 1.0}


class Still:
    """Views that draw nothing."""

    def __call__(self, x, generator):
        return ViewSet(*3 * [to_model_input(x)], torch.zeros(len(x), dtype=torch.int64))


def scene_of(config, row, samples):
    party = new_party(config, row, samples.members, config.seed)
    exchange(party, party.get_weights())
    return Scene(config, row, samples, party, party.views_for(party.config))


# ---- Crafted weights ---------------------------------------------------------------------------


@pytest.mark.parametrize(("privacy", "leaks"), [({}, True), (RECORD, False)])
def test_weights_that_overflow_for_one_record(privacy, leaks):
    config = config_of(hidden_dim=128, members=400)
    samples = split_of(read_data("digits"), config)
    (trap,) = CraftedWeights().run(scene_of(config, Row("local_gradient", privacy), samples))
    assert trap.leaks == leaks
    if not leaks:  # not even by chance: a record that overflows counts as zero
        assert trap.shown_with == trap.shown_without == 0


def test_batchnorm_is_not_for_this_trap():
    config = config_of("fed_rotpred", norm="batch")
    scene = scene_of(config, GRADIENT, split(config))
    assert "GroupNorm" in CraftedWeights().reason_against(scene)


# ---- Public streams ----------------------------------------------------------------------------


@pytest.mark.parametrize("row", [GRADIENT, Row("local_update", {})], ids=lambda r: r.user_type)
def test_a_server_with_the_seed_draws_the_partys_views_again(row):
    for streams, same in (("seed", True), ("secret", False)):
        config = config_of("fed_rotpred", streams=streams)
        answer = answer_of(config, row, split(config), 0)
        again = repeated_views(answer, answer.samples)
        equal = [torch.equal(a.x2, b.x2) for a, b in zip(answer.views.drawn, again, strict=True)]
        assert equal == [same] * len(again)


def test_with_them_it_finds_the_samples_themselves():
    config = config_of("fed_rotpred", **{**WIDE, "attacks": ["public_streams"], "streams": "seed"})
    found = attacked(config, GRADIENT, split(config, 128))
    assert found.truth.shape[1] == 1
    assert found.leakage.leaked >= 3
    assert found.leakage.above_control > 1


def test_secret_streams_are_not_repeated():
    for config, row in (
        (config_of(streams="secret"), GRADIENT),
        (config_of(streams="seed"), Row("local_update", RECORD)),
    ):
        scene = scene_of(config_of("fed_rotpred", streams=config.streams), row, split(config))
        assert "secret" in PublicStreams().reason_against(scene)


# ---- Local centroids ---------------------------------------------------------------------------


def test_membership_shows_in_centroids_of_few_samples():
    config = config_of(members=64, hidden_dim=64, projection_dim=32)
    noise = torch.rand(128, 1, 8, 8, generator=torch_generator(0, "t", 0, "noise"))
    samples = split_of(LocalData(noise.numpy()), config)
    scene = scene_of(config, GRADIENT, samples)
    scene.views = Still()
    assert LocalCentroids().reason_against(scene) == "no centroids left the party"
    encoder = frozen_copy(parts_of(scene.party.model).encoder)
    stream = torch_generator(0, "t", 0, "views")
    with torch.no_grad():
        z = F.normalize(encoder(scene.views(samples.members, stream).x1), dim=1)
    own = F.normalize(z.reshape(-1, 2, z.shape[1]).mean(1), dim=1)
    others = F.normalize(torch.randn(8, z.shape[1], generator=stream), dim=1)
    for rows, leaks in ((own, True), (others, False)):
        scene.centroids = FirstCentroids(rows, encoder)
        (auc,) = LocalCentroids().run(scene)
        assert auc.leaks == leaks


# ---- The table ---------------------------------------------------------------------------------


def test_every_attack_says_what_it_sees_and_what_it_cannot_show():
    for name, attack in ATTACKS.items():
        assert name == attack.name
        assert len(attack.sees) > 20
        assert attack.limits.endswith(".")
