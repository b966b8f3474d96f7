"""The area under the ROC curve of members against others, with its interval."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import norm, rankdata
from sklearn.metrics import roc_auc_score
from torch import Tensor

from orchestra_strategy.errors import DataError

__all__ = ["Auc", "auc_with_interval"]

_CAUTION = 3.09  # standard errors: 1 in 1000 for a normal distribution


@dataclass(frozen=True)
class Auc:
    """Area under the ROC curve with its 95 % confidence interval; 0.5 is guessing.

    Attributes:
        value: The probability that a member scores higher than a non-member.
        low: Lower end of the interval.
        high: Upper end.
        signal: What was thresholded, such as ``loss`` or ``alignment``.
        error: The standard error of ``value``.
        attack: The attack whose signal it is.
    """

    value: float
    low: float
    high: float
    signal: str
    error: float
    attack: str = "membership"

    @property
    def leaks(self) -> bool:
        """Whether the value lies above guessing, with a chance of error of 1 in 1000.

        An audit looks at some twenty signals: at 1 in 40 one of them would often be above by luck.
        """
        return self.value - _CAUTION * self.error > 0.5

    @property
    def told(self) -> str:
        """What was found, as a part of a sentence."""
        return f"membership shows in the {self.signal} ({100 * self.value:.0f} % told apart)"

    def plain(self) -> dict[str, Any]:
        """Return it as plain types."""
        return {**asdict(self), "leaks": self.leaks}


def auc_with_interval(
    members: Tensor, others: Tensor, signal: str = "loss", attack: str = "membership"
) -> Auc:
    """Return the AUC of scores that are to be higher for members.

    The interval is that of E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, "Comparing the Areas
    under Two or More Correlated Receiver Operating Characteristic Curves", Biometrics 1988. It
    rests on a normal approximation: where members and others are separated without any overlap it
    has no width, which says nothing of the certainty.

    Args:
        members: Scores of members, shape (m,), m >= 2.
        others: Scores of non-members, shape (n,), n >= 2.
        signal: What the scores are.
        attack: Whose they are.

    Raises:
        DataError: Fewer than two scores on a side, or one that is not finite.

    >>> import torch
    >>> auc_with_interval(torch.tensor([2.0, 3.0]), torch.tensor([0.0, 1.0])).value
    1.0
    """
    x, y = (np.asarray(s.detach(), dtype=np.float64) for s in (members, others))
    m, n = len(x), len(y)
    if min(m, n) < 2:
        raise DataError(f"Expected at least 2 members and 2 others, got {m} and {n}.")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DataError("Expected `members` and `others` to be finite, got NaN or infinite scores.")
    both = np.concatenate([x, y])
    value = float(roc_auc_score(np.repeat([1, 0], [m, n]), both))
    ranks = rankdata(both)
    # A sample's placement: the share of the other side that it wins against.
    wins = (ranks[:m] - rankdata(x)) / n
    losses = 1 - (ranks[m:] - rankdata(y)) / m
    error = float(np.sqrt(wins.var(ddof=1) / m + losses.var(ddof=1) / n))
    half = float(norm.ppf(0.975)) * error
    return Auc(value, max(value - half, 0.0), min(value + half, 1.0), signal, error, attack)
