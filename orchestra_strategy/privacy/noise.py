"""Gaussian and Laplacian noise from an explicit generator.

What the noise is worth: the gradient it is added to is a mean over B examples of which each was
clipped to an L2 norm of C, so that adding or removing one example moves it by at most C / B.
Gaussian noise of standard deviation s is then the Gaussian mechanism of noise multiplier s * B / C
(M. Abadi et al., "Deep Learning with Differential Privacy", CCS 2016,
https://arxiv.org/abs/1607.00133). Without clipping the sensitivity is unbounded and no such
statement holds.

The draws are ordinary floating-point numbers: they do not defend against an attacker who reads the
noise off the lowest bits of the sum.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from orchestra_strategy.errors import ParameterError
from orchestra_strategy.privacy.local import LocalPrivacy

__all__ = ["add_noise", "draw_noise"]


def draw_noise(like: Tensor, scale: float, distribution: str, generator: torch.Generator) -> Tensor:
    """Draw noise of the shape, dtype and device of ``like``.

    Units: ``scale`` is in those of ``like`` itself. ``"gaussian"`` has standard deviation
    ``scale``; ``"laplacian"`` has density exp(-|x| / scale) / (2 scale), thus standard deviation
    sqrt(2) * scale.

    Args:
        like: Floating-point tensor of any shape.
        scale: At least 0; 0 gives zeros and draws nothing.
        distribution: ``"gaussian"`` or ``"laplacian"``.
        generator: Where the randomness comes from; on any device.

    Raises:
        ParameterError: A negative scale, an unknown distribution, or an integer tensor.

    >>> draw_noise(torch.zeros(2), 0.0, "gaussian", torch.Generator())
    tensor([0., 0.])
    """
    settings = LocalPrivacy(gradient_noise=scale, distribution=distribution)
    if not like.is_floating_point():
        raise ParameterError(
            f"Expected a floating-point tensor to add noise to, got dtype {like.dtype}; noise on "
            "token ids has no meaning, so set `input_noise` to 0."
        )
    if settings.gradient_noise == 0:
        return torch.zeros_like(like)
    # Drawn where the generator lives: a CPU generator gives equal numbers on every machine.
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    draw = torch.empty(like.shape, dtype=dtype, device=generator.device)
    if distribution == "gaussian":
        noise = draw.normal_(generator=generator)
    else:
        # The difference of two exponentials is Laplacian, and unlike the inverse of the
        # distribution function it never takes the logarithm of zero.
        noise = draw.exponential_(generator=generator)
        noise = noise - torch.empty_like(draw).exponential_(generator=generator)
    return (noise * scale).to(like)


def add_noise(
    tensors: Sequence[Tensor], scale: float, distribution: str, generator: torch.Generator
) -> list[Tensor]:
    """Return new tensors with independent noise in every coordinate; see :func:`draw_noise`.

    Args:
        tensors: Floating-point tensors, for instance a gradient by parameter; left as they are.
        scale: At least 0; with 0 the values are returned unchanged.
        distribution: ``"gaussian"`` or ``"laplacian"``.
        generator: Where the randomness comes from.
    """
    return [t + draw_noise(t, scale, distribution, generator) for t in tensors]
