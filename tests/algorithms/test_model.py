"""Heads by name: which a model gets, and what is said where one is missing."""

import pytest
import torch
from torch import nn

from orchestra_strategy import orchestra_model
from orchestra_strategy.algorithms.heads import HEADS
from orchestra_strategy.algorithms.model import OrchestraModel, parts_of
from orchestra_strategy.errors import ModelError, ParameterError
from tests.algorithms import tiny


def names(model):
    return [name for name, _ in model.named_children()]


def test_a_model_has_the_heads_that_were_asked_for():
    assert names(tiny.model()) == ["backbone", "projector"]
    assert names(tiny.model(("predictor",))) == ["backbone", "projector", "predictor"]
    assert names(orchestra_model("conv4", 1)) == ["backbone", "projector", "degeneracy_head"]
    assert names(OrchestraModel(nn.Identity(), 3))[2:] == ["degeneracy_head"]


def test_initial_weights_do_not_depend_on_the_order_of_names_nor_on_later_heads():
    both = tiny.model(("predictor", "degeneracy_head")).state_dict()
    swapped = tiny.model(("degeneracy_head", "predictor")).state_dict()
    assert list(both) == list(swapped)
    assert all(torch.equal(both[k], swapped[k]) for k in both)
    for name, value in tiny.model(("degeneracy_head",)).state_dict().items():
        assert torch.equal(value, both[name]), name


def test_predictor_shapes():
    model = OrchestraModel(nn.Identity(), 3, hidden_dim=5, projection_dim=7, heads=("predictor",))
    shapes = [tuple(p.shape) for p in model.predictor.parameters()]
    assert shapes == [(5, 7), (5,), (5,), (7, 5), (7,)]  # linear, norm's two, linear with bias
    assert isinstance(model.predictor[1], nn.BatchNorm1d)


def test_group_and_batch_keeps_no_statistics_and_embeds_each_sample_by_itself():
    torch.manual_seed(0)
    model = orchestra_model("conv4", 1, norm="group+batch", heads=tuple(HEADS), num_classes=3)
    assert not list(model.buffers())
    x = torch.rand(6, 1, 8, 8)
    features, z = model.eval().forward_orchestra(x)
    assert torch.allclose(features[:1], model.backbone(x[:1]), atol=1e-5)
    projections = model.projector(features)
    assert torch.allclose(projections.mean(0), torch.zeros(512), atol=1e-5)
    assert torch.allclose(projections.var(0, correction=0), torch.ones(512), atol=1e-2)
    assert not torch.allclose(z[:3], model.forward_orchestra(x[:3])[1], atol=1e-2)


def test_parts_come_in_the_order_asked_for_and_others_are_left_alone():
    model = tiny.model(tuple(HEADS))
    encoder, heads = parts_of(model, ("predictor", "degeneracy_head"))
    assert heads == (model.predictor, model.degeneracy_head)
    assert list(encoder) == [model.backbone, model.projector]
    assert parts_of(model).heads == ()


def test_every_missing_part_is_named_with_the_remedy():
    bare = nn.Module()
    bare.degeneracy_head = nn.Identity()  # there, but not of the kind that is needed
    with pytest.raises(ModelError) as caught:
        parts_of(bare, ("degeneracy_head", "predictor"))
    message = str(caught.value)
    for part in ("`backbone` (f", "`projector` (g", "`degeneracy_head` (r: an nn.L", "`predictor`"):
        assert part in message
    assert "`orchestra_model(..., heads=('degeneracy_head', 'predictor'))`" in message


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        (("predicter",), "got 'predicter'; did you mean `predictor`"),
        ("predictor", r"a tuple of names, got 'predictor'; write `\('predictor',\)`"),
    ],
)
def test_unknown_heads_are_refused(heads, message):
    with pytest.raises(ParameterError, match=message):
        orchestra_model("conv4", 1, heads=heads)
