"""Data sets that the field's configuration files name, read from this computer's disk."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from orchestra_strategy.data.readers.cifar_batches import is_cifar_folder, load_cifar_batches
from orchestra_strategy.errors import DataError, ParameterError
from orchestra_strategy.users.settings import flag, required, setting

__all__ = ["NamedImages", "named_dataset"]

_FOLDERS = {"CIFAR10": "cifar-10-batches-py", "CIFAR100": "cifar-100-python"}


class NamedImages(Dataset[dict[str, Tensor]]):
    """Images with labels; what the network sees is normalised by channel.

    Args:
        pixels: (N, C, H, W) uint8.
        targets: (N,) int64.
        classes: The labels' names.
        mean: (C,) floats that are taken from pixels in [0, 1].
        std: (C,) floats that they are divided by then.
    """

    def __init__(
        self,
        pixels: Tensor,
        targets: Tensor,
        classes: tuple[str, ...] | None,
        mean: list[float],
        std: list[float],
    ) -> None:
        self.pixels, self.targets, self.classes = pixels, targets, classes
        self.mean, self.std = mean, std

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        shift, spread = (torch.tensor(v).view(-1, 1, 1) for v in (self.mean, self.std))
        return {
            "inputs": (self.pixels[index].float() / 255 - shift) / spread,
            "labels": self.targets[index],
        }


def named_dataset(cfg_data: Any) -> NamedImages:
    """Read the data set that ``cfg_data.name`` says: ``CIFAR10`` or ``CIFAR100``.

    Args:
        cfg_data: By attribute: ``path``, the folder that holds the data set's own;
            ``examples_from_split``, ``"training"`` or another word for the test images; ``size``,
            the first so many of them; ``normalize`` with ``mean`` and ``std`` by channel;
            ``augmentations_val``, which has to be empty. How data are stored and cached (``db``,
            ``caching``) changes no number, and is not read.

    Raises:
        ParameterError: The name is another, or an entry cannot be followed.
        DataError: The data are not there; nothing is downloaded.
    """
    name = required(cfg_data, "cfg_data", "name", "a data set")
    if name not in _FOLDERS:
        raise ParameterError(
            f"Expected `cfg_data.name` to be one of {', '.join(map(repr, _FOLDERS))}, which are "
            f"read by name, got {name!r}; give its data as a torch data set: "
            "construct_user(..., dataset=...)."
        )
    if setting(cfg_data, "augmentations_val"):
        raise ParameterError(
            f"Expected `cfg_data.augmentations_val` to be empty for {name}, got some; apply them "
            "in a data set of your own, and give it as `dataset`."
        )
    folder = Path(str(setting(cfg_data, "path", "."))).expanduser() / _FOLDERS[name]
    if not is_cifar_folder(folder):
        raise DataError(
            f"Expected {name} in `{folder}`, got no such folder of batches. Nothing is downloaded: "
            "put it there, set `cfg_data.path`, or give a torch data set as `dataset`."
        )
    split = setting(cfg_data, "examples_from_split", "validation")
    found = load_cifar_batches(folder, split="train" if split == "training" else "test")
    mean, std = [0.0], [1.0]
    if flag(cfg_data, "normalize"):
        mean, std = (
            [float(v) for v in required(cfg_data, "cfg_data", key, "a number per channel")]
            for key in ("mean", "std")
        )
    most = setting(cfg_data, "size", len(found))
    assert found.labels is not None  # CIFAR's batches have labels
    return NamedImages(
        torch.from_numpy(found.samples[:most].copy()),
        torch.from_numpy(found.labels[:most].copy()),
        found.class_names,
        mean,
        std,
    )
