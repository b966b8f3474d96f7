"""FLModel's arguments, one test for each row of ``docs/flmodel.md``: the constructor."""

import pytest
import torch

from orchestra_strategy import host
from orchestra_strategy.errors import (
    HostError,
    ParameterError,
)
from tests.federated import toy
from tests.federated.flmodel import (
    ask,
    fit_plain,
    plain,
)


def test_init__server(devices, x):
    model = toy.build(devices, server=None)
    model.fit(x, epochs=1)
    seen = {row["seen_by"] for row in model.manifest() if row["to"] == "server"}
    first = "alice (the first of `device_list`, since no server was given): each party's"
    assert seen == {first}
    given = {row["seen_by"] for row in toy.build(devices).manifest() if row["to"] == "server"}
    assert given == {"alice: each party's"}


def test_init__device_list(devices):
    with pytest.raises(HostError, match=r"a list of PYUs, got a mapping; give `list\(devices"):
        toy.build(devices, device_list={d.party: d for d in devices})
    with pytest.raises(HostError, match="at least two parties, got 1"):
        toy.build(devices, server=None, device_list=devices[:1])


def test_init__model(devices, x):
    model = toy.build(devices, model=host.TorchModel(model_fn=toy.MODEL))
    assert len(model.fit(x, epochs=1)["global_history"]["train_loss"]) == 1


def test_init__aggregator(devices, x):
    secure = host.SecureAggregator(devices[0], devices)
    model = toy.build(devices, server=None, aggregator=secure)
    model.fit(x, epochs=1)
    own = plain(devices, aggregator=secure, route="secure")
    fit_plain(own, x, epochs=1)
    assert ask(own, lambda w: w.rounds_done) == ask(model, lambda w: w.rounds_done) == 1


def test_init__strategy(devices):
    with pytest.raises(ParameterError, match="did you mean `fed_simclr`"):
        toy.build(devices, strategy="fed_simcrl")


@pytest.mark.parametrize("build", [toy.build, plain])
def test_init__consensus_num(devices, x, build):
    assert build(devices, consensus_num=1).consensus_num == 1
    if build is toy.build:
        assert build(devices).consensus_num == 2
        with pytest.raises(ParameterError, match="at most the number of parties, got 3 of 2"):
            build(devices, consensus_num=3)


def test_init__backend(devices):
    with pytest.raises(HostError, match="`backend` to be 'torch', got 'tensorflow'"):
        toy.build(devices, backend="tensorflow")
    toy.build(devices, backend="torch")


def test_init__random_seed(devices, x):
    def loss(seed):
        return toy.build(devices, random_seed=seed).fit(x, epochs=1)["global_history"]["train_loss"]

    assert loss(None) == loss(42) != loss(43)


@pytest.mark.parametrize("build", [toy.build, plain])
def test_init__skip_bn(devices, build):
    with pytest.raises(ParameterError, match="`skip_bn` to be False, got True"):
        build(devices, skip_bn=True)


def test_init__num_gpus(devices, monkeypatch):
    with pytest.raises(ParameterError, match="`num_gpus` to be a number >= 0, got -1"):
        toy.build(devices, num_gpus=-1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(HostError, match="CUDA device for `num_gpus` > 0, got none"):
        toy.build(devices, num_gpus=1)


def test_init__server_agg_method(devices):
    with pytest.raises(ParameterError, match=r"to be `orchestra_strategy.server_aggregation"):
        toy.build(devices, server_agg_method=sum)
    started = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host.BaseTorchModel, "__init__", lambda *a, **k: started.append(a))
        with pytest.raises(ParameterError, match=r"`server=` and `server_agg.*or an `aggreg"):
            # As the published guide has it: neither server nor aggregator.
            host.FLModel(
                device_list=devices,
                model=toy.MODEL,
                strategy="orchestra",
                backend="torch",
                strategy_config=toy.PARAMETERS,
            )
    assert started == []


@pytest.mark.parametrize("build", [toy.build, plain])
def test_init__strategy_config(devices, build):
    started = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host.BaseTorchModel, "__init__", lambda *a, **k: started.append(a))
        with pytest.raises(ParameterError, match="did you mean `temperature`"):
            build(devices, strategy_config={"temprature": 0.5})
    assert started == []
    model = build(devices, strategy_config={"temperature": 0.1})
    assert ask(model, lambda w: w.config.temperature) == 0.1


@pytest.mark.parametrize("build", [toy.build, plain])
def test_init__dp_strategy(devices, build):
    with pytest.raises(ParameterError, match="Expected no `dp_strategy`"):
        build(devices, dp_strategy=object())


def test_init__simulation(devices):
    assert toy.build(devices).simulation  # known by itself
    assert toy.build(devices, simulation=True).simulation
    assert plain(devices, simulation=True).simulation
