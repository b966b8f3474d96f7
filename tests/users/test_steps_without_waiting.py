"""Local steps never wait for a GPU, and what they send there is not waited for.

The device ``meta`` has shapes and no values: whatever needs one at the host, such as ``item()``, an
``if`` on a tensor, or a copy to the CPU, fails on it. A GPU is not needed.
"""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from orchestra_strategy.algorithms.memory import ProjectionMemory
from orchestra_strategy.algorithms.model import OrchestraModel
from orchestra_strategy.algorithms.orchestra_targets import mean_similarity
from orchestra_strategy.data.augmentation.views import build_views
from orchestra_strategy.privacy.per_example.clipper import PerExampleClipper
from orchestra_strategy.strategies.registry import lookup_strategy
from orchestra_strategy.users import UserMultiStep, UserSingleStep
from orchestra_strategy.users.user_batches import as_batch
from tests.algorithms import tiny
from tests.strategies.test_baselines import EVERY, party

COLOUR, TABLE = torch.zeros(6, 3, 8, 8, dtype=torch.uint8), torch.zeros(6, 7)
POINTS = [
    *((strategy, COLOUR, "colour", {}) for strategy in EVERY),
    ("fed_masked", TABLE, "table", {"one_hot": [[0, 2], [3, 4]]}),
    ("orchestra_plus", torch.zeros(6, 1, 8, 8), "grey", {}),
    ("orchestra_plus", TABLE, "table", {"one_hot": [[0, 2], [3, 4]]}),
    ("orchestra_plus", TABLE, "table", {"one_hot": [[0, 2]], "replacement": "marginals"}),
]


class CopiesMode(TorchDispatchMode):
    """Refuses copies from the host that are waited for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and args[0].device.type == "cpu":
            leaves = kwargs.get("device", args[0].device).type != "cpu"
            assert not leaves or kwargs.get("non_blocking"), "a copy that is waited for"
        return func(*args, **kwargs)


@pytest.fixture(autouse=True)
def _no_numbers_of_python(monkeypatch):
    """A tensor made of Python's numbers is copied with waiting; `constant` makes each but once."""

    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("a tensor is made of Python's numbers")

    monkeypatch.setattr(torch.Tensor, "new_tensor", refused)


SETUP = {"device": torch.device("meta"), "dtype": torch.float32}


def trained_on_meta(strategy, samples=COLOUR, views="colour", norm="batch", **options):
    """Return a model on meta, its objective and a batch of samples, which lies on the CPU."""
    width = samples[0].numel()
    body = nn.Sequential(nn.Flatten(), nn.Linear(width, 8), nn.ReLU())
    decoded = width if views == "table" else 64 * samples.shape[1]
    sizes = {"hidden_dim": 16, "projection_dim": 16, "num_classes": 3, "decoded_values": decoded}
    heads = lookup_strategy(strategy).heads
    own = party(strategy)
    own.model = OrchestraModel(body, 8, heads=heads, norm=norm, **sizes).to("meta").train()
    own.views = lambda: build_views(views, **options)
    objective = own.make_objective()
    objective.centroids = torch.zeros(4, 16, device="meta")
    ids = torch.arange(len(samples))
    return own.model, objective, {"inputs": samples, "ids": ids, "labels": ids % 3}


@pytest.mark.parametrize(("strategy", "samples", "views", "options"), POINTS)
def test_two_steps_wait_for_nothing(strategy, samples, views, options):
    model, objective, batch = trained_on_meta(strategy, samples, views, **options)
    cfg = SimpleNamespace(local_learning_rate=0.1)
    user = UserMultiStep(model, objective, None, SETUP, 0, cfg, batches=lambda: [batch] * 2)
    user.model.train()
    with CopiesMode():
        log = user._run_steps(objective, None, 0)
    assert len(log.losses) == 2
    assert all(loss.total.is_meta for loss in log.losses)


@pytest.mark.parametrize("strategy", EVERY)
def test_a_single_gradient_waits_for_nothing(strategy):
    model, objective, batch = trained_on_meta(strategy)
    cfg = SimpleNamespace(num_data_points=6)
    # Exact statistics are BatchNorm's `momentum=None`, for which torch itself asks a counter.
    user = UserSingleStep(model, objective, None, SETUP, 0, cfg, exact_statistics=False)
    user.model.train()
    with CopiesMode():
        gradients, loss = user._one_gradient(objective, as_batch(batch, SETUP), 0)
    assert all(g.is_meta for g in (*gradients, loss.total))


# What vmap can do on meta; of the others it takes a number of Python's for a tensor there.
@pytest.mark.parametrize("strategy", ["fed_masked", "fed_rotpred", "fed_supervised"])
def test_clipping_by_example_waits_for_nothing(strategy, caplog):
    model, objective, batch = trained_on_meta(strategy, norm="group")
    clip = PerExampleClipper(model, clip_norm=1.0, chunk_size=4)
    with CopiesMode():
        gradients, loss = clip(objective, as_batch(batch, SETUP))
    assert not caplog.records  # it did not turn to the loop
    assert all(g.is_meta for g in (*gradients, loss.total))


def test_a_mean_over_places_of_which_some_are_free_is_that_of_the_others(monkeypatch):
    """What a GPU does, with a CPU's values: rows of 0 do not count, a sample's newest stays."""
    on_cpu, elsewhere = ProjectionMemory(5, 2), ProjectionMemory(5, 2)
    monkeypatch.setattr(elsewhere, "device", SimpleNamespace(type="cuda"))
    monkeypatch.setattr("orchestra_strategy.algorithms.memory.sent_to", lambda t, *_: t)
    rows = tiny.unit(9, 2, 0)
    rows[4] = torch.nan
    for first, ids in ((0, [1, 2, 1]), (3, [2, 3, 4]), (6, [5, 6, 7])):
        for memory in (on_cpu, elsewhere):
            memory.append(rows[first : first + 3], torch.tensor(ids))
        assert elsewhere.ids.tolist() == on_cpu.ids.tolist()
        assert torch.equal(elsewhere.rows, on_cpu.rows)
        places, held = elsewhere.places()
        C = tiny.unit(3, 2, 1)
        held = SimpleNamespace(device=torch.device("cuda"), sum=held.sum)
        torch.testing.assert_close(
            mean_similarity("memory", C, places, held),
            mean_similarity("memory", C, *on_cpu.places()),
        )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_memory_is_where_its_rows_are_made():
    memory = ProjectionMemory(4, 2, "cuda")
    memory.append(torch.ones(3, 2, device="cuda"), torch.arange(3))
    assert memory.rows.is_cuda
    assert memory.state_dict()["rows"].device.type == "cpu"
