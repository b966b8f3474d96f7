"""Options beyond the published method, at a party: what they refuse, how they fade, what leaves."""

import pytest
import torch

from orchestra_strategy import OrchestraStrategy, server_aggregation
from orchestra_strategy.config import parse_config
from orchestra_strategy.errors import ParameterError
from orchestra_strategy.strategies.orchestra_config import OrchestraConfig
from orchestra_strategy.strategies.private import OrchestraPrivateConfig
from orchestra_strategy.threads import torch_threads
from tests.federated import toy


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with torch_threads(1):
        yield


def party(**options):
    made = OrchestraStrategy(
        toy.MODEL, random_seed=7, party="alice", **{**toy.PARAMETERS, **options}
    )
    made.build_dataset(toy.images("alice"))
    made.apply_weights(server_aggregation(num_global_clusters=4)([made.get_weights()])[0])
    return made


def test_the_instance_term_fades_by_rounds_and_comes_back_with_new_parameters():
    alice = party(contrast_weight=0.5, contrast_rounds=2)
    weights = []
    for _ in range(3):
        alice.train_step(None, 0, 1)
        weights.append(alice.objective.settings.contrast_weight)
    assert weights == [0.5, 0.25, 0.0]
    alice.configure({"contrast_rounds": 4})
    alice.train_step(None, 0, 1)
    assert alice.objective.settings.contrast_weight == 0.125


@pytest.mark.parametrize("route", ["server", "secure"])
@pytest.mark.parametrize("balance", ["memory", "clusters"])
def test_options_change_the_weights_and_nothing_else_of_what_leaves(route, balance):
    options = {"balance": balance, "target_temperature": 0.05, "contrast_weight": 1.0}
    plain, more = (
        OrchestraStrategy(toy.MODEL, 7, party="alice", **toy.PARAMETERS, route=route, **some)
        for some in ({}, options)
    )
    for each in (plain, more):
        each.build_dataset(toy.images("alice"))
        each.train_step(None, 0, 1)  # round 0
        each.train_step(None, 0, 1)
    assert plain.manifest_rows() == more.manifest_rows()
    assert plain.metric_names == more.metric_names
    weights = [next(iter(each.model.parameters())) for each in (plain, more)]
    assert not torch.equal(*weights)


def test_options_that_couple_records_are_refused_by_name_where_records_are_protected():
    private = {"privacy": "record", "noise_multiplier": 1.0}
    with pytest.raises(ParameterError, match="`balance` to be 'none' or 'clusters' with privacy="):
        parse_config(OrchestraPrivateConfig, {**private, "balance": "memory"})
    with pytest.raises(ParameterError, match="`contrast_weight` to be 0 with privacy='record', go"):
        parse_config(OrchestraPrivateConfig, {**private, "contrast_weight": 0.5})
    rowwise = {"balance": "clusters", "target_temperature": 0.05}
    parse_config(OrchestraPrivateConfig, {**private, **rowwise})
    whole = {"privacy": "user", "balance": "memory", "contrast_weight": 1.0}
    parse_config(OrchestraPrivateConfig, {**private, **whole})
    with pytest.raises(ParameterError, match="`target_temperature` to be greater than 0"):
        parse_config(OrchestraConfig, {"target_temperature": 0.0})
