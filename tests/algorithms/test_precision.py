"""Local steps in bfloat16: near float32, with float32 around the networks."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from orchestra_strategy import OrchestraStrategy
from orchestra_strategy.algorithms import precision
from orchestra_strategy.algorithms.orchestra_objective import cluster_loss
from orchestra_strategy.algorithms.simclr import nt_xent
from orchestra_strategy.errors import ParameterError
from tests.federated import toy
from tests.party.test_party_by_hand import exchange


def trained(name="alice", **parameters):
    strategy = OrchestraStrategy(
        toy.MODEL, random_seed=7, party=name, **{**toy.PARAMETERS, **parameters}
    )
    strategy.build_dataset(toy.images(name))
    exchange([strategy], [strategy.get_weights()])
    start = {n: p.detach().clone() for n, p in strategy.model.named_parameters()}
    wire, _ = strategy.train_step(None, 0, 1)
    moved = [p.detach() - start[n] for n, p in strategy.model.named_parameters()]
    return strategy, wire, torch.cat([m.ravel() for m in moved])


def test_fp32_is_the_default_and_changes_no_bit():
    _, _, plain = trained()
    _, _, told = trained(precision="fp32")
    assert torch.equal(plain, told)


def test_a_step_in_bf16_is_near_one_in_fp32_and_another():
    """One step: rounding of three digits grows from step to step, here soon beyond any bound."""
    one_step = {"batch_size": 64, "local_epochs": 1}
    full, _, exact = trained(**one_step)
    short, wire, rounded = trained(**one_step, precision="bf16")
    assert 0 < (rounded - exact).norm() < 0.25 * exact.norm()
    assert {p.dtype for p in short.model.parameters()} == {torch.float32}
    assert {a.dtype for a in wire["arrays"].values()} == {np.dtype(np.float32)}
    assert short.objective.memory.rows.dtype == torch.float32
    losses = [s.user_type.user.loss_means["total"] for s in (full, short)]
    print(losses)
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


@pytest.mark.parametrize("loss", [cluster_loss, nt_xent])
def test_losses_are_those_of_float32(loss):
    generator = torch.Generator().manual_seed(0)
    z1, z2, C = (F.normalize(torch.randn(8, 16, generator=generator), dim=1) for _ in range(3))
    rest = (C, 0.1) if loss is cluster_loss else (0.1,)
    want = loss(z1, z2, *rest)
    with precision.computing_in("bf16", "cpu"):
        got = loss(z1, z2, *rest)
        short = loss(z1.bfloat16(), z2.bfloat16(), *rest)
    assert torch.equal(got, want)
    assert short.dtype == torch.float32


def test_networks_compute_in_bf16():
    x = torch.randn(2, 4)
    with precision.computing_in("bf16", "cpu"):
        assert torch.nn.Linear(4, 4)(x).dtype == torch.bfloat16
    with precision.computing_in("fp32", "cpu"):
        assert torch.nn.Linear(4, 4)(x).dtype == torch.float32


def test_emulation_is_told_once(monkeypatch, caplog):
    monkeypatch.setattr(precision, "has_bf16", lambda kind: False)
    precision._tell_once.cache_clear()
    for _ in range(2):
        precision.computing_in("bf16", "cpu")
    assert [r.message.count("emulated") for r in caplog.records] == [1]
    monkeypatch.undo()
    precision._tell_once.cache_clear()


def test_per_example_clipping_wants_float32():
    private = {"privacy": "record", "noise_multiplier": 1.0, "clip_norm": 1.0}
    with pytest.raises(ParameterError, match="`precision` to be 'fp32' with privacy='record'"):
        OrchestraStrategy(toy.MODEL, **toy.PARAMETERS, **private, precision="bf16")
    with pytest.raises(ParameterError, match="`precision`"):
        OrchestraStrategy(toy.MODEL, **toy.PARAMETERS, precision="half")
