"""The span attack: its parts by hand, and that it finds images, and does not under noise."""

import pytest
import torch
from torch import nn

from orchestra_strategy.algorithms.model import orchestra_model
from orchestra_strategy.audit.attacks.span import (
    feature_layer,
    row_space,
    span_attack,
    use_batch_statistics,
)
from orchestra_strategy.audit.audited_party import Row
from orchestra_strategy.errors import ModelError
from orchestra_strategy.rng import torch_generator
from tests.audit.parties import attacked, config_of, split

WIDE = {
    "hidden_dim": 64,
    "projection_dim": 32,
    "attack_steps": 200,
    "members": 32,
    "attacks": ["span"],
}
ROWS = [
    *(Row(kind, {}) for kind in ("local_gradient", "local_update", "multiuser_aggregate")),
]


def scores_of(row, strategy="fed_rotpred"):
    config = config_of(strategy, **WIDE)
    return attacked(config, row, split(config, 64), 0).leakage


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.user_type)
def test_an_undefended_reply_gives_the_views_away(row):
    scores = scores_of(row)
    assert scores.above_control > 5
    # The weights have moved when the second of two steps sends its features.
    assert scores.leaked >= (2 if row.user_type == "local_update" else 3)


def test_a_contrastive_loss_gives_its_views_away_too():
    assert scores_of(ROWS[0], "fed_simclr").leaked >= 3


@pytest.mark.parametrize("unit", ["record", "user"])
def test_the_noise_of_differential_privacy_leaves_nothing(unit):
    scores = scores_of(Row("local_update", {"privacy": unit, "noise_multiplier": 1.0}))
    assert scores.leaked == 0
    assert scores.above_control < 0


def test_hardly_any_noise_hides_nothing():
    weak = {"privacy": "record", "noise_multiplier": 1e-6}
    assert scores_of(Row("local_gradient", weak)).leaked >= 3


def test_the_features_of_a_batch_lie_in_the_row_space():
    inputs = torch.randn(3, 10, generator=torch.Generator().manual_seed(0))
    layer = nn.Linear(10, 6, bias=False)
    layer(inputs).square().mean().backward()
    basis = row_space(layer.weight.grad, 5)
    assert len(basis) == 3  # of 5 asked for: the other directions are rounding errors
    torch.testing.assert_close(basis @ basis.T, torch.eye(3), atol=1e-5, rtol=0)
    inside = inputs @ basis.T
    torch.testing.assert_close(inside.square().sum(1), inputs.square().sum(1), rtol=1e-4, atol=0)


def test_the_feature_layer_is_the_first_linear_one_behind_the_backbone():
    class Net(nn.Module):
        def __init__(self, *heads):
            super().__init__()
            self.backbone = nn.Sequential(nn.Linear(2, 2))
            self.heads = nn.Sequential(nn.ReLU(), *heads)

    assert feature_layer(Net(nn.Linear(2, 2))) == "heads.1.weight"
    with pytest.raises(ModelError, match="to have a linear layer after its `backbone`, got Net"):
        feature_layer(Net())


def network(seed, norm="group"):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return orchestra_model("conv4", 1, norm, hidden_dim=16, projection_dim=16)


def test_the_attack_reads_the_payload_and_leaves_the_model_alone():
    models = [network(0), network(1)]
    payload = {"parameters": [p.detach().clone() for p in models[0].parameters()]}
    before = [p.clone() for p in models[1].parameters()]
    gradient = [torch.ones_like(p) for p in payload["parameters"]]
    found = [
        span_attack(m, payload, gradient, 2, (1, 8, 8), 2, torch_generator(0, "s", 0, "a"))
        for m in models
    ]
    assert torch.equal(*found)
    assert all(torch.equal(a, b) for a, b in zip(before, models[1].parameters()))


def test_buffers_tell_the_batchs_own_statistics():
    server, user = (nn.Sequential(nn.BatchNorm1d(3)) for _ in range(2))
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)) * 2 + 1
    for _ in range(2):
        user(x)
    use_batch_statistics(server, list(user.buffers()))
    torch.testing.assert_close(server[0].running_mean, x.mean(0))
    torch.testing.assert_close(server[0].running_var, x.var(0))
    assert not server[0].training


def test_with_batchnorm_the_attack_gives_finite_images():
    config = config_of("fed_rotpred", norm="batch", attack_steps=5, attacks=["span"])
    reply = attacked(config, ROWS[0], split(config), 0)
    assert reply.found.isfinite().all()
