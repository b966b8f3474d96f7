"""What is found once is what walking through the model finds each time."""

import pytest
import torch
from torch import nn

from orchestra_strategy.users.model_parts import ModelParts


class Counting(nn.Module):
    """Replaces its buffer, has an empty one, and keeps its norm in eval mode while it trains."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("nothing", None)
        self.norm = nn.BatchNorm1d(3)
        self.trained = 0

    def forward(self, x):
        self.count = self.count + 1
        return self.norm(x)

    def train(self, mode=True):
        super().train(mode)
        self.norm.train(False)
        self.trained += 1
        return self


def model():
    first, tied = Counting(), nn.BatchNorm1d(3)
    last = nn.BatchNorm1d(3)
    last.running_mean = tied.running_mean
    return nn.Sequential(first, nn.Linear(3, 3), tied, last, tied)


def same(found, walked):
    return [id(t) for t in found] == [id(t) for t in walked]


def test_parameters_and_buffers_are_the_models_in_its_order():
    walked = model()
    parts = ModelParts(walked)
    assert same(parts.parameters, walked.parameters())
    before = list(walked.buffers())
    assert same(parts.buffers(), before)
    walked(torch.randn(4, 3))
    assert not same(parts.buffers(), before)
    assert same(parts.buffers(), walked.buffers())
    values = [torch.full_like(b, 7) for b in walked.buffers()]
    parts.set_buffers(values)
    assert all((b == 7).all() for b in walked.buffers())
    with pytest.raises(ValueError, match="zip"):
        parts.set_buffers(values[:-1])


def test_modes_are_set_where_some_module_is_not_as_they_leave_it():
    walked = model()
    parts = ModelParts(walked)
    parts.train(True)
    parts.train(True)
    assert walked[0].trained == 1
    assert [m.training for m in walked] == [True] * 5
    assert not walked[0].norm.training
    walked[3].eval()
    parts.train(True)
    assert walked[3].training
    parts.train(False)
    assert not any(m.training for m in walked.modules())
    parts.train(True)
    assert walked[0].trained == 4


class Remembering(nn.Linear):
    """Keeps a number that is neither parameter nor buffer."""

    seen = 0

    def get_extra_state(self):
        return self.seen

    def set_extra_state(self, state):
        self.seen = state


class Saving(nn.Linear):
    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "scale"] = torch.ones(())


def test_what_keeps_more_than_parameters_and_buffers_is_known():
    assert not ModelParts(model()).has_extra_state
    assert ModelParts(nn.Sequential(model(), Remembering(3, 3))).has_extra_state
    assert ModelParts(nn.Sequential(model(), Saving(3, 3))).has_extra_state
