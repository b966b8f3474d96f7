"""Hooks that are overridden without ``super()``: nothing of the method is lost."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from orchestra_strategy import (
    FedBYOLStrategy,
    FedSimCLRStrategy,
    OrchestraPrivateStrategy,
    OrchestraSimpleStrategy,
    OrchestraStrategy,
    server_aggregation,
)
from orchestra_strategy.errors import ParameterError, PrivacyError
from orchestra_strategy.exchange.manifest import Entry
from tests.federated import toy

FEW = {"batch_size": 8, "local_epochs": 1, "lr": 0.01}
VIRTUAL = {"user_type": "multiuser_aggregate", "num_virtual_users": 4}
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "orchestra": (OrchestraStrategy, toy.PARAMETERS),
    "orchestra, virtual users": (OrchestraStrategy, {**toy.PARAMETERS, **VIRTUAL}),
    "orchestra_private": (
        OrchestraPrivateStrategy,
        {**toy.PARAMETERS, "privacy": "user", "noise_multiplier": 0.5, "noise_seed": 1},
    ),
    "orchestra_simple": (OrchestraSimpleStrategy, {**FEW, "num_clusters": 2}),
    "fed_byol": (FedBYOLStrategy, FEW),
    "fed_simclr": (FedSimCLRStrategy, FEW),
}
HOOKS = {
    "set_up": None,
    "check_data": None,
    "forget_data": None,
    "start_round": None,
    "before_local_training": None,
    "after_local_training": None,
    "finish_round": None,
    "recover": None,
    "needs_initial_pass": False,
    "initial_pass": None,
    "extra_entries": (),
    "extras": {},
    "reply_entries": (),
    "receive_extras": None,
    "kept_state": {},
    "load_kept_state": None,
}


def empty(cls, *hooks):
    """A subclass whose hooks do nothing, and do not call ``super()``."""
    calls = []

    def hook(name, result):
        def run(self, *arguments):
            calls.append(name)
            return result

        return run

    bodies = {name: hook(name, HOOKS[name]) for name in hooks}
    return type(f"Empty{cls.__name__}", (cls,), bodies), calls


def trained(cls, parameters, rounds=3):
    """Train a party against a server, look at other data in between, and tell all that it has."""
    norm = "group+batch" if issubclass(cls, OrchestraPrivateStrategy) else "batch"
    model = partial(toy.MODEL, norm=norm, heads=(*cls.heads,))
    party = cls(model, random_seed=7, party="alice", **parameters)
    server = server_aggregation(num_global_clusters=4, seed=7)
    party.build_dataset(toy.images("bob"))
    party.apply_weights(server([party.get_weights()])[0])
    party.build_dataset(toy.images("alice"))  # other data: memories start anew
    logs = []
    for step in range(rounds):
        wire, _ = party.train_step(None, step, 1)
        logs.append(party.get_logs())
        reply = server([wire])[0]
        if step == 1:
            reply["meta"]["left_out"] = "a test"
        party.apply_weights(reply)
    return logs, wire, party.all_kept_state()["method"], party


def assert_same(one, other):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert np.array_equal(one, other, equal_nan=isinstance(one, float))


@pytest.mark.parametrize("case", CASES)
def test_nothing_of_the_method_is_in_a_hook(case):
    cls, parameters = CASES[case]
    want = trained(cls, parameters)
    own, calls = empty(cls, *HOOKS)
    got = trained(own, parameters)
    assert_same(want[:3], got[:3])
    assert set(calls) >= {"start_round", "before_local_training", "finish_round", "recover"}
    assert set(calls) >= {"set_up", "check_data", "forget_data", "extras", "receive_extras"}


@pytest.fixture(scope="module")
def orchestra():
    return trained(*CASES["orchestra"], rounds=2)


@pytest.mark.parametrize("hook", HOOKS)
def test_each_hook_alone_can_do_without_super(hook, orchestra):
    cls, parameters = CASES["orchestra"]
    assert_same(orchestra[:3], trained(empty(cls, hook)[0], parameters, rounds=2)[:3])


def test_hooks_run_inside_the_methods_work():
    """Before: the method is ready. After: it has not yet summed up what the user has."""
    seen = []

    class Watching(OrchestraStrategy):
        def before_local_training(self, user):
            seen.append(("before", len(self.method.centroids.by_user)))

        def after_local_training(self, user):
            seen.append(("after", len(self.method.centroids.by_user)))
            self.objective.memory.load_state_dict({"rows": torch.eye(16), "ids": torch.arange(16)})

        def finish_round(self):
            seen.append(("finish", len(self.method.centroids.by_user)))

    _, wire, _, _ = trained(Watching, toy.PARAMETERS, rounds=1)
    # Round 0, then a round.
    assert seen[-3:] == [("before", 0), ("after", 0), ("finish", 1)]
    # What the hook has put into the memory is what was clustered: rows of the identity.
    sizes = np.count_nonzero(wire["arrays"]["local_centroids"], axis=1)
    assert sizes.sum() == 16


def test_round_0_of_ones_own_is_done_beside_the_methods():
    rows = []

    class Counting(OrchestraStrategy):
        def needs_initial_pass(self):
            return not rows

        def initial_pass(self, batches):
            rows.append(sum(len(batch["ids"]) for batch in batches))

    _, _, _, party = trained(Counting, toy.PARAMETERS, rounds=1)
    assert rows == [20]
    assert party.objective.centroids is not None
    assert len(party.objective.memory) > 0


class Sending(OrchestraStrategy):
    """Sends a number of its own."""

    name = "mine"

    def extra_entries(self):
        return (Entry(self.name, (2,), "float32", "weighted mean", "server", "two numbers"),)

    def extras(self):
        return {self.name: np.ones(2, np.float32)}


def test_what_is_sent_of_ones_own_is_beside_the_methods():
    party = Sending(toy.MODEL, random_seed=7, **toy.PARAMETERS)
    party.build_dataset(toy.images("alice"))
    wire, _ = party.train_step(None, 0, 1)
    assert {"mine", "local_centroids", "global_centroids"} <= set(wire["arrays"])


def test_a_name_that_the_method_has_is_refused():
    cls = type("Taking", (Sending,), {"name": "local_centroids"})
    with pytest.raises(ParameterError, match="`extra_entries` to be free, got local_centroids"):
        cls(toy.MODEL, random_seed=7, **toy.PARAMETERS)


def test_an_array_of_the_methods_name_is_refused():
    class Replacing(OrchestraStrategy):
        def extras(self):
            return {"local_centroids": np.ones((1, 16), np.float32)}

    party = Replacing(toy.MODEL, random_seed=7, **toy.PARAMETERS)
    party.build_dataset(toy.images("alice"))
    with pytest.raises(ParameterError, match="`extras` to be free, got local_centroids"):
        party.train_step(None, 0, 1)


def test_ones_own_declaration_does_not_take_the_methods_away():
    """Of a private strategy: moments carry noise, whatever a subclass declares of its own."""
    options = {**toy.PARAMETERS, "privacy": "user", "noise_multiplier": 1.0, "noise_seed": 1}
    body = {n: vars(Sending)[n] for n in ("name", "extra_entries", "extras")}
    model = partial(toy.MODEL, norm="group+batch")
    undeclared = type("Undeclared", (OrchestraPrivateStrategy,), body)
    with pytest.raises(PrivacyError, match="got `mine`"):
        undeclared(model, random_seed=7, **options)
    declared = type("Declared", (undeclared,), {"protected_entries": ("mine",)})
    declared(model, random_seed=7, **options)


def test_a_kept_state_of_ones_own_comes_back_beside_the_methods():
    class Keeping(OrchestraStrategy):
        count = 0

        def kept_state(self):
            return {"count": self.count}

        def load_kept_state(self, state):
            self.count = state["count"]

    _, _, method, party = trained(Keeping, toy.PARAMETERS, rounds=1)
    party.count = 5
    other = Keeping(toy.MODEL, random_seed=8, **toy.PARAMETERS)
    other.load_all_kept_state(party.all_kept_state())
    assert other.count == 5
    assert_same(other.all_kept_state()["method"], method)
