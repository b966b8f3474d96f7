"""The exponential moving average (EMA) target: t <- tau * t + (1 - tau) * o.

The tau = 0.996 and the direction follow J.-B. Grill et al., "Bootstrap your own latent", NeurIPS
2020, https://arxiv.org/abs/2006.07733.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ema_update", "follow", "frozen_copy", "frozen_statistics"]


def frozen_copy(module: nn.Module) -> nn.Module:
    """Return a deep copy whose parameters take no gradient."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def ema_update(target: nn.Module, online: nn.Module, tau: float) -> None:
    """Move the parameters of ``target`` towards ``online``, in place.

    Only parameters move. The target's BatchNorm statistics are its own: it sees the batches itself.
    """
    targets: list[Tensor] = list(target.parameters())
    onlines: list[Tensor] = list(online.parameters())
    if targets:
        # lerp(t, o, 1 - tau) = tau * t + (1 - tau) * o
        torch._foreach_lerp_(targets, onlines, 1.0 - tau)


@torch.no_grad()
def follow(target: nn.Module, online: nn.Module, tau: float, *views: Tensor) -> list[Tensor]:
    """Move ``target`` on, then run it, in train mode, on each view.

    No gradient: the target follows the online network by its moving average alone. To move it
    before its forward pass is to move it after every optimizer step.

    Args:
        target: An encoder; changed in place.
        online: The encoder that is trained.
        tau: Decay of the moving average.
        *views: Inputs (B, ...).

    Returns:
        Unit-norm projections (B, p), one tensor per view.
    """
    ema_update(target, online, tau)
    target.train()
    return [F.normalize(target(x), dim=1) for x in views]


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[nn.Module]:
    """Run ``module`` in train mode, and put its buffers and its modes back afterwards.

    For forward passes that should normalise by the batch (an untrained network's running statistics
    say nothing) without moving any running statistic.
    """
    modes = {m: m.training for m in module.modules()}
    buffers = {b: b.detach().clone() for b in module.buffers()}
    module.train()
    try:
        yield module
    finally:
        with torch.no_grad():
            for buffer, value in buffers.items():
                buffer.copy_(value)
        for m, training in modes.items():
            m.training = training
