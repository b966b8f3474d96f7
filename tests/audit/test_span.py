"""The span attack: its parts by hand, and that it finds images, and does not under noise."""


import pytest
import torch
from torch import nn

from orchestra_strategy.audit.objectives import Subject
from orchestra_strategy.audit.parts import RecordedViews
from orchestra_strategy.audit.party import Split, audited_user
from orchestra_strategy.audit.scores import leakage
from orchestra_strategy.audit.settings import parse_audit
from orchestra_strategy.audit.span import feature_layer, row_space, span_attack
from orchestra_strategy.data.views import build_views
from orchestra_strategy.errors import ModelError
from orchestra_strategy.privacy.local import LocalPrivacy
from orchestra_strategy.rng import torch_generator
from orchestra_strategy.threads import torch_threads
from tests.algorithms.tiny import images

VIEWS = build_views("grey")


def attacked(privacy, strategy="fed_rotpred", steps=150):
    """Scores of the attack on one gradient of 4 blobs."""
    audited = Subject(strategy, VIEWS, hidden_dim=32, projection_dim=32)
    model, views = audited.build_model(1, 0), RecordedViews(VIEWS)
    blobs = images(64).unsqueeze(1)
    split = Split(blobs[:32], blobs[32:], None, None)
    objective = audited.party_objective(model, views, split.members, torch_generator(0, "p", 0, "v"))
    views.drawn.clear()
    config = parse_audit({"strategy": strategy})
    user = audited_user("local_gradient", model, objective, split, config, privacy)
    payload = {"parameters": [p.detach().clone() for p in model.parameters()], "buffers": None}
    shared, _ = user.compute_local_updates(payload)
    truth = views.images((2,))
    with torch_threads(1):
        found = span_attack(
            *(model, payload, shared["gradients"], 4, (1, 8, 8), steps),
            torch_generator(0, "server", 0, "span"),
            starts=16,
        )
    assert found.shape == (4, 1, 8, 8)
    assert 0 <= found.min() <= found.max() <= 1
    others = RecordedViews(VIEWS)
    others(split.others, torch_generator(0, "auditor", 0, "views"))
    return leakage(found, truth, others.images((2,)), torch_generator(0, "auditor", 0, "g"))[0]


def test_an_undefended_gradient_gives_the_views_away():
    scores = attacked(LocalPrivacy())
    assert scores.above_control > 5
    assert scores.leaked >= 3


def test_strong_noise_leaves_nothing():
    noise = LocalPrivacy(per_example_clipping=1.0, gradient_noise=0.25)
    scores = attacked(noise)
    assert scores.leaked == 0
    assert scores.above_control < 1


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


def test_the_attack_reads_the_payload_and_not_the_models_weights():
    audited = Subject("fed_rotpred", VIEWS, hidden_dim=16, projection_dim=16)
    other = Subject("fed_rotpred", VIEWS, hidden_dim=16, projection_dim=16, seed=1)
    models = [audited.build_model(1, 0), other.build_model(1, 0)]
    payload = {"parameters": [p.detach().clone() for p in models[0].parameters()]}
    gradient = [torch.ones_like(p) for p in payload["parameters"]]
    found = [
        span_attack(m, payload, gradient, 2, (1, 8, 8), 2, torch_generator(0, "s", 0, "a"))
        for m in models
    ]
    assert torch.equal(*found)
