"""A file of first weights, such as torchvision and timm publish, read into a backbone.

The file is one of this machine's; nothing is ever downloaded, and nothing in it is run.
"""

import hashlib
import pickle
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from orchestra_strategy.errors import ModelError
from orchestra_strategy.files import PathLike

__all__ = ["digest_of_file", "is_state_file", "read_into"]

_WRAPPERS = ("state_dict", "model")  # below which training scripts keep the weights
_EXPORTED = ("encoder.safetensors", "encoder.json")
_SHOWN = 3


def is_state_file(path: PathLike) -> bool:
    """Whether a path is that of a backbone's weights alone, and not of an exported encoder."""
    file = Path(path).expanduser()
    return bool(file.suffix) and file.name not in _EXPORTED and not file.is_dir()


def digest_of_file(path: PathLike) -> str:
    """Return the SHA-256 of a file of weights.

    Raises:
        ModelError: It cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with Path(path).expanduser().open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    except OSError as error:
        raise _unreadable(path, error) from error
    return digest.hexdigest()


def read_into(body: nn.Module, path: PathLike, left_out: Collection[str] = ()) -> None:
    """Read a file into a backbone; each of its arrays has to have its place there.

    Args:
        body: The backbone; floating arrays are converted to its types.
        path: A ``state_dict``: ``.safetensors``, or what ``torch.save`` has written.
        left_out: Names of modules that the backbone has no more, such as the classifier.

    Raises:
        ModelError: The file cannot be read, or its arrays are others than the backbone's.
    """
    found, own = _read(path), body.state_dict()
    if not own.keys() & found.keys():  # of one of our encoders, with a module around it
        found = {name.removeprefix("body."): tensor for name, tensor in found.items()}
    gone = tuple(f"{name}." for name in left_out)
    found = {name: t for name, t in found.items() if name in own or not name.startswith(gone)}
    # Counts of batches, which older files have not.
    missing = [n for n in own if n not in found and not n.endswith("num_batches_tracked")]
    strange = [n for n in found if n not in own]
    other = [n for n, t in found.items() if n in own and t.shape != own[n].shape]
    if missing or strange or other:
        problems = [f"without {_some(missing)}"] if missing else []
        problems += [f"with {_some(strange)} besides"] if strange else []
        problems += [
            f"with {tuple(found[n].shape)} for {tuple(own[n].shape)} at `{n}`"
            for n in other[:_SHOWN]
        ]
        raise ModelError(
            f"Expected the weights of this backbone in `{path}`, got those of another "
            f"({'; '.join(problems)}). Give the file of the same `backbone`, `norm` and "
            "`in_channels`."
        )
    body.load_state_dict(found, strict=False)


def _read(path: PathLike) -> dict[str, Tensor]:
    file = Path(path).expanduser()
    try:
        content: Any = (
            load_file(file)
            if file.suffix == ".safetensors"
            else torch.load(file, map_location="cpu", weights_only=True)
        )
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise _unreadable(path, error) from error
    except safetensors.SafetensorError as error:
        raise _unreadable(path, error) from error
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(isinstance(t, Tensor) for t in content.values()):
        raise ModelError(
            f"Expected a `state_dict` in `{path}`, which names tensors, got "
            f"{type(content).__name__}; `torch.save(network.state_dict(), path)` writes one."
        )
    return dict(content)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(f"`{name}`" for name in names[:_SHOWN]) + more


def _unreadable(path: PathLike, error: Exception) -> ModelError:
    reason = getattr(error, "strerror", None) or str(error).strip().split("\n")[0]
    return ModelError(
        f"Expected `weights` to be a file of weights on this machine, got `{path}`: {reason}. "
        "Nothing is downloaded; copy the file here first."
    )
