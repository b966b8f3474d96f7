"""What ``orchestra_advanced`` adds to Orchestra: the L2 term, and the quality of clusters."""

import numpy as np
import pytest
import torch

from orchestra_strategy import OrchestraAdvancedStrategy, OrchestraStrategy, server_aggregation
from orchestra_strategy.algorithms.clustering import compactness
from orchestra_strategy.algorithms.objective import l2_penalty
from orchestra_strategy.threads import torch_threads
from tests.federated import toy


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with torch_threads(1):
        yield


def party(cls=OrchestraAdvancedStrategy, name="alice", **kwargs):
    made = cls(toy.MODEL, random_seed=7, party=name, **{**toy.PARAMETERS, **kwargs})
    made.build_dataset(toy.images(name))
    server = server_aggregation(num_global_clusters=4, aggregation=made.config.aggregation)
    made.apply_weights(server([made.get_weights()])[0])
    return made


def test_without_l2_the_steps_are_orchestras():
    ours, plain = party(l2_weight=0.0), party(OrchestraStrategy)
    for each in (ours, plain):
        each.train_step(None, 0, 1)
    for name, value in plain.model.state_dict().items():
        assert torch.equal(ours.model.state_dict()[name], value), name


def test_l2_takes_part_in_the_gradient():
    """Momentum aside, it adds 2 * l2_weight * w to the gradient of every weight w."""
    alice = party(l2_weight=0.25)
    batch = alice.privacy.next_batch(0)
    state = alice.objective.state_dict()
    gradients = []
    for weight in (0.0, 0.25):
        alice.configure({"l2_weight": weight})
        alice.objective.load_state_dict(state)
        alice.objective.generator = alice.stream("views")
        loss = alice.loss_terms(alice.model, batch)
        gradients.append(torch.autograd.grad(loss.total, list(alice.model.parameters())))
    assert loss.parts["l2"].item() == pytest.approx(0.25 * l2_penalty(alice.model).item())
    for p, without, with_l2 in zip(alice.model.parameters(), *gradients):
        assert torch.allclose(with_l2 - without, 2 * 0.25 * p, atol=1e-4)


def test_l2_makes_smaller_weights():
    sizes = []
    for weight in (0.0, 0.1):
        alice = party(l2_weight=weight)
        alice.train_step(None, 0, 1)
        sizes.append(l2_penalty(alice.model).item())
    assert sizes[1] < 0.95 * sizes[0]


@pytest.mark.parametrize("user_type", ["local_gradient", "local_update"])
def test_quality_is_the_compactness_of_the_memory_and_is_in_the_manifest(user_type):
    alice = party(user_type=user_type)
    wire, _ = alice.train_step(None, 0, 1)
    quality = wire["arrays"]["quality"]
    clusters = alice.method.centroids.by_user[-1]
    want = compactness(alice.objective.memory.rows, clusters.centroids)
    assert quality.dtype == np.float32
    assert quality.shape == (1,)
    assert quality[0] == pytest.approx(want)
    assert 0 < want < 1
    (entry,) = [row for row in alice.manifest_rows() if row["name"] == "quality"]
    assert entry["combine"] == "factor of the weight"
    assert entry["bytes"] == 4
    assert "quality" not in [e.name for e in alice.returned_entries()]


def test_quality_of_virtual_users_is_their_mean_by_memory_rows():
    alice = party(user_type="multiuser_aggregate", num_virtual_users=4)  # of 11, 10, 10, 10
    wire, _ = alice.train_step(None, 0, 1)
    rows = [alice.method.store.load(user)["rows"] for user in range(4)]
    each = [compactness(z, c.centroids) for z, c in zip(rows, alice.method.centroids.by_user)]
    want = sum(q * len(z) for q, z in zip(each, rows)) / sum(len(z) for z in rows)
    assert wire["arrays"]["quality"][0] == pytest.approx(want, abs=1e-6)
    assert len({len(z) for z in rows}) == 2


def test_before_any_clustering_the_quality_is_0():
    alice = OrchestraAdvancedStrategy(toy.MODEL, random_seed=7, **toy.PARAMETERS)
    assert alice.method.arrays()["quality"].tolist() == [0.0]
