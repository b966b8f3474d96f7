"""What leaves before noise moves by the declared sensitivity at most: every combination accepted.

Two parties that differ by one record, or by one user's data, are stepped side by side with coupled
randomness: each record keeps its own draws. What goes into the mechanism is compared; out of it
comes the same noise for both, so that every round starts from the same state.
"""

import itertools
import zlib
from functools import partial
from typing import ClassVar

import numpy as np
import pytest
import torch

from orchestra_strategy import orchestra_model, registered_strategies, server_aggregation
from orchestra_strategy.algorithms import masked
from orchestra_strategy.algorithms.masked import hide
from orchestra_strategy.data.augmentation.view_set import ViewSet
from orchestra_strategy.errors import ModelError, ParameterError, PrivacyError
from orchestra_strategy.party import local_update
from orchestra_strategy.party.privacy import protected_records
from orchestra_strategy.privacy.mechanism import GaussianMechanism
from orchestra_strategy.strategies.registry import lookup_strategy

STRATEGIES = sorted(
    name
    for name in (registered.removesuffix("_torch") for registered in registered_strategies())
    if lookup_strategy(name).__module__.startswith("orchestra_strategy.")
)
USERS = ("local_update", "local_gradient", "multiuser_aggregate")
COMBINATIONS = list(
    itertools.product(
        STRATEGIES, ("grey", "colour", "table"), ("server", "secure"), ("user", "record"), USERS
    )
)
SHAPES = {"grey": (8, 8), "colour": (3, 8, 8), "table": (8,)}
SMALL = {
    **{"num_global_clusters": 3, "num_local_clusters": 1, "memory_size": 8, "k_min": 2},
    **{"num_clusters": 2, "num_virtual_users": 3, "local_epochs": 1, "batch_size": 5, "lr": 0.3},
}
ROUNDS = 2


def build(name, views, route, unit, user_type, samples):
    cls = lookup_strategy(name)
    known = cls.config_class.model_fields
    backbone, channels = {"grey": ("conv4", 1), "colour": ("conv4", 3), "table": ("mlp", 8)}[views]
    model = partial(
        orchestra_model,
        *(backbone, channels, "group"),
        **{"hidden_dim": 8, "projection_dim": 8, "heads": cls.heads, "num_classes": 3},
    )
    parameters = {k: v for k, v in SMALL.items() if k in known} | {
        **{"views": views, "route": route, "privacy": unit, "user_type": user_type},
        **{"noise_multiplier": 1.0, "noise_seed": 1, "user_split": "blocks", "party": "alice"},
    }
    party = cls(model, random_seed=3, **parameters)
    party.privacy.rehearsed = None  # its releases are not this party's
    party.build_dataset(samples, labels_of(samples) if cls.needs_labels else None)
    return party


def labels_of(samples):
    """Classes by content, so that a sample has the same one in both data sets; some are none."""
    return np.array([zlib.crc32(row.tobytes()) % 4 for row in samples])


def accepted():
    """Return the combinations that can be built; the others must be refused in our words."""
    found = []
    for combination in COMBINATIONS:
        samples = np.random.default_rng(0).random((9, *SHAPES[combination[1]]), np.float32)
        try:
            build(*combination, samples)
        except (PrivacyError, ParameterError, ModelError):
            continue
        found.append(combination)
    return found


ACCEPTED = accepted()


class Coupled:
    """Views that draw for each sample from a generator of its own, by content, stream and call.

    That a row's views do not depend on the other rows is looked at in each batch.
    """

    row_wise = True

    made: ClassVar[dict] = {}  # the two parties have most rows in common

    def __init__(self, views):
        self.views, self.calls, self.stream = views, 0, None

    def __call__(self, x, generator):
        if generator is not self.stream:  # another user's, or another round's
            self.stream, self.calls = generator, 0
        self.calls += 1
        alone = x.clone()
        alone[1:] = 0.5
        for one, other in zip(
            *(self.views(b, torch.Generator().manual_seed(5)) for b in (x, alone))
        ):
            assert torch.equal(one[0], other[0])
        drawn = [self._drawn(row) for row in x]
        return ViewSet(*(torch.cat(parts) for parts in zip(*drawn)))

    def _drawn(self, row):
        key = self.views, row.numpy().tobytes(), self.stream.initial_seed(), self.calls
        if key not in self.made:
            generator = torch.Generator().manual_seed(zlib.crc32(repr(key[1:]).encode()))
            self.made[key] = self.views(row[None], generator)
        return self.made[key]


def hide_alone(x, ratio, generator, groups=()):
    """Hide parts of each row by draws of its own, by content; else a row more would shift them."""
    rows = [
        hide(
            row[None],
            ratio,
            torch.Generator().manual_seed(zlib.crc32(row.numpy().tobytes())),
            groups,
        )
        for row in x
    ]
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


@pytest.fixture
def releases(monkeypatch):
    """What goes into the mechanism, with the declared sensitivity."""
    seen = []

    def spy(self, tensors, sensitivity, release):
        self.ledger.spend(release)
        seen.append((torch.cat([t.detach().double().flatten() for t in tensors]), sensitivity))
        draw = torch.Generator().manual_seed(len(seen))
        return [torch.randn(t.shape, generator=draw, dtype=t.dtype) * 1e-3 for t in tensors]

    monkeypatch.setattr(GaussianMechanism, "add_noise", spy)
    return seen


def positions(samples, shared):
    """Return each sample's number among those that both parties have, -1 for one's own."""
    numbers = {row.tobytes(): i for i, row in enumerate(shared)}
    return np.array([numbers.get(row.tobytes(), -1) for row in samples])


def run(combination, samples, shared, releases, monkeypatch):
    """Return what a party releases and says in two rounds."""

    def poisson(n, probability, steps, source):
        # A record is in a batch, or not, whoever else is there.
        numbers = positions(samples, shared)
        for step in range(steps):
            drawn = np.random.default_rng(step).random(len(shared) + 1) < 0.6
            yield np.flatnonzero(drawn[numbers]).astype(np.int64)

    monkeypatch.setattr(protected_records, "poisson_batches", poisson)
    # How many records there are counts as known; a record more must not change the noise.
    monkeypatch.setattr(local_update, "num_batches", lambda *_: 2)
    monkeypatch.setattr(protected_records, "sampling_probability", lambda n, size: size / 9)
    monkeypatch.setattr(masked, "hide", hide_alone)
    party = build(*combination, samples)
    party.objective.views = Coupled(party.objective.views)
    monkeypatch.setattr(type(party), "local_steps", lambda self: 2)
    releases.clear()

    def exchange(wire):
        if combination[2] == "server":
            options = {"num_global_clusters": 3} if "orchestra" in combination[0] else {}
            if combination[0] == "orchestra_simple":
                options = {}
            wire = server_aggregation(**options, seed=3)([wire])[0]
        party.apply_weights(wire)

    exchange(party.get_weights())
    said = []
    for step in range(ROUNDS):
        wire, _ = party.train_step(None, step, 1)
        logs = party.get_logs()
        logs.pop("privacy_epsilon")  # it follows from how many records there are, which is known
        said.append((logs, party.collapse_found(), party.left_out_of()))
        exchange(wire)
    return list(releases), said


def neighbours(combination, rng):
    """Return two data sets, what they share, and how many units are exchanged."""
    _, views, _, unit, user_type = combination
    shape = SHAPES[views]
    base = (
        rng.random((9, *shape), np.float32)
        if views != "table"
        else (rng.normal(size=(9, *shape)).astype(np.float32))
    )
    odd = rng.choice([np.nan, np.inf, 3e38, 1e4, 0.0, 0.7])
    other = np.full(shape, odd, np.float32) * rng.choice([-1, 1], shape).astype(np.float32)
    if unit == "record":
        at = int(rng.integers(10))
        if rng.random() < 0.5:
            return base, np.insert(base, at, other, axis=0), base, 1
        replaced = base.copy()
        replaced[at % 9] = other
        return base, replaced, np.delete(base, at % 9, axis=0), 2
    users = 3 if user_type == "multiuser_aggregate" else 1
    rows = slice(0, 9 // users)
    replaced = base.copy()
    replaced[rows] = rng.random(replaced[rows].shape, np.float32)
    replaced[0] = other
    return base, replaced, base[rows.stop :], 2


@pytest.mark.parametrize("combination", ACCEPTED, ids="-".join)
def test_one_unit_moves_what_leaves_by_the_declared_sensitivity(combination, releases, monkeypatch):
    rng = np.random.default_rng(COMBINATIONS.index(combination))
    one, other, shared, times = neighbours(combination, rng)
    before, said = run(combination, one, shared, releases, monkeypatch)
    after, said_too = run(combination, other, shared, releases, monkeypatch)
    assert len(before) == len(after) > 0
    assert said == said_too
    for (a, sensitivity), (b, declared) in zip(before, after):
        assert sensitivity == declared
        assert (a - b).norm().item() <= times * sensitivity * (1 + 1e-4)


BY_THE_CLUSTERS = {"balance": "clusters", "target_temperature": 0.05, "deg_length": 4.0}
OF_THE_BATCH = {"balance": "memory", "target_temperature": 0.05, "contrast_weight": 1.0}


@pytest.mark.parametrize("route", ["server", "secure"])
@pytest.mark.parametrize(("unit", "options"), [("record", BY_THE_CLUSTERS), ("user", OF_THE_BATCH)])
def test_options_beyond_the_published_method_move_no_more(
    route, unit, options, releases, monkeypatch
):
    for name, value in options.items():
        monkeypatch.setitem(SMALL, name, value)
    combination = ("orchestra_private", "grey", route, unit, "local_update")
    rng = np.random.default_rng(5)
    one, other, shared, times = neighbours(combination, rng)
    before, said = run(combination, one, shared, releases, monkeypatch)
    after, said_too = run(combination, other, shared, releases, monkeypatch)
    assert said == said_too
    for (a, sensitivity), (b, _) in zip(before, after, strict=True):
        assert (a - b).norm().item() <= times * sensitivity * (1 + 1e-4)


def test_combinations_are_there():
    """Each unit, route, kind of user and view set is accepted by some strategy."""
    for options in zip(*ACCEPTED):
        assert len(set(options)) > 1
    assert {c[0] for c in ACCEPTED} >= {"orchestra_private", "fed_rotpred", "fed_byol"}
    assert ("fed_masked", "grey", "server", "record", "local_update") in ACCEPTED
    assert len(ACCEPTED) > 60
