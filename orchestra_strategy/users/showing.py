"""A look at a user's data, true or reconstructed, for whoever analyses an attack."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from orchestra_strategy.errors import DataError, ParameterError

__all__ = ["plot_images", "print_texts"]


def print_texts(dataset: Any, user_data: Mapping[str, Any]) -> None:
    """Print token ids as text, a line per sample.

    Args:
        dataset: The user's, for its ``tokenizer`` (``batch_decode``).
        user_data: ``data`` (N, T) int64, token ids.

    Raises:
        ParameterError: The data set has no tokenizer.
        DataError: The data were not kept.
    """
    tokenizer = _of(dataset, "tokenizer")
    if tokenizer is None:
        raise ParameterError(
            "Expected the user's data set to have a `tokenizer` to print its data, got "
            f"{type(dataset).__name__} without; set the attribute, or `plot` images."
        )
    for line in tokenizer.batch_decode(_data(user_data)):
        print(line)


def plot_images(
    dataset: Any, user_data: Mapping[str, Any], scale: bool = False, print_labels: bool = False
) -> None:
    """Draw images in a grid, as pyplot's present figure.

    Args:
        dataset: The user's, for its ``mean`` and ``std`` by channel, by which its images are
            normalised (without them they are taken as they are), and ``classes``, names of labels.
        user_data: ``data`` (N, H, W) or (N, C, H, W), one channel or three; ``labels`` (N,).
        scale: Stretch each channel of each image to its own range, in place of mean and deviation.
        print_labels: Write each image's label above it, where there are labels.

    Raises:
        DataError: The data are no such images, or were not kept.
        ImportError: Matplotlib is not installed.
    """
    images = visible(dataset, _data(user_data), scale)
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            "Expected matplotlib to be installed for plots, got none. Install it with "
            "`pip install 'orchestra-strategy[plots]'`."
        ) from error
    side = math.ceil(math.sqrt(len(images)))
    inches = 6 if images.shape[2] <= 150 else 24
    _, axes = pyplot.subplots(side, side, figsize=(inches, inches), squeeze=False)
    titles = _titles(dataset, user_data.get("labels"), len(images)) if print_labels else None
    for index, axis in enumerate(axes.flat):
        axis.axis("off")
        if index < len(images):
            axis.imshow(images[index], cmap="gray", vmin=0, vmax=1)
            if titles is not None:
                axis.set_title(titles[index])


def visible(dataset: Any, images: Tensor, scale: bool) -> Tensor:
    """Return images (N, H, W) or (N, H, W, 3) of numbers in [0, 1].

    >>> class Set:
    ...     mean, std = [0.5], [0.25]
    >>> visible(Set(), torch.tensor([[[[0.0, 1.0, 9.0]]]]), scale=False)
    tensor([[[0.5000, 0.7500, 1.0000]]])
    """
    pixels = images.detach().cpu()
    pixels = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()
    if pixels.ndim == 3:
        pixels = pixels.unsqueeze(1)
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
        raise DataError(
            "Expected images (N, H, W) or (N, C, H, W) of one or three channels to plot, got shape "
            f"{tuple(images.shape)}."
        )
    if scale:
        low, high = pixels.amin((2, 3), keepdim=True), pixels.amax((2, 3), keepdim=True)
        pixels = (pixels - low) / (high - low).clamp(min=1e-12)
    else:
        for name, apply in (("std", torch.mul), ("mean", torch.add)):
            value = _of(dataset, name)
            if value is not None:
                pixels = apply(pixels, torch.as_tensor(value, dtype=pixels.dtype).view(1, -1, 1, 1))
    pixels = pixels.clamp(0, 1).permute(0, 2, 3, 1)
    return pixels.squeeze(3) if pixels.shape[3] == 1 else pixels


def _titles(dataset: Any, labels: Tensor | None, count: int) -> list[str] | None:
    if labels is None or labels.ndim != 1 or len(labels) != count:
        return None
    classes = _of(dataset, "classes")
    return [str(label if classes is None else classes[label]) for label in labels.tolist()]


def _data(user_data: Mapping[str, Any]) -> Tensor:
    data = user_data.get("data")
    if not isinstance(data, Tensor):
        raise DataError(
            f"Expected `user_data` to hold `data`, got {type(data).__name__}; make the user with "
            "keep_true_data=True."
        )
    return data


def _of(dataset: Any, name: str) -> Any:
    """Return an attribute of a data set, or of the one that it is a part of."""
    while dataset is not None:
        if hasattr(dataset, name):
            return getattr(dataset, name)
        dataset = getattr(dataset, "dataset", None)
    return None
