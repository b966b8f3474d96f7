"""Two made-up samples through a network before any training, which tell whether the two fit.

Of the samples the shape alone is needed, so that the driver can ask before anything has begun.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from orchestra_strategy.algorithms.ema import frozen_statistics
from orchestra_strategy.algorithms.model_input import to_model_input
from orchestra_strategy.errors import DataError, ModelError, OrchestraError
from orchestra_strategy.global_randomness import drawing_from
from orchestra_strategy.rng import SeededStreams

__all__ = ["refuse_unfit"]

_ROWS = 2  # with one, BatchNorm has no statistics


class _FirstLayer(NamedTuple):
    """The first layer with weights that samples have come to.

    Attributes:
        name: Within the backbone.
        layer: The layer.
        shape: Of what came.
    """

    name: str
    layer: nn.Module
    shape: tuple[int, ...]


def refuse_unfit(model: nn.Module, sample_shape: Sequence[int]) -> None:
    """Refuse samples that a backbone cannot take, and a backbone that the projector cannot follow.

    Args:
        model: With ``backbone`` and ``projector``; any other is left to its objective. Nothing of
            it is different afterwards.
        sample_shape: (F,), (H, W) or (C, H, W).

    Raises:
        DataError: The backbone begins with another number of channels or columns; it names the
            number to use.
        ModelError: The backbone cannot be run on such samples, returns something else than
            features (B, d), or not as many as the projector takes; it names the number to use.

    >>> from orchestra_strategy.algorithms.model import OrchestraModel
    >>> refuse_unfit(OrchestraModel(nn.Flatten(), feature_dim=64), (8, 8))
    >>> refuse_unfit(OrchestraModel(nn.Flatten(), feature_dim=60), (8, 8))
    Traceback (most recent call last):
    ...
    orchestra_strategy.errors.ModelError: Expected `feature_dim` to be 64, the length of the \
backbone's output, got 60: use `feature_dim=64`.
    """
    backbone, projector = (getattr(model, name, None) for name in ("backbone", "projector"))
    if not isinstance(backbone, nn.Module) or not isinstance(projector, nn.Module):
        return
    shape = tuple(sample_shape)
    weight = next(backbone.parameters(), torch.zeros(()))
    samples = to_model_input(torch.zeros(_ROWS, *shape, device=weight.device))
    with frozen_statistics(backbone), torch.no_grad(), _own_draws(weight.device):
        for training in (True, False):
            output = _run(backbone.train(training), samples, shape)
            width = _width_of(output, training)
    wanted = _width_taken(model, projector)
    if wanted not in (None, width):
        known = "" if not hasattr(backbone, "out_dim") else " (`out_dim` of the backbone)"
        raise ModelError(
            f"Expected `feature_dim` to be {width}, the length of the backbone's output, got "
            f"{wanted}{known}: use `feature_dim={width}`."
        )


def _own_draws(device: torch.device) -> AbstractContextManager[None]:
    return drawing_from(SeededStreams(0), "trial", 0, "inside the network", device)


def _run(backbone: nn.Module, samples: Tensor, shape: tuple[int, ...]) -> Any:
    """Return the backbone's output, or say why there is none."""
    with _watched(backbone) as met:
        try:
            return backbone(samples)
        except OrchestraError:
            raise
        except Exception as error:  # a network raises what its layers do: any type
            first = met[0] if met else None
            problem = None if first is None else _of_first_layer(first, shape)
            if problem is not None:
                raise problem from error
            text = str(error).strip().split("\n")[0]
            raise ModelError(
                f"Expected `backbone` to take samples of shape {shape}, as the parties have them, "
                f"got {type(error).__name__} from {type(backbone).__name__}: {text}"
            ) from error


@contextmanager
def _watched(backbone: nn.Module) -> Iterator[list[_FirstLayer]]:
    """Note the layers with weights that are run, in their order."""
    met: list[_FirstLayer] = []

    def note(name: str, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor):
            met.append(_FirstLayer(name, layer, tuple(inputs[0].shape)))

    handles = [
        layer.register_forward_pre_hook(lambda module, inputs, n=name: note(n, module, inputs))
        for name, layer in backbone.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    try:
        yield met
    finally:
        for handle in handles:
            handle.remove()


def _of_first_layer(first: _FirstLayer, shape: tuple[int, ...]) -> DataError | None:
    """Return what is wrong with channels or columns; None if that is not what is wrong."""
    if isinstance(first.layer, nn.Conv2d):
        return _of_channels(first.layer.in_channels, shape)
    if isinstance(first.layer, nn.Linear):
        return _of_columns(first.name, first.layer, first.shape, shape)
    return None


def _of_columns(
    name: str, layer: nn.Linear, came: tuple[int, ...], shape: tuple[int, ...]
) -> DataError | None:
    """Return what is wrong where a linear layer comes first.

    Args:
        name: Of the layer.
        layer: The layer.
        came: Shape of what has come to it.
        shape: Of a sample.
    """
    if came[-1] == layer.in_features:
        return None
    if len(shape) == 1 and came[1:] == shape:
        return DataError(
            f"Expected a table of {layer.in_features} columns, as `in_channels` of the model says, "
            f"got {shape[0]}: use `in_channels={shape[0]}`."
        )
    if len(came) == 2 and came[-1] == math.prod(shape):
        return DataError(
            f"Expected samples of {layer.in_features} numbers, as the model's first layer "
            f"`{name or '.'}` says, got {came[-1]} of shape {shape} (channels included): use "
            f"`in_features={came[-1]}`."
        )
    if len(came) == 4:
        return DataError(
            f"Expected a table of {layer.in_features} columns, as `in_channels` of the model says, "
            f"got images of shape {shape}: use a backbone for images, such as `conv4`, with "
            f"`in_channels={_channels(shape)}`."
        )
    return None


def _of_channels(wanted: int, shape: tuple[int, ...]) -> DataError | None:
    """Return what is wrong where a convolution comes first."""
    if len(shape) == 1:
        return DataError(
            f"Expected images of {wanted} channel(s), which the model's backbone takes, got a "
            f"table of {shape[0]} columns: use `backbone='mlp'` with `in_channels={shape[0]}`."
        )
    found = _channels(shape)
    if found == wanted:
        return None
    last = len(shape) == 3 and shape[-1] == wanted
    remedy = f"use `in_channels={found}`, or images of {wanted}"
    return DataError(
        f"Expected images of {wanted} channel(s), as `in_channels` of the model says, got {found} "
        f"in samples of shape {shape}: "
        + ("channels come first, use `x.transpose(0, 3, 1, 2)`." if last else f"{remedy}.")
    )


def _channels(shape: tuple[int, ...]) -> int:
    return 1 if len(shape) == 2 else shape[0]


def _width_of(output: Any, training: bool) -> int:
    """Return d of features (B, d), or say how to make them of what came."""
    when = "training" if training else "evaluation"
    if not isinstance(output, Tensor):
        raise ModelError(
            f"Expected `backbone` to return features (B, d) as a tensor, got "
            f"{type(output).__name__} in {when} mode: return the one tensor in it, by a module "
            "around the backbone or, for auxiliary outputs, by its option (`aux_logits=False`)."
        )
    shape = tuple(output.shape)
    if len(shape) == 2 and shape[0] == _ROWS:
        return shape[1]
    got = f"Expected `backbone` to return features (B, d), got {('B', *shape[1:])} in {when} mode"
    got = got.replace("'", "")
    if len(shape) == 4 and shape[0] == _ROWS:
        raise ModelError(
            f"{got}: end it with `nn.AdaptiveAvgPool2d(1), nn.Flatten()`, and use "
            f"`feature_dim={shape[1]}`."
        )
    if len(shape) == 3 and shape[0] == _ROWS:
        raise ModelError(
            f"{got}: return the mean over its tokens or one of them, and use "
            f"`feature_dim={shape[2]}`."
        )
    raise ModelError(
        f"{got} for B = {_ROWS}, which is {shape}: return one row of numbers for each sample."
    )


def _width_taken(model: nn.Module, projector: nn.Module) -> int | None:
    """Return the length of features that the projector takes; None if that cannot be seen."""
    told = getattr(model, "feature_dim", None)
    if isinstance(told, int):
        return told
    first = next((m for m in projector.modules() if isinstance(m, nn.Linear)), None)
    return None if first is None else first.in_features
