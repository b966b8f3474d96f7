"""A model's weights by name: which leave the party, read and written."""

import hashlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from orchestra_strategy.exchange.manifest import Entry

__all__ = [
    "GRADIENT_PREFIX",
    "PREFIX",
    "as_array",
    "buffer_names",
    "digest_of",
    "gradient_entries",
    "read_weights",
    "weight_entries",
    "write_weights",
]

PREFIX = "weights/"
GRADIENT_PREFIX = "gradients/"


def _buffers(model: nn.Module) -> dict[str, Tensor]:
    """The floating-point buffers, which are BatchNorm's running statistics.

    Integer buffers count batches at one party; their mean over parties means nothing.
    """
    return _walked(model)[1]


def _shared(model: nn.Module, frozen: bool = True) -> dict[str, Tensor]:
    """The parameters, without frozen ones if those are not wanted, and the buffers."""
    parameters, buffers = _walked(model)
    return {n: p for n, p in parameters.items() if frozen or p.requires_grad} | buffers


def _walked(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the parameters, and the persistent floating-point buffers, each by its first name.

    In one walk: ``named_parameters``, ``named_buffers`` and ``state_dict`` take several, each of
    which is slower than the copy of a small network.
    """
    parameters: dict[str, Tensor] = {}
    buffers: dict[str, Tensor] = {}
    seen: set[int] = set()
    for place, module in model.named_modules():
        prefix = f"{place}." if place else ""
        for name, parameter in module._parameters.items():
            if parameter is not None and id(parameter) not in seen:
                seen.add(id(parameter))
                parameters[prefix + name] = parameter
        for name, buffer in module._buffers.items():
            if buffer is None or id(buffer) in seen:
                continue
            seen.add(id(buffer))
            if buffer.is_floating_point() and name not in module._non_persistent_buffers_set:
                buffers[prefix + name] = buffer
    return parameters, buffers


def buffer_names(model: nn.Module) -> list[str]:
    """Return the payload's names of the shared buffers."""
    return [PREFIX + name for name in _buffers(model)]


def _entries(prefix: str, tensors: Mapping[str, Tensor], meaning: str) -> tuple[Entry, ...]:
    return tuple(
        Entry(prefix + name, tuple(t.shape), "float32", "weighted mean", "server", meaning)
        for name, t in tensors.items()
    )


def weight_entries(model: nn.Module, frozen: bool = True) -> tuple[Entry, ...]:
    """Return the manifest's entries for a model's weights.

    Args:
        model: The model.
        frozen: Whether parameters that are not trained are among them: all parties have the same
            from the first exchange on.
    """
    meaning = "trained weight or running statistic of the online network"
    return _entries(PREFIX, _shared(model, frozen), meaning)


def gradient_entries(model: nn.Module) -> tuple[Entry, ...]:
    """Return the manifest's entries for a model's gradient and its buffers."""
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    return (
        *_entries(GRADIENT_PREFIX, parameters, "gradient of the mean loss of one batch"),
        *_entries(PREFIX, _buffers(model), "running statistic of the online network"),
    )


def read_weights(model: nn.Module, frozen: bool = True) -> dict[str, npt.NDArray[np.float32]]:
    """Return float32 copies of a model's shared weights, in the order of ``weight_entries``."""
    return {PREFIX + name: as_array(t.detach()) for name, t in _shared(model, frozen).items()}


def as_array(tensor: Tensor) -> npt.NDArray[np.float32]:
    """Return a float32 copy, its rows after each other in memory whatever the tensor's layout."""
    plain = torch.contiguous_format
    return tensor.to("cpu", torch.float32, copy=True, memory_format=plain).numpy()


def digest_of(arrays: Mapping[str, npt.NDArray[np.float32]]) -> str:
    """Return a SHA-256 of arrays with their names, the same from the same bits.

    >>> digest_of({"w": np.float32([1.0])}) == digest_of({"w": np.float32([2.0])})
    False
    """
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(repr((name, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


@torch.no_grad()
def write_weights(
    model: nn.Module,
    arrays: Mapping[str, npt.NDArray[np.float32]],
    buffers_only: bool = False,
    frozen: bool = True,
) -> None:
    """Copy arrays by name into a model; their names and shapes have been checked."""
    for name, tensor in (_buffers(model) if buffers_only else _shared(model, frozen)).items():
        array = arrays[PREFIX + name]
        if tensor.device.type == "cpu" and tensor.dtype == torch.float32:
            np.copyto(tensor.detach().numpy(), array)
        else:
            # A copy first: arrays that come from another process may be read-only.
            tensor.copy_(torch.from_numpy(np.array(array)))
