import pytest
import torch
import torch.nn.functional as F

from orchestra_strategy.algorithms import global_clustering as module
from orchestra_strategy.algorithms.clustering import random_unit_rows
from orchestra_strategy.algorithms.global_clustering import global_clustering
from orchestra_strategy.algorithms.sinkhorn import sinkhorn
from orchestra_strategy.errors import ParameterError
from tests.reference import orchestra as slow


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def unit_rows(n, d, seed=0):
    return random_unit_rows(n, d, generator(seed))


def groups_of_rows(n, d, groups, seed=0):
    """Rows around ``groups`` directions of their own."""
    centres = unit_rows(groups, d, seed)
    return F.normalize(centres.repeat(n // groups, 1) + 0.5 * unit_rows(n, d, seed + 1), dim=1)


def loss_of(Z, C, temperature):
    """The published objective, its balanced assignment solved in full."""
    S = Z @ C.T
    A = sinkhorn(S, max_iters=1000)
    return -float(F.cosine_similarity(A, torch.softmax(S / temperature, dim=1), dim=1).mean())


def published(Z, C, temperature, steps=500):
    """The published way to minimise it: a constant small rate, every assignment solved anew."""
    C = C.clone().requires_grad_(True)
    optimizer = torch.optim.SGD([C], lr=0.01, momentum=0.9, weight_decay=1e-4)
    for _ in range(steps):
        S = Z @ C.T
        A = sinkhorn(S)
        loss = -F.cosine_similarity(A, torch.softmax(S / temperature, dim=1), dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            C.copy_(F.normalize(C, dim=1))
    return C.detach()


def test_equals_the_slow_version_where_every_assignment_is_solved_in_full():
    # Cosines close to each other: the more they differ, the longer takes a full solution.
    Z = F.normalize(torch.ones(4, 3) + 0.2 * unit_rows(4, 3, seed=1), dim=1).double()
    C = F.normalize(torch.ones(2, 3) + 0.2 * unit_rows(2, 3, seed=2), dim=1).double()
    want, want_loss = slow.global_clustering(Z.tolist(), C.tolist(), temperature=0.5, steps=5)
    got = global_clustering(
        Z, C, temperature=0.5, generator=generator(), max_steps=5, balancing=2000
    )
    assert torch.allclose(got.centroids, torch.tensor(want).double(), atol=1e-5)
    assert got.loss == pytest.approx(want_loss, abs=1e-5)
    assert (got.steps, got.converged) == (5, False)


def test_its_gradient_is_autograds():
    S = (unit_rows(6, 5) @ unit_rows(4, 5, seed=1).T).requires_grad_(True)
    A = sinkhorn(S.detach())
    loss = -F.cosine_similarity(A, torch.softmax(S / 0.2, dim=1), dim=1).mean()
    loss.backward()
    got_loss, got = module._loss_and_gradient(S.detach(), A, 0.2)
    assert got_loss == pytest.approx(loss.item(), abs=1e-6)
    assert torch.allclose(got, S.grad, atol=1e-6)


@pytest.mark.parametrize("size", [120, 600])  # at once, and by mini-batches
def test_the_loss_is_not_above_the_published_way_from_a_random_and_from_a_warm_start(size):
    Z, start = groups_of_rows(size, 16, groups=12), unit_rows(12, 16, seed=9)
    moved = F.normalize(Z + 0.3 * unit_rows(size, 16, seed=8), dim=1)
    want = published(Z, start, 0.1)
    got = global_clustering(Z, start, temperature=0.1, generator=generator())
    assert got.steps <= 100
    assert loss_of(Z, got.centroids, 0.1) <= 0.99 * loss_of(Z, want, 0.1)
    warm = global_clustering(moved, got.centroids, temperature=0.1, generator=generator())
    assert loss_of(moved, warm.centroids, 0.1) <= 0.99 * loss_of(
        moved, published(moved, want, 0.1), 0.1
    )


def test_finds_separated_groups():
    groups = torch.eye(4).repeat_interleave(8, dim=0)
    Z = F.normalize(groups + 0.02 * torch.randn(32, 4, generator=generator()), dim=1)
    C = F.normalize(torch.eye(4) + 0.5 * torch.rand(4, 4, generator=generator()), dim=1)
    got = global_clustering(Z, C, temperature=0.1, generator=generator())
    assert torch.equal((Z @ got.centroids.T).argmax(dim=1), torch.arange(4).repeat_interleave(8))
    assert torch.allclose(got.centroids.norm(dim=1), torch.ones(4), atol=1e-6)


def test_every_row_is_drawn_once_before_any_is_drawn_again():
    batches = module._Batches(torch.arange(10.0)[:, None], 4, generator())
    drawn = torch.cat([batches.draw() for _ in range(5)]).flatten().tolist()
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))
    assert drawn[:10] != drawn[10:]


def test_few_rows_leave_the_generator_alone_and_many_follow_it():
    stream = generator()
    global_clustering(unit_rows(8, 4), unit_rows(2, 4), temperature=0.1, generator=stream)
    assert torch.equal(stream.get_state(), generator().get_state())
    Z, C = unit_rows(40, 4), unit_rows(3, 4, seed=1)
    runs = [
        global_clustering(Z, C, temperature=0.1, generator=generator(seed), batch_size=16).centroids
        for seed in (1, 1, 2)
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_stops_when_the_centroids_stand_still_and_says_so():
    C = torch.eye(3)
    got = global_clustering(C.repeat(4, 1), C, temperature=0.1, generator=generator())
    assert got.converged
    assert got.steps == 20
    kept = global_clustering(C.repeat(4, 1), C, temperature=0.1, generator=generator(), tol=0)
    assert (kept.steps, kept.converged) == (100, False)


@pytest.mark.parametrize(("rows", "steps"), [(32, 10), (72, 23)])
def test_many_rows_have_steps_in_proportion(rows, steps):
    """32 rows are 8 batches of 4; 72 rows have 72 / 32 times the steps, rounded up."""
    Z, C = unit_rows(rows, 4), unit_rows(3, 4, seed=1)
    few = {"generator": generator(), "batch_size": 4, "max_steps": 10, "tol": 0}
    assert global_clustering(Z, C, temperature=0.1, **few).steps == steps


def test_does_not_stop_on_the_plateau_of_a_random_start():
    Z, C = unit_rows(40, 32, seed=1), unit_rows(32, 32, seed=2)
    got = global_clustering(Z, C, temperature=0.1, generator=generator())
    assert got.steps > 40
    assert got.loss < -0.9


def test_leaves_its_inputs_alone():
    Z, C = unit_rows(4, 3, seed=1), unit_rows(2, 3, seed=2)
    before = Z.clone(), C.clone()
    global_clustering(Z, C, temperature=0.1, generator=generator(), max_steps=3)
    assert torch.equal(Z, before[0])
    assert torch.equal(C, before[1])


def test_refuses_temperature_0():
    with pytest.raises(ParameterError, match="`temperature` to be greater than 0, got 0"):
        global_clustering(torch.eye(2), torch.eye(2), temperature=0, generator=generator())
