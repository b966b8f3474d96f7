"""Discrete Gaussian noise, exact to the last bit, by the library OpenDP.

C. Canonne, G. Kamath, T. Steinke, "The Discrete Gaussian for Differential Privacy", NeurIPS 2020,
https://arxiv.org/abs/2004.00010. It is drawn in whole numbers from the operating system's
randomness, so that no attack on floating-point noise has anything to work on, and nothing can
repeat it. Its Renyi divergences are no larger than those of the Gaussian of the same scale
(proposition 5), so that the accounting by RDP covers it.
"""

from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestra_strategy.errors import PrivacyError

__all__ = ["discrete_gaussian", "require_opendp"]


def require_opendp() -> None:
    """Refuse to go on without the library.

    Raises:
        PrivacyError: It is not installed.
    """
    if find_spec("opendp") is None:
        raise PrivacyError(
            "Expected `opendp` to be installed for `noise_sampler='discrete'`, got none; "
            "`pip install 'orchestra-strategy[discrete]'`."
        )


def discrete_gaussian(size: int, scale: float) -> npt.NDArray[np.float64]:
    """Draw independent whole numbers, P(k) proportional to exp(-k^2 / (2 scale^2)), shape (size,).

    Some ten thousand a second.

    Raises:
        PrivacyError: The library is not installed.
    """
    require_opendp()
    # Not at the top: it is an extra, and its start takes a second.
    from opendp import domains, measurements, metrics, mod

    mod.enable_features("contrib")
    domain = domains.vector_domain(domains.atom_domain(T="i64"))
    draw: Any = measurements.make_gaussian(domain, metrics.l2_distance(T="i64"), scale=scale)
    return np.array(draw([0] * size), np.float64)
