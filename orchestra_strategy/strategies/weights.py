"""A model's weights by name: which leave the party, read and written."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from orchestra_strategy.payload import Entry

__all__ = ["PREFIX", "read_weights", "weight_entries", "write_weights"]

PREFIX = "weights/"


def _shared(model: nn.Module) -> dict[str, Tensor]:
    """The parameters, then the floating-point buffers (BatchNorm's running statistics).

    Integer buffers count batches at one party; their mean over parties means nothing.
    """
    tensors: dict[str, Tensor] = dict(model.named_parameters())
    persistent = model.state_dict()
    tensors.update(
        (n, b) for n, b in model.named_buffers() if b.is_floating_point() and n in persistent
    )
    return tensors


def weight_entries(model: nn.Module) -> tuple[Entry, ...]:
    """Return the manifest's entries for a model's weights."""
    meaning = "trained weight or running statistic of the online network"
    return tuple(
        Entry(PREFIX + name, tuple(t.shape), "float32", "weighted mean", "server", meaning)
        for name, t in _shared(model).items()
    )


def read_weights(model: nn.Module) -> dict[str, npt.NDArray[np.float32]]:
    """Return copies of a model's shared weights, float32, in the manifest's order."""
    return {
        PREFIX + name: t.detach().to("cpu", torch.float32, copy=True).numpy()
        for name, t in _shared(model).items()
    }


@torch.no_grad()
def write_weights(model: nn.Module, arrays: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Copy arrays by name into a model; their names and shapes have been checked."""
    for name, tensor in _shared(model).items():
        # A copy first: arrays that come from another process may be read-only.
        tensor.copy_(torch.from_numpy(np.array(arrays[PREFIX + name])))
