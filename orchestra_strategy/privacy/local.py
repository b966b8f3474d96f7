"""The settings of local privacy: what a user does to its data and gradients before sharing."""

import math
from dataclasses import dataclass

from orchestra_strategy.errors import ParameterError, did_you_mean

__all__ = ["DISTRIBUTIONS", "LocalPrivacy"]

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
