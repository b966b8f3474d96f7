"""Watches which layers use a model's weights, and reads off what goes in and out of them.

For what inputs and output gradients are good see
:mod:`~orchestra_strategy.privacy.per_example.factored`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

__all__ = ["Call", "Geometry", "TapMode"]

Pair = tuple[int, int]


class Geometry(NamedTuple):
    """How a 2-D convolution walks over its input; see ``torch.nn.functional.conv2d``."""

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair


@dataclass(frozen=True)
class Call:
    """One use of a weight by a linear layer (``geometry`` is None) or a convolution.

    Attributes:
        name: The weight's name.
        geometry: The convolution's, or None.
        out_shape: Shape of the layer's output for a batch of one example.
    """

    name: str
    geometry: Geometry | None
    out_shape: tuple[int, ...]

    @property
    def positions(self) -> int:
        """T: how many positions of the output share the weight."""
        channel = -1 if self.geometry is None else 1
        size = 1
        for length in self.out_shape:
            size *= length
        return size // self.out_shape[channel]


class TapMode(TorchFunctionMode):
    """Watches the uses of some weights while a model runs.

    Args:
        names: ``id`` of each watched weight to its name.
        taps: None to only record the calls. Otherwise one zero tensor per expected call, which is
            added to the layer's output so that its gradient is b, and which the weight's own
            gradient is left out for.
        expected: The calls that ``taps`` belong to.

    Attributes:
        calls: The calls so far.
        inputs: What went into each of them: a.
        other: Names of watched weights that something else than such a layer used.
        mismatch: Whether a call was not the expected one.
    """

    def __init__(
        self,
        names: Mapping[int, str],
        taps: Sequence[Tensor] | None = None,
        expected: Sequence[Call] = (),
    ) -> None:
        super().__init__()
        self.names, self.taps, self.expected = names, taps, expected
        self.calls: list[Call] = []
        self.inputs: list[Tensor] = []
        self.other: set[str] = set()
        self.mismatch = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run one torch function; called by torch for each of them."""
        kwargs = kwargs or {}
        if func is F.group_norm and self.taps is not None:
            return _group_norm(*args, **kwargs)
        used = {self.names[id(x)] for x in tree_leaves((args, kwargs)) if id(x) in self.names}
        if not used:
            return func(*args, **kwargs)
        name = self.names.get(id(args[1])) if len(args) > 1 else None
        geometry = _geometry(*args, **kwargs) if func is F.conv2d and name else None
        if name is None or (func is not F.linear and geometry is None):
            self.other |= used
            return func(*args, **kwargs)
        self.other |= used - {name}
        return self._tapped(name, geometry, args[0], func(*args, **kwargs))

    def _tapped(self, name: str, geometry: Geometry | None, a: Tensor, out: Tensor) -> Tensor:
        call = Call(name, geometry, tuple(out.shape))
        index = len(self.calls)
        self.calls.append(call)
        self.inputs.append(a)
        if self.taps is None:
            return out
        if list(self.expected[index : index + 1]) != [call]:
            self.mismatch = True
            return out
        return out + self.taps[index]


def _geometry(
    a: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Geometry | None:
    """Read the arguments of ``conv2d``; None for those that :func:`columns` does not do."""
    if groups != 1 or isinstance(padding, str) or a.ndim != 4:
        return None
    kernel = (weight.shape[2], weight.shape[3])
    return Geometry(kernel, _pair(stride), _pair(padding), _pair(dilation))


def _pair(value: Any) -> Pair:
    """Expand ``1`` or ``(1,)``, as conv2d does, to ``(1, 1)``."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values[0], values[-1]


def _group_norm(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Do GroupNorm as LayerNorm over each group: only that has a fast backward pass in vmap."""
    grouped = x.reshape(x.shape[0], num_groups, -1)
    out = F.layer_norm(grouped, grouped.shape[2:], None, None, eps).reshape(x.shape)
    per_channel = (1, -1) + (1,) * (x.ndim - 2)
    if weight is not None:
        out = out * weight.view(per_channel)
    return out if bias is None else out + bias.view(per_channel)
