"""Per-example gradients of linear and convolution weights, kept as factors.

The gradient of a weight W in y_t = W a_t, over the T positions t of one example, is
G = sum_t b_t a_t^T with b_t = dL/dy_t. Its norm and a weighted mean over the examples both follow
from a and b, so that the B gradients, by far the largest tensors of a clipped step, need not exist:

- |G|^2 = sum_{t,t'} (a_t . a_t') (b_t . b_t'), which is |a|^2 |b|^2 for T = 1;
- sum_i c_i G_i is one matrix product over all examples and positions.

Sources:
    - I. Goodfellow, "Efficient Per-Example Gradient Computations", 2015,
      https://arxiv.org/abs/1510.01799 (T = 1).
    - X. Li, F. Tramer, P. Liang, T. Hashimoto, "Large Language Models Can Be Strong Differentially
      Private Learners", ICLR 2022, https://arxiv.org/abs/2110.05679 (T > 1).
    - Z. Bu, J. Mao, S. Xu, "Scalable and Efficient Training of Large Convolutional Neural Networks
      with Differential Privacy", NeurIPS 2022, https://arxiv.org/abs/2205.10683 (convolutions, and
      the choice by cost that :func:`gram_is_cheaper` makes).
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from orchestra_strategy.privacy.per_example.layer_calls import Call, Geometry

__all__ = ["ChunkGradients", "collect", "columns", "gram_is_cheaper", "gram_squared_norms"]

_CANCELLED = 1e-2
"""Below this share of its terms a float32 sum has too few digits: 6e-8 / 1e-2, a few times over."""


class ChunkGradients(NamedTuple):
    """Gradients of b examples: formed ones (b, ...) and, by weight, (a (b, T, D), b (b, T, O))."""

    formed: dict[str, Tensor]
    factored: dict[str, tuple[Tensor, Tensor]]
    kernels: dict[str, tuple[int, int]]
    losses: dict[str, Tensor]

    def norms(self) -> Tensor:
        """Return the L2 norm of each example's whole gradient, shape (b,)."""
        squares = [g.reshape(len(g), -1).square().sum(1) for g in self.formed.values()]
        squares += [gram_squared_norms(a, b).to(a.dtype) for a, b in self.factored.values()]
        return torch.stack(squares).sum(0).sqrt()

    def weighted_sums(self, factors: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield, by name, the sum over the examples of factor times gradient.

        An example of factor 0 is left out, whatever its gradient is: it may not be finite.
        """
        out = factors == 0
        # It saves the copies below, but elsewhere than on a CPU the answer would be waited for.
        some_out = out.device.type != "cpu" or bool(out.any())
        for name, gradients in self.formed.items():
            if some_out:
                gradients = gradients.masked_fill(_rows(out, gradients), 0.0)
            yield name, self._in_place(name, torch.tensordot(factors, gradients, 1))
        for name, (a, b) in self.factored.items():
            if some_out:
                a, b = a.masked_fill(_rows(out, a), 0.0), b.masked_fill(_rows(out, b), 0.0)
            scaled = (b * factors[:, None, None]).flatten(0, 1)
            yield name, self._in_place(name, scaled.T @ a.flatten(0, 1))

    def _in_place(self, name: str, total: Tensor) -> Tensor:
        """Turn (O, kh * kw * C), as the columns are laid out, into the weight's (O, C, kh, kw)."""
        if name not in self.kernels:
            return total
        kh, kw = self.kernels[name]
        return total.view(len(total), kh, kw, -1).permute(0, 3, 1, 2).contiguous()


def _rows(mask: Tensor, of: Tensor) -> Tensor:
    """Return a mask of examples (b,) in the number of axes of a tensor (b, ...)."""
    return mask.view(-1, *([1] * (of.ndim - 1)))


def collect(
    formed: dict[str, Tensor],
    losses: dict[str, Tensor],
    calls: Sequence[Call],
    inputs: list[Tensor],
    tap_gradients: list[Tensor],
) -> ChunkGradients:
    """Join the uses of each weight, and form its gradients where that is cheaper.

    Args:
        formed: Per-example gradients of the other parameters, shapes (B, ...).
        losses: Per-example losses, shapes (B,).
        calls: The uses.
        inputs: What went into each, shape (B, n, ...); n rows for one example, mostly one.
        tap_gradients: Gradient of what came out of each, shape (B, n, ...).
    """
    uses: dict[str, list[tuple[Tensor, Tensor]]] = {}
    kernels = {}
    for call, a, b in zip(calls, inputs, tap_gradients, strict=True):
        uses.setdefault(call.name, []).append(_positions_first(call, a, b))
        if call.geometry is not None:
            kernels[call.name] = call.geometry.kernel
    factored = {}
    for name, pairs in uses.items():
        a, b = (
            torch.cat(side, dim=1) if len(side) > 1 else side[0]
            for side in zip(*pairs, strict=True)
        )
        if gram_is_cheaper(a.shape[1], a.shape[2], b.shape[2]):
            factored[name] = (a, b)
        else:
            formed = {**formed, name: b.mT @ a}
    return ChunkGradients(formed, factored, kernels, losses)


def _positions_first(call: Call, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return a (B, T, D) and b (B, T, O) of one use."""
    if call.geometry is None:
        return (a.reshape(len(a), -1, a.shape[-1]), b.reshape(len(b), -1, b.shape[-1]))
    rows = columns(a.flatten(0, 1), call.geometry)
    b = b.flatten(3).mT  # (B, n, O, T) -> (B, n, T, O)
    return rows.reshape(len(a), -1, rows.shape[-1]), b.reshape(len(b), -1, b.shape[-1])


def columns(a: Tensor, geometry: Geometry) -> Tensor:
    """Lay out a convolution's input as rows of the products it takes part in.

    Args:
        a: Input, shape (N, C, H, W).
        geometry: The convolution.

    Returns:
        Shape (N, T, kh * kw * C), T = output height times width: row t times the weight, laid out
        as (O, kh, kw, C), is the output at position t.
    """
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = geometry
    # Channels last: the innermost runs of the copy below are then as long as there are channels.
    padded = F.pad(a.permute(0, 2, 3, 1), (0, 0, pw, pw, ph, ph)).contiguous()
    n, height, width, c = padded.shape
    rows = (height - dh * (kh - 1) - 1) // sh + 1
    cols = (width - dw * (kw - 1) - 1) // sw + 1
    strides = (height * width * c, sh * width * c, sw * c, dh * width * c, dw * c, 1)
    view = padded.as_strided((n, rows, cols, kh, kw, c), strides)
    return view.reshape(n, rows * cols, kh * kw * c)


def gram_is_cheaper(positions: int, d_in: int, d_out: int) -> bool:
    """Whether T^2 (D + O) multiplications for the norm beat T D O for the gradient itself."""
    return positions == 1 or positions * (d_in + d_out) < d_in * d_out


def gram_squared_norms(a: Tensor, b: Tensor) -> Tensor:
    """Return |sum_t b_t a_t^T|^2 of each example, shape (B,), without the sum.

    Args:
        a: Layer inputs, shape (B, T, D).
        b: Gradients of the layer outputs, shape (B, T, O).
    """
    if a.shape[1] == 1:
        return a.square().sum((1, 2)) * b.square().sum((1, 2))
    squares, terms = _gram(a, b)
    # Where the positions' terms cancel, rounding is large beside what is left of them, and an
    # underestimated norm is an example that is not clipped enough.
    if (squares < _CANCELLED * terms).any():
        squares, _ = _gram(a.double(), b.double())
    return squares


def _gram(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return |sum_t b_t a_t^T|^2 and (sum_t |b_t| |a_t|)^2, which it is at most, shapes (B,)."""
    aa, bb = a @ a.mT, b @ b.mT
    lengths = (aa.diagonal(dim1=1, dim2=2) * bb.diagonal(dim1=1, dim2=2)).sqrt()
    return (aa * bb).sum((1, 2)).clamp(min=0), lengths.sum(1).square()
