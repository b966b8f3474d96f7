"""Signal beside noise: how much of it a budget leaves, and how much a round has shown.

The noise on a mean of clipped updates has d independent coordinates, so that its norm is close to
sqrt(d) times its standard deviation; the mean itself is at most as long as the clip. Both are known
before any training. Afterwards the mean's own norm is estimated from what has been released:
|signal + noise|^2 is |signal|^2 + d std^2 on average. That is post-processing, and costs nothing.
"""

import math

__all__ = ["estimated_snr", "noise_over_clip", "noise_parts"]


def noise_parts(parties: int, max_colluding: int | None = None) -> float:
    """Return the variance of the noise on the sum over parties, in units of (z x sensitivity)^2.

    Args:
        parties: K.
        max_colluding: t, where the parties share the noise; None where each adds all of it.

    >>> noise_parts(5), noise_parts(5, max_colluding=1)
    (5.0, 1.25)
    """
    return float(parties if max_colluding is None else parties / (parties - max_colluding))


def noise_over_clip(noise_multiplier: float, num_weights: int, users: int, parts: float) -> float:
    """Return the norm of the noise on the mean update over the clip; above 1 it hides any signal.

    Args:
        noise_multiplier: z of the update.
        num_weights: d, how many numbers are trained.
        users: Of all parties, in a round.
        parts: See :func:`noise_parts`.

    >>> noise_over_clip(2.0, num_weights=10_000, users=100, parts=4.0)
    4.0
    """
    return noise_multiplier * math.sqrt(num_weights * parts) / users


def estimated_snr(squared_norm: float, num_weights: int, std: float) -> float:
    """Return the norm of the signal over that of the noise, as a noisy sum of both shows it.

    With d weights it cannot tell a ratio below about (2 / d)^(1/4) from zero, which is 0.07 for
    100,000 of them.

    Args:
        squared_norm: |signal + noise|^2.
        num_weights: d.
        std: Standard deviation of the noise in each coordinate, > 0.

    >>> estimated_snr(500.0, num_weights=100, std=1.0), estimated_snr(90.0, 100, 1.0)
    (2.0, 0.0)
    """
    noise = num_weights * std**2
    return math.sqrt(max(squared_norm - noise, 0.0) / noise)
