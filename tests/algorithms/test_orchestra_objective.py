import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from orchestra_strategy.algorithms.clustering import random_unit_rows
from orchestra_strategy.algorithms.ema import ema_update, frozen_statistics
from orchestra_strategy.algorithms.memory import ProjectionMemory
from orchestra_strategy.algorithms.model import OrchestraModel, orchestra_model
from orchestra_strategy.algorithms.orchestra_objective import (
    OrchestraObjective,
    OrchestraSettings,
    cluster_loss,
    orchestra_loss,
)
from orchestra_strategy.errors import ModelError, OrchestraError, ParameterError
from orchestra_strategy.privacy import per_example_clipped_mean
from tests.reference import orchestra as slow


def three_views(x, generator):
    a = torch.randint(4, (len(x),), generator=generator)
    noise = torch.randn(3, *x.shape, generator=generator)
    x3 = torch.stack([torch.rot90(img, int(k), (1, 2)) for img, k in zip(x, a)])
    return x + noise[0], x + noise[1], x3 + noise[2], a


def unit(n, d, seed):
    return random_unit_rows(n, d, torch.Generator().manual_seed(seed))


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return orchestra_model("conv4", in_channels=1, hidden_dim=16, projection_dim=16)


@pytest.fixture
def objective(model):
    settings = OrchestraSettings(memory_size=12)
    objective = OrchestraObjective(model, three_views, settings, torch.Generator().manual_seed(1))
    objective.centroids = unit(4, 16, 3)
    return objective


@pytest.fixture
def batch():
    x = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    return {"inputs": x, "ids": torch.arange(8)}


def test_loss_equals_the_slow_version():
    z2, tz1, C = unit(5, 6, 1), unit(5, 6, 2), unit(3, 6, 3)
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(4))
    rotation = torch.tensor([0, 1, 2, 3, 1])
    settings = OrchestraSettings(temperature=0.3, deg_weight=0.7)
    got = orchestra_loss(z2, tz1, C, logits, rotation, settings)
    cluster, degeneracy, total = slow.orchestra_loss(
        *(t.tolist() for t in (z2, tz1, C, logits, rotation)), 0.3, 0.7
    )
    assert got.parts["cluster"].item() == pytest.approx(cluster, abs=1e-5)
    assert got.parts["degeneracy"].item() == pytest.approx(degeneracy, abs=1e-5)
    assert got.total.item() == pytest.approx(total, abs=1e-5)


def test_loss_is_finite_where_log_of_softmax_is_not():
    # exp(-200) is 0 in float32: log(softmax) gives -inf and 0 * -inf = NaN.
    loss = cluster_loss(torch.eye(2), torch.eye(2).flip(0), torch.eye(2), temperature=0.005)
    assert loss.item() == pytest.approx(200.0)


def test_gradient_reaches_the_online_network_only():
    z2, tz1, C = (unit(4, 6, s).requires_grad_() for s in (1, 2, 3))
    cluster_loss(z2, tz1, C, 0.1).backward()
    assert z2.grad.abs().sum() > 0
    assert tz1.grad is None
    assert C.grad is None


def test_gradient_of_a_step(model, objective, batch):
    objective(model, batch).total.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert all(p.grad is None for p in objective.target.parameters())


def test_one_ema_step_by_hand():
    target, online = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.constant_(target.weight, 2.0)
    nn.init.constant_(online.weight, 4.0)
    ema_update(target, online, tau=0.75)
    assert target.weight.item() == 0.75 * 2 + 0.25 * 4
    assert online.weight.item() == 4.0


def test_target_moves_before_its_forward_pass(model, objective, batch):
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1)
    want = [
        0.996 * t + 0.004 * o
        for t, o in zip(
            copy.deepcopy(objective.target).parameters(),
            [*model.backbone.parameters(), *model.projector.parameters()],
        )
    ]
    after = copy.deepcopy(objective.target)
    ema_update(after, nn.Sequential(model.backbone, model.projector), 0.996)
    generator = copy.deepcopy(objective.generator)
    g = torch.Generator()
    g.set_state(generator.get_state())
    x1 = three_views(batch["inputs"], g)[0]
    after.train()
    projections = F.normalize(after(x1), dim=1)
    objective(model, batch)
    for t, w in zip(objective.target.parameters(), want):
        assert torch.allclose(t, w, atol=1e-6)
    assert torch.allclose(objective.memory.rows, projections, atol=1e-6)


def test_memory_is_first_in_first_out_of_distinct_samples(model, objective, batch):
    objective(model, batch)
    objective(model, {**batch, "ids": torch.arange(4, 12)})
    assert objective.memory.ids.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    objective(model, {**batch, "ids": torch.arange(20, 28)})
    assert objective.memory.ids.tolist() == [8, 9, 10, 11, *range(20, 28)]
    assert torch.allclose(objective.memory.rows.norm(dim=1), torch.ones(12), atol=1e-5)


def test_per_example_clipping_moves_the_state_once_and_is_the_gradient_where_it_clips_nothing(
    batch,
):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        group = orchestra_model("conv4", 1, norm="group", hidden_dim=16, projection_dim=16)
    objectives = []
    for _ in range(2):
        settings = OrchestraSettings(memory_size=12)
        generator = torch.Generator().manual_seed(1)
        objectives.append(OrchestraObjective(group, three_views, settings, generator))
        objectives[-1].centroids = unit(4, 16, 3)
    plain, clipped = objectives
    plain(group, batch).total.backward()
    got = per_example_clipped_mean(clipped, group, batch, clip_norm=1e6)
    for p, gradient in zip(group.parameters(), got.gradients):
        assert torch.allclose(p.grad, gradient, atol=1e-5)
    assert torch.equal(plain.memory.rows, clipped.memory.rows)
    for a, b in zip(plain.target.parameters(), clipped.target.parameters()):
        assert torch.equal(a, b)


def test_round_0_moves_no_statistics_and_no_weights(objective, batch):
    before = copy.deepcopy(objective.target.state_dict())
    objective.fill_memory([batch])
    assert len(objective.memory) == 8
    for name, value in objective.target.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_frozen_statistics_gives_modes_back_after_an_error():
    norm = nn.BatchNorm1d(2).eval()
    norm(torch.randn(4, 2))
    with pytest.raises(ValueError, match="more than 1 value"), frozen_statistics(norm):
        norm(torch.randn(1, 2))
    assert not norm.training
    assert norm.num_batches_tracked == 0
    assert norm.running_mean.tolist() == [0, 0]


def test_state_survives_bit_for_bit(model, objective, batch):
    objective(model, batch)
    other = OrchestraObjective(model, three_views, objective.settings, torch.Generator())
    other.load_state_dict(objective.state_dict())
    objective.generator.manual_seed(9)
    other.generator.manual_seed(9)
    online = copy.deepcopy(model)
    assert torch.equal(objective(model, batch).total, other(online, batch).total)
    assert torch.equal(objective.memory.rows, other.memory.rows)


def test_a_step_without_centroids_is_refused(model, objective, batch):
    objective.centroids = None
    with pytest.raises(OrchestraError, match="round 0"):
        objective(model, batch)


def test_a_model_without_heads_is_refused():
    bare = nn.Module()
    bare.backbone = nn.Linear(2, 2)
    with pytest.raises(ModelError, match=r"without `projector` .*, `degeneracy_head`"):
        OrchestraObjective(bare, three_views, OrchestraSettings(), torch.Generator())


def test_forward_orchestra_shapes(model):
    features, projections = model.forward_orchestra(torch.zeros(3, 1, 8, 8))
    assert features.shape == (3, 512)
    assert projections.shape == (3, 16)
    assert torch.equal(features, model(torch.full((3, 1, 8, 8), 0.5)))  # samples: 0 is grey


def test_a_backbone_of_unknown_width_is_refused():
    with pytest.raises(ModelError, match="`feature_dim`"):
        OrchestraModel(nn.Linear(2, 3))
    assert OrchestraModel(nn.Linear(2, 3), feature_dim=3).projector[0].in_features == 3


def test_copies_of_a_sample_in_a_batch_are_one_row():
    memory = ProjectionMemory(4, 1)
    memory.append(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([7, 5, 7]))
    assert memory.ids.tolist() == [5, 7]
    assert memory.rows.flatten().tolist() == [2.0, 3.0]  # the later one replaces the earlier


def test_memory_refuses_wrong_shapes():
    memory = ProjectionMemory(4, 2)
    with pytest.raises(ParameterError, match=r"`rows` to be \(1, 2\), got \(1, 3\)"):
        memory.append(torch.zeros(1, 3), torch.tensor([0]))
    with pytest.raises(ParameterError, match=r"at most \(4, 2\), got \(5, 2\)"):
        memory.load_state_dict({"rows": torch.zeros(5, 2), "ids": torch.arange(5)})
    with pytest.raises(ParameterError, match="`memory_size` to be at least 1"):
        ProjectionMemory(0, 2)
