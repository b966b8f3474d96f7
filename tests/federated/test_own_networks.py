"""Networks that a user hands in: one for each party, drawing from the root seed alone."""

import random
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from orchestra_strategy import FederatedStrategy, OrchestraModel, host
from orchestra_strategy.data.sources import fed_ndarray
from orchestra_strategy.errors import DataError, ModelError
from orchestra_strategy.rng import SecretStreams
from tests.federated import toy
from tests.federated.flmodel import fit_plain, plain

SMALL = {"hidden_dim": 8, "projection_dim": 8}


class Dropping(nn.Module):
    """Draws from all three global generators."""

    out_dim = 16

    def __init__(self):
        super().__init__()
        self.layer, self.drop = nn.Linear(64, 16), nn.Dropout(0.3)

    def forward(self, x):
        scale = 1.0
        if self.training:
            scale += 0.1 * random.random() + 0.1 * np.random.random()
        return self.drop(torch.relu(self.layer(x.flatten(1)))) * scale


def dropping():
    return OrchestraModel(Dropping(), **SMALL)


def generators():
    return torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()


class Plain(FederatedStrategy):
    def make_objective(self):
        return lambda model, batch: model(batch["inputs"].flatten(1)).square().mean()


def seeded(seed):
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"user_type": "local_gradient"},
        {"user_type": "multiuser_aggregate", "num_virtual_users": 2, "local_epochs": 2},
    ],
)
def test_what_a_network_draws_follows_from_the_root_seed(devices, x, options):
    losses = []
    for seed in (0, 1):
        seeded(seed)
        before = generators()
        model = toy.build(devices, model=dropping, **options)
        losses.append(model.fit(x, epochs=1)["global_history"]["train_loss"])
        host.reveal(model.predict(x))
        assert before[0].equal(generators()[0])
        assert before[1:] == generators()[1:]
    assert losses[0] == losses[1]


def test_parties_rounds_and_users_draw_differently():
    party = Plain(lambda: nn.Linear(64, 2), random_seed=7, party="alice")
    drawn = []
    for name, round_index, user in (("alice", 1, None), ("bob", 1, None), ("alice", 2, None)):
        party.party, party.round_index = name, round_index
        with party.local_training(user):
            drawn.append((torch.rand(1).item(), np.random.random(), random.random()))
    party.party, party.round_index = "alice", 1
    for user in (0, 1):
        with party.local_training(user):
            drawn.append((torch.rand(1).item(), np.random.random(), random.random()))
    assert all(len(set(kind)) == len(drawn) for kind in zip(*drawn, strict=True))
    party.streams = SecretStreams()
    with party.local_training(None):
        first = torch.rand(1).item()
    with party.local_training(None):
        assert torch.rand(1).item() == first
    party.streams = SecretStreams()
    with party.local_training(None):
        assert torch.rand(1).item() != first


@pytest.mark.parametrize("kind", ["module", "the same", "around the same", "TorchModel"])
def test_each_party_has_a_network_of_its_own(devices, x, kind):
    backbone = Dropping()
    network = OrchestraModel(backbone, **SMALL)
    model = {
        "module": network,
        "the same": lambda: network,
        "around the same": partial(OrchestraModel, backbone, **SMALL),
        "TorchModel": host.TorchModel(model_fn=OrchestraModel, backbone=backbone, **SMALL),
    }[kind]
    before = {k: v.clone() for k, v in network.state_dict().items()}
    fl_model = toy.build(devices, model=model)
    fl_model.fit(x, epochs=1)
    alice, bob = (
        host.reveal(w.apply(lambda worker: worker.model)) for w in fl_model.workers.values()
    )
    pointers = [{p.data_ptr() for p in one.parameters()} for one in (alice, bob, network)]
    assert not pointers[0] & pointers[1]
    assert not pointers[2] & (pointers[0] | pointers[1])
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert type(network) is OrchestraModel
    moved = alice.state_dict()["backbone.layer.weight"]
    assert not torch.equal(moved, before["backbone.layer.weight"])
    assert torch.equal(moved, bob.state_dict()["backbone.layer.weight"])


def test_parties_with_one_module_train_as_with_one_each(devices, x):
    def history(model):
        return toy.build(devices, model=model).fit(x, epochs=1)["global_history"]["train_loss"]

    torch.manual_seed(0)
    backbone = Dropping()
    state = backbone.state_dict()

    def each():
        own = Dropping()
        own.load_state_dict(state)
        return OrchestraModel(own, **SMALL)

    def shared():
        Dropping()  # draws what `each` draws
        return OrchestraModel(backbone, **SMALL)

    assert history(shared) == history(each)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: 3, "`model` to return a network .*, got int"),
        ("conv4", "`model` to be a network, a callable .* got 'conv4'"),
        (
            lambda: OrchestraModel(
                nn.Sequential(nn.Flatten(), nn.utils.weight_norm(nn.Linear(64, 16))), 16
            ),
            "that can be copied, got OrchestraModel: .* `torch.nn.utils.parametrizations`",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm`:FutureWarning")
def test_what_is_no_network_is_refused_before_workers_start(devices, model, message):
    with pytest.raises(ModelError, match=message):
        toy.build(devices, model=model)


def test_samples_that_do_not_fit_are_refused_on_the_driver(devices, x):
    rgb = fed_ndarray({d: np.zeros((20, 3, 8, 8), np.uint8) for d in devices})
    model = toy.build(devices)
    calls = (model.fit, model.evaluate, model.predict)
    for call in calls:
        with pytest.raises(DataError, match=r"got 3 in samples .*: use `in_channels=3`"):
            call(rgb)
    model.fit(x, epochs=1)
    wide = OrchestraModel(nn.Flatten(), feature_dim=60, **SMALL)
    with pytest.raises(ModelError, match="got 60: use `feature_dim=64`"):
        toy.build(devices, model=wide).fit(x)


def test_the_hosts_own_class_refuses_them_too(devices):
    rgb = fed_ndarray({d: np.zeros((20, 3, 8, 8), np.uint8) for d in devices})
    with pytest.raises(DataError, match=r"got 3 in samples .*: use `in_channels=3`"):
        fit_plain(plain(devices), rgb)


def test_a_network_without_parts_is_left_to_its_objective():
    party = Plain(lambda: nn.Linear(64, 2), batch_size=8, local_epochs=1)
    party.build_dataset(toy.images("alice"))
    party.train_step(None, 0, 1)
    assert party.get_logs()["train_loss"] > 0
