"""What a noisy reply is worth as differential privacy."""

import math

from orchestra_strategy.errors import ParameterError
from orchestra_strategy.privacy.local import LocalPrivacy

__all__ = ["epsilon_of"]


def epsilon_of(privacy: LocalPrivacy, batch_size: int, releases: int, delta: float) -> float | None:
    """Return epsilon of the Gaussian mechanism after so many releases of one sample's gradient.

    It assumes: each gradient is a mean over ``batch_size`` samples of gradients clipped to C, so
    that one sample more or less moves it by at most C / batch_size; a sample is in one batch of
    each release (a pass), and every sample is, so that nothing is gained by subsampling; the noise
    of other users does not count; and nothing leaves the party but these gradients. Orchestra's
    local centroids, which leave without noise, are not covered.

    Args:
        privacy: Clip and noise.
        batch_size: Samples behind one gradient.
        releases: How often each sample's gradient is released.
        delta: The probability that the bound may fail with; of the order of 1 / samples or less.

    Returns:
        Epsilon by Rényi accounting (an upper bound), or None where there is no such bound: without
        clipping, without noise on the gradient, or with Laplacian noise, which this does not count.

    Raises:
        ParameterError: ``delta`` is not in (0, 1), or a count is below 1.

    >>> round(epsilon_of(LocalPrivacy(0.5, 0.0, "gaussian", 1.0), 8, 1, 1e-5), 1)  # multiplier 4
    1.2
    >>> epsilon_of(LocalPrivacy(gradient_noise=0.5), 8, 1, 1e-5) is None
    True
    """
    if not 0 < delta < 1:
        raise ParameterError(f"Expected `delta` to be in (0, 1), got {delta!r}.")
    if min(batch_size, releases) < 1:
        raise ParameterError(
            f"Expected `batch_size` and `releases` to be at least 1, got {batch_size}, {releases}."
        )
    clip, noise = privacy.per_example_clipping, privacy.gradient_noise
    if not clip or not noise or privacy.distribution != "gaussian":
        return None
    # Imported here, because it takes a second and most of the package needs none of it.
    import dp_accounting  # type: ignore[import-untyped]

    event = dp_accounting.GaussianDpEvent(noise * batch_size / clip)
    accountant = dp_accounting.rdp.RdpAccountant()
    accountant.compose(event, releases)
    epsilon = float(accountant.get_epsilon(delta))
    return epsilon if math.isfinite(epsilon) else None
