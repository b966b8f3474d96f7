"""Which tensors of a model are shared, and how they are read and written."""

import numpy as np
import torch
from torch import nn

from orchestra_strategy.exchange.weights import PREFIX, read_weights, write_weights


class Odd(nn.Module):
    """Tied parameters, a module in two places, and all kinds of buffers."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 3)
        self.norm = nn.BatchNorm1d(3)
        self.same_norm = self.norm
        self.tied = nn.Linear(2, 3)
        self.tied.weight = self.first.weight
        self.register_parameter("none", None)
        self.register_buffer("kept", torch.ones(2))
        self.register_buffer("not_kept", torch.ones(2), persistent=False)
        self.first.bias.requires_grad_(False)


def shared_by_torch(model, frozen):
    parameters = {n: p for n, p in model.named_parameters() if frozen or p.requires_grad}
    kept = model.state_dict()
    floats = {n: b for n, b in model.named_buffers() if b.is_floating_point() and n in kept}
    return parameters | floats


def test_they_are_those_that_torch_names_in_its_order():
    model = Odd()
    for frozen in (True, False):
        want = shared_by_torch(model, frozen)
        got = read_weights(model, frozen)
        assert list(got) == [PREFIX + name for name in want]
        assert all(np.array_equal(got[PREFIX + n], t.detach()) for n, t in want.items())
    assert "weights/first.bias" not in read_weights(model, frozen=False)
    assert not {"weights/not_kept", "weights/tied.weight"} & set(got)


def test_what_is_written_is_a_copy_of_arrays_that_may_be_read_only():
    for dtype in (torch.float32, torch.float64):
        model, other = Odd().to(dtype), Odd()
        arrays = read_weights(other)
        for array in arrays.values():
            array.flags.writeable = False
        write_weights(model, arrays)
        assert all(np.array_equal(a, arrays[n]) for n, a in read_weights(model).items())
        with torch.no_grad():
            model.first.weight.zero_()
        assert arrays["weights/first.weight"].any()
