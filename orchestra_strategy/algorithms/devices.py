"""Tensors on their way to a GPU, such that the host does not wait for it.

A GPU works through what it has been given while the host goes on. Copying from pageable memory, or
asking for a value, makes the host wait until all is done.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor

__all__ = ["constant", "sent_to"]


def sent_to(tensor: Tensor, device: torch.device | str | None, dtype: Any = None) -> Tensor:
    """Return a tensor on ``device``, as ``dtype``; None leaves either as it is.

    From the host to a GPU it goes through pinned memory, which nobody waits for.
    """
    kind = None if device is None else torch.device(device).type
    leaves = kind not in (None, "cpu") and tensor.device.type == "cpu"
    if leaves and kind == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device=device, dtype=dtype, non_blocking=leaves)


@cache
def constant(
    values: tuple[Any, ...], device: torch.device, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return numbers as a tensor, of which each device has one; only to be read.

    The dtype is told, and not taken from the numbers: 0 and 0.0 are the same to the cache.

    >>> constant((0, 1), torch.device("cpu")), constant((0, 1), torch.device("cpu"), torch.long)
    (tensor([0., 1.]), tensor([0, 1]))
    """
    return torch.tensor(values, dtype=dtype, device=device)
