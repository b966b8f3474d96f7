"""The settings of local privacy: what a user does to its data and gradients before sharing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from orchestra_strategy.errors import ParameterError, did_you_mean

__all__ = ["DISTRIBUTIONS", "LocalPrivacy", "add_noise", "draw_noise"]

DISTRIBUTIONS = ("gaussian", "laplacian")


@dataclass(frozen=True)
class LocalPrivacy:
    """Clip and noise of one user; the default is no defence at all.

    Attributes:
        gradient_noise: Added to every gradient that the user computes: the standard deviation for
            ``"gaussian"``, the scale b (standard deviation sqrt(2) b) for ``"laplacian"``; 0 is
            off.
        input_noise: The same, added to a copy of the inputs before each forward pass.
        distribution: ``"gaussian"`` or ``"laplacian"``, for both noises.
        per_example_clipping: Largest L2 norm of one example's gradient over all parameters; 0 is
            off.

    Raises:
        ParameterError: A negative or non-finite number, or an unknown distribution.

    >>> LocalPrivacy().active
    False
    >>> LocalPrivacy(gradient_noise=0.1).active
    True
    """

    gradient_noise: float = 0.0
    input_noise: float = 0.0
    distribution: str = "gaussian"
    per_example_clipping: float = 0.0

    def __post_init__(self) -> None:
        for name in ("gradient_noise", "input_noise", "per_example_clipping"):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (number and math.isfinite(value) and value >= 0):
                raise ParameterError(
                    f"Expected `{name}` to be a finite number of at least 0, got {value!r}; 0 "
                    "turns it off."
                )
        if self.distribution not in DISTRIBUTIONS:
            raise ParameterError(
                f"Expected `distribution` to be one of {', '.join(map(repr, DISTRIBUTIONS))}, got "
                f"{self.distribution!r}; {did_you_mean(str(self.distribution), DISTRIBUTIONS)}."
            )

    @property
    def active(self) -> bool:
        """Whether anything differs from plain training."""
        return bool(self.gradient_noise or self.input_noise or self.per_example_clipping)


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
