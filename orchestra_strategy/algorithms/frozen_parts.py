"""Networks of which a part is frozen: what torch 2.7 does not survive in them."""

from typing import Any

import torch
from torch import nn

__all__ = ["guard_group_norms"]


def guard_group_norms(network: nn.Module) -> nn.Module:
    """Let GroupNorm behind frozen layers take its input in the usual order of memory.

    In torch 2.7 the process dies (a segmentation fault in GroupNorm's backward pass on the CPU)
    where the input has its channels last and wants no gradient, but the layer's own parameters
    do. Only then is the input copied; values are the same.

    Args:
        network: Changed in place, where any of its parameters is frozen.

    Returns:
        The network.
    """
    if not all(p.requires_grad for p in network.parameters()):
        for module in network.modules():
            guarded = _with_usual_order in module._forward_pre_hooks.values()
            if isinstance(module, nn.GroupNorm) and not guarded:
                module.register_forward_pre_hook(_with_usual_order, with_kwargs=True)
    return network


def _with_usual_order(
    module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    x = inputs[0] if inputs else named["input"]
    if x.requires_grad or not torch.is_grad_enabled():
        return None
    if inputs:
        return (x.contiguous(), *inputs[1:]), named
    return (), named | {"input": x.contiguous()}
