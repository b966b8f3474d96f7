"""One more of each kind, added from outside through the doors that CONTRIBUTING names."""

from functools import partial
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch

from orchestra_strategy import FederatedStrategy, register_strategy, server_aggregation
from orchestra_strategy.aggregation import table as aggregation_table
from orchestra_strategy.aggregation.robust import coordinate_median
from orchestra_strategy.audit import run_audit
from orchestra_strategy.audit.attacks.roc import Auc
from orchestra_strategy.audit.attacks.scene import Attack
from orchestra_strategy.audit.attacks.table import ATTACKS
from orchestra_strategy.config import StrategyConfig
from orchestra_strategy.data import LocalData, load_local
from orchestra_strategy.data.readers.loading import READERS, SUFFIXES
from orchestra_strategy.party.local_update import LocalUpdate
from orchestra_strategy.party.privacy import UNITS, UserLevel
from orchestra_strategy.party.user_types import USER_TYPES
from orchestra_strategy.privacy import GaussianMechanism
from orchestra_strategy.strategies.baselines import FedRotPredStrategy
from tests.audit.parties import config_of, data
from tests.federated import toy


def stepped(cls, **parameters):
    """A party that has done a round by hand."""
    party = cls(toy.MODEL, random_seed=1, batch_size=8, local_epochs=1, **parameters)
    party.build_dataset(toy.images("alice", 16))
    return party, party.train_step(None, 0, 1)


def test_a_data_source(monkeypatch, tmp_path):
    """A reader, and its line in the table: 2 places."""

    def read_text(path, *, scale=1.0):
        return LocalData(np.loadtxt(path, dtype=np.float32) * np.float32(scale))

    monkeypatch.setitem(READERS, "a text of numbers", read_text)
    monkeypatch.setitem(SUFFIXES, ".txt", "a text of numbers")
    path = tmp_path / "party.txt"
    path.write_text("1 2 3\n4 5 6\n")
    assert load_local(path, scale=2.0).samples.tolist() == [[2, 4, 6], [8, 10, 12]]


def test_a_baseline():
    """An objective and a strategy with its parameters."""

    class Config(StrategyConfig):
        strength: float = 1.0

    @register_strategy(strategy_name="one_more_baseline", backend="torch")
    class OneMore(FederatedStrategy):
        config_class: ClassVar[type[StrategyConfig]] = Config

        def make_objective(self):
            def pull(model, batch):
                x = batch["inputs"].float().unsqueeze(1)
                return self.config.strength * model(x).square().mean()

            return pull

    _, (wire, samples) = stepped(OneMore, strength=0.5)
    assert samples == 16
    assert wire["meta"]["phase"] == "round"


def test_an_aggregation(monkeypatch):
    """A way to combine, and its line in the table beside it: 2 places."""

    class First(aggregation_table.Aggregation):
        def combine(self, weights_list, sample_counts, *, trim, parties):
            return [np.array(array) for array in weights_list[0]]

    monkeypatch.setitem(aggregation_table.AGGREGATIONS, "median", First())
    parties = [stepped(FedRotPredStrategy)[1][0] for _ in range(2)]
    parties[1]["arrays"] = {k: v + 1 for k, v in parties[1]["arrays"].items()}
    reply = server_aggregation(aggregation="median")(parties)[0]
    for name, array in reply["arrays"].items():
        assert np.array_equal(array, parties[0]["arrays"][name])
        assert not np.array_equal(array, coordinate_median([[array], [array + 1]], [1, 1])[0])


def test_an_attack(monkeypatch):
    """An object with what it sees and its limits, and its line in the table: 2 places."""

    class Oracle(Attack):
        name = "oracle"
        sees = "everything"
        limits = "It is for a test."

        def run(self, scene):
            return (Auc(1.0, 1.0, 1.0, "oracle", 0.0, self.name),)

    monkeypatch.setitem(ATTACKS, "oracle", Oracle())
    config = config_of("fed_rotpred", user_types=["local_update"], privacy=[{}], rounds=1)
    result = run_audit(data(), config.model_copy(update={"attacks": ("oracle",)})).results[0]
    assert result.leaks
    assert [outcome.attack for outcome in result.outcomes] == ["oracle"]


def test_a_mechanism():
    """A mechanism that charges for what it adds; a party takes it in place of its own."""

    class Rounded(GaussianMechanism):
        def add_noise(self, tensors, sensitivity, release):
            return [t.round(decimals=3) for t in super().add_noise(tensors, sensitivity, release)]

    options = {"privacy": "user", "noise_multiplier": 1.0, "noise_seed": 1}
    party = FedRotPredStrategy(private_model(), random_seed=1, **SMALL, **options)
    party.build_dataset(toy.images("alice", 16))
    own = party.privacy.mechanism
    party.privacy.replace_mechanism(Rounded(own.ledger, own.source))
    party.train_step(None, 0, 1)
    assert sum(party.privacy.ledger.spent.values()) == 1
    assert party.privacy_spent()["epsilon"] > 0


def test_a_unit_of_privacy(monkeypatch):
    """A unit, its line in the table, its name among the parameters: 3 places."""

    class Household(UserLevel):
        name = "household"

        def num_units(self):
            return 3

    class Config(FedRotPredStrategy.config_class):
        privacy: Literal["none", "household"] = "none"

    class Strategy(FedRotPredStrategy):
        config_class = Config

    monkeypatch.setitem(UNITS, "household", Household)
    options = {"privacy": "household", "noise_multiplier": 1.0, "noise_seed": 1}
    party = Strategy(private_model(), random_seed=1, **SMALL, **options)
    party.build_dataset(toy.images("alice", 16))
    party.train_step(None, 0, 1)
    assert isinstance(party.privacy, Household)
    assert party.privacy_spent()["epsilon"] > 0


def test_a_kind_of_user(monkeypatch):
    """A kind, its line in the table, its name among the parameters, its words for the audit."""

    class HalfStep(LocalUpdate):
        def run(self):
            before = [p.detach().clone() for p in self.party.model.parameters()]
            samples = super().run()
            with torch.no_grad():
                for p, b in zip(self.party.model.parameters(), before, strict=True):
                    p.copy_((p + b) / 2)
            return samples

    class Config(FedRotPredStrategy.config_class):
        user_type: Literal["half_step", "local_update"] = "half_step"

    class Strategy(FedRotPredStrategy):
        config_class = Config

    monkeypatch.setitem(USER_TYPES, "half_step", HalfStep)
    start = Strategy(toy.MODEL, random_seed=1, batch_size=8).get_weights()["arrays"]
    half, whole = (stepped(Strategy, user_type=n)[1][0] for n in ("half_step", "local_update"))
    trained = {name: array for name, array in start.items() if "running" not in name}
    for name, array in trained.items():
        moved = whole["arrays"][name] - array
        assert half["arrays"][name] - array == pytest.approx(moved / 2, abs=1e-6)


SMALL = {"batch_size": 8, "local_epochs": 1}


def private_model():
    return partial(toy.MODEL, norm="group+batch")
