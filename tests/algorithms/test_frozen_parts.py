"""Networks of which a part is frozen: GroupNorm behind frozen layers trains like any other."""

import copy

import torch
from torch import nn

from orchestra_strategy.algorithms.frozen_parts import guard_group_norms


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 2, 3))
    layers[0].requires_grad_(False)
    return layers


def gradients(layers: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    trained = [p for p in layers.parameters() if p.requires_grad]
    return list(torch.autograd.grad(layers(x).square().sum(), trained))


def test_gradients_behind_frozen_layers_are_the_same_in_either_order_of_memory() -> None:
    """Without the guard the process ends here, by a segmentation fault of torch's."""
    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    guarded = guard_group_norms(network())
    found = gradients(copy.deepcopy(guarded), x.contiguous(memory_format=torch.channels_last))
    for one, other in zip(found, gradients(network(), x), strict=True):
        torch.testing.assert_close(one, other)
    hidden = torch.rand(4, 8, 6, 6)
    assert torch.equal(guarded[1](input=hidden), guarded[1](hidden))  # called by name, too


def test_a_network_is_guarded_once_and_only_where_something_is_frozen() -> None:
    frozen, free = network(), network().requires_grad_(True)
    for layers in (frozen, free):
        guard_group_norms(guard_group_norms(layers))
    assert len(frozen[1]._forward_pre_hooks) == 1
    assert not free[1]._forward_pre_hooks
