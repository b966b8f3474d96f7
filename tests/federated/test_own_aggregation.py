"""A strategy's own ``aggregate_weights``: the server uses it, in both classes, or is refused."""

import cloudpickle
import numpy as np
import pytest

from orchestra_strategy import (
    OrchestraStrategy,
    host,
    register_strategy,
    server_aggregation,
    weighted_mean,
)
from orchestra_strategy.errors import ParameterError
from tests.federated import toy
from tests.federated.flmodel import ask, fit_plain, plain

calls = []


class Alike(OrchestraStrategy):
    """Parties count alike, whatever the number of their samples."""

    @staticmethod
    def aggregate_weights(weights_list, sample_counts):
        calls.append(list(sample_counts))
        return weighted_mean(weights_list, [1] * len(sample_counts))


class Inherited(Alike):
    pass


OPTIONS = {"num_global_clusters": 4, "seed": 7}


@pytest.fixture(autouse=True)
def registered():
    register_strategy(strategy_name="alike", backend="torch")(Alike)
    register_strategy(strategy_name="inherited", backend="torch")(Inherited)
    calls.clear()


@pytest.mark.parametrize("build", [toy.build, plain])
@pytest.mark.parametrize("strategy", ["alike", "inherited"])
def test_a_server_that_would_ignore_it_is_refused_before_any_worker_starts(
    devices, build, strategy, monkeypatch
):
    started = []
    monkeypatch.setattr(host.BaseTorchModel, "__init__", lambda *a, **k: started.append(a))
    for method in (server_aggregation(**OPTIONS), _other_mean()):
        with pytest.raises(ParameterError, match=r"to combine weights as `\w+` does, .*overrides"):
            build(devices, strategy=strategy, server_agg_method=method)
    assert started == []


def _other_mean():
    return server_aggregation(**OPTIONS, aggregate_weights=weighted_mean)


def test_it_is_used_in_both_classes(devices):
    x = toy.data(devices)
    ours = toy.build(devices, strategy="alike")
    ours.fit(x, epochs=1)
    assert calls == [[41, 20]] * 2  # of the first exchange, and of the round
    own = server_aggregation(**OPTIONS, aggregate_weights=Alike.aggregate_weights)
    theirs = plain(devices, strategy="alike", server_agg_method=own)
    fit_plain(theirs, x, epochs=1)
    assert calls == [[41, 20]] * 4
    for model in (ours, theirs):
        average = [ask(model, lambda w: w.averaged_weights(), party) for party in toy.PARTIES]
        assert all(np.array_equal(average[0][name], average[1][name]) for name in average[0])


def test_it_is_the_same_one_after_a_journey_to_another_process():
    """A class of a script travels by value: the worker has another object of its function."""
    far = cloudpickle.loads(cloudpickle.dumps(_in_a_script()))
    near = server_aggregation(**OPTIONS, aggregate_weights=_in_a_script().aggregate_weights)
    config = far.checked_config({**toy.PARAMETERS, "server_agg_method": near})
    assert config.num_global_clusters == 4
    assert far.own_aggregation() is not near.aggregate_weights


def _in_a_script():
    class OfAScript(OrchestraStrategy):
        @staticmethod
        def aggregate_weights(weights_list, sample_counts):
            return weights_list[0]

    return OfAScript
