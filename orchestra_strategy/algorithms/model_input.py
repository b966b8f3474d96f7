"""The form in which networks take samples: pixels around 0, channels first, tables as they are."""

import torch
from torch import Tensor

from orchestra_strategy.errors import DataError

__all__ = [
    "channels_last",
    "refuse_other_pixels",
    "to_model_input",
    "to_unit_images",
    "tracing",
]

_ROUNDING = 1e-6  # what arithmetic in float32 may leave above 1


def to_unit_images(x: Tensor) -> Tensor:
    """Return images (B, H, W) or (B, C, H, W) as float32 (B, C, H, W), uint8 divided by 255."""
    images = x.float() / 255 if x.dtype == torch.uint8 else x.float()
    return images.unsqueeze(1) if x.ndim == 3 else images


def to_model_input(x: Tensor) -> Tensor:
    """Bring samples, as a party stores them, to the scale and shape that networks expect.

    Args:
        x: (B, H, W) or (B, C, H, W) images, uint8 or floats in [0, 1]; or a (B, F) table, whose
            values pass unscaled, uint8 too.

    Returns:
        float32: images (B, C, H, W) normalised with mean 0.5 and std 0.5, hence in [-1, 1]; tables
        (B, F).

    Raises:
        DataError: If ``x`` has another rank.

    >>> to_model_input(torch.tensor([[[0, 255]]], dtype=torch.uint8)).tolist()
    [[[[-1.0, 1.0]]]]
    """
    if x.ndim == 2:
        return x.float()
    if x.ndim not in (3, 4):
        raise DataError(
            "Expected `x` to be a table (B, F), grey images (B, H, W) or images (B, C, H, W), got "
            f"shape {tuple(x.shape)}"
        )
    return channels_last(to_unit_images(x).sub(0.5).div(0.5))


def channels_last(x: Tensor) -> Tensor:
    """Return images (B, C, H, W) with the channels of a pixel next to each other in memory.

    The values are the same. On a CPU the convolutions of a small ResNet are a third faster on it.
    """
    if tracing() or x.ndim != 4 or x.shape[1] == 1:
        return x
    return x.contiguous(memory_format=torch.channels_last)


def refuse_other_pixels(x: Tensor) -> None:
    """Refuse images whose pixels are neither uint8 nor in [0, 1]; tables have no common scale.

    Raises:
        DataError: They are not, or they are model inputs already.
    """
    if tracing() or x.ndim < 3 or x.dtype == torch.uint8 or not x.numel():
        return
    low, high = x.detach().aminmax()
    dtype = str(x.dtype).removeprefix("torch.")
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise DataError(
            f"Expected the pixels in `x` to be uint8 or in [0, 1], got {dtype} from {low:g} to "
            f"{high:g}: scale them as for the training (`value_range` of its data), and do not "
            "normalise them, since the encoder does; `model.backbone` takes what is normalised "
            "already, such as views."
        )


def tracing() -> bool:
    """Whether torch writes down what is computed: that must not depend on the example at hand."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined,no-untyped-call]
