"""Room for a sum in the fixed-point numbers of an aggregator, where too large a one wraps around.

SecretFlow's SecureAggregator computes with whole numbers of 64 bits, 18 of them behind the point,
and multiplies by a party's weight before it adds: sums below 2**45 fit. Its SPU has twice the bits
behind the point after a multiplication, and keeps two more bits free to round by.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from orchestra_strategy.errors import ReplyError
from orchestra_strategy.exchange.payload import FloatArray
from orchestra_strategy.exchange.received import named

__all__ = ["Ring"]

_USUAL_LIMIT = 2.0**45  # a SecureAggregator's as it comes; an SPU of 128 bits holds more
_UNKNOWN_PARTIES = 64  # with SecretFlow's own FLModel nobody tells a party how many there are
_ROUNDING = 1 - 2.0**-20  # the product with the weight is rounded to float32


class Ring(NamedTuple):
    """What is added up, and how much has room.

    Attributes:
        parties: How many add up; 0 where nothing wraps around, None where that is not known.
        limit: What the sum of numbers times weights has to stay below; None where that is not
            known.
    """

    parties: int | None = None
    limit: float | None = None

    def check(self, arrays: Mapping[str, FloatArray], weight: int, who: str) -> None:
        """Refuse numbers whose sum over the parties could wrap around, unseen.

        Args:
            arrays: What is sent, finite.
            weight: What the aggregator multiplies it by.
            who: The sender, named in the message.

        Raises:
            ReplyError: |w| x weight x parties can reach the limit.
        """
        if self.parties == 0:
            return
        parties = _UNKNOWN_PARTIES if self.parties is None else self.parties
        limit = (_USUAL_LIMIT if self.limit is None else self.limit) * _ROUNDING
        limit /= max(weight, 1) * parties
        for name, array in arrays.items():
            largest = float(np.abs(array).max(initial=0.0))
            if not largest < limit:
                raise ReplyError(
                    f"Expected `{named(name)}` of {who} to be below {limit:.4g} in absolute value, "
                    f"got {largest:.4g}: the sum of {parties} parties, each times its weight (here "
                    f"{weight}), would leave the ring of the secure aggregator and come back as "
                    "another number. Standardise the features, lower `lr`, use `norm='group'` in "
                    "the model, or the route 'server'."
                )
