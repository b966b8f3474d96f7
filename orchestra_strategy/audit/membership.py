"""Membership inference: whether an encoder tells which samples it was trained on.

Two signals, both chosen, with their direction, before any result was seen: members have a lower
loss, S. Yeom, I. Giacomelli, M. Fredrikson, S. Jha, "Privacy Risk in Machine Learning: Analyzing
the Connection to Overfitting", CSF 2018, https://arxiv.org/abs/1709.01604; and the features of two
views of a member are more alike, H. Liu, J. Jia, W. Qu, N. Z. Gong, "EncoderMI: Membership
Inference against Pre-trained Encoders in Contrastive Learning", CCS 2021,
https://arxiv.org/abs/2108.11023 (their threshold attack, with the mean similarity).

The attacker has the model and candidate samples, and draws views of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import norm, rankdata
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from orchestra_strategy.audit.known_losses import KnownLoss
from orchestra_strategy.audit.parts import pixels
from orchestra_strategy.data.augmentation.views import Views
from orchestra_strategy.errors import DataError

__all__ = ["Auc", "alignment_scores", "auc_with_interval", "loss_scores"]

_DRAWS = 8  # views of each kind per sample


@dataclass(frozen=True)
class Auc:
    """Area under the ROC curve with its 95 % confidence interval; 0.5 is guessing.

    Attributes:
        value: The probability that a member scores higher than a non-member.
        low: Lower end of the interval.
        high: Upper end.
        signal: What was thresholded: ``loss`` or ``alignment``.
    """

    value: float
    low: float
    high: float
    signal: str

    @property
    def leaks(self) -> bool:
        """Whether the interval lies above guessing."""
        return self.low > 0.5


def auc_with_interval(members: Tensor, others: Tensor, signal: str = "loss") -> Auc:
    """Return the AUC of scores that are to be higher for members.

    The interval is that of E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, "Comparing the Areas
    under Two or More Correlated Receiver Operating Characteristic Curves", Biometrics 1988. It
    rests on a normal approximation: where members and others are separated without any overlap it
    has no width, which says nothing of the certainty.

    Args:
        members: Scores of members, shape (m,), m >= 2.
        others: Scores of non-members, shape (n,), n >= 2.
        signal: What the scores are.

    Raises:
        DataError: Fewer than two scores on a side, or one that is not finite.

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
    return Auc(value, max(value - half, 0.0), min(value + half, 1.0), signal)


@torch.no_grad()
def alignment_scores(
    model: nn.Module, samples: Tensor, views: Views, generator: torch.Generator
) -> Tensor:
    """Return how alike the features of each sample's views are: their mean cosine, shape (N,).

    Args:
        model: With ``backbone``; put into evaluation mode.
        samples: Pixels (N, C, H, W).
        views: The augmentation, which is public.
        generator: Source of the attacker's own views.
    """
    model.eval()
    backbone = model.backbone
    assert isinstance(backbone, nn.Module)
    drawn: Sequence[Tensor] = [
        F.normalize(backbone(views(samples, generator).x1), dim=1) for _ in range(_DRAWS)
    ]
    total = torch.stack(list(drawn)).sum(0)  # (N, d)
    # |sum of k unit vectors|^2 = k + the sum over ordered pairs of cosines.
    return (total.square().sum(1) - _DRAWS) / (_DRAWS * (_DRAWS - 1))


@torch.no_grad()
def loss_scores(
    model: nn.Module,
    loss: KnownLoss,
    samples: Tensor,
    classes: Tensor | None,
    views: Views,
    generator: torch.Generator,
) -> Tensor:
    """Return minus each sample's loss, a mean over the attacker's own views, shape (N,).

    Args:
        model: Put into evaluation mode.
        loss: As the server knows it; one whose samples do not act on each other.
        samples: Pixels (N, C, H, W).
        classes: Labels (N,) for a supervised loss; the rotations of the views are known.
        views: The augmentation.
        generator: Source of the attacker's own views.

    Raises:
        DataError: The loss is supervised and there are no labels.
    """
    model.eval()
    found = []
    for i in range(len(samples)):
        if not loss.views:
            if classes is None:
                raise DataError("Expected `classes` for a supervised loss, got None.")
            found.append(-loss(model, samples[i : i + 1], classes[i : i + 1]))
            continue
        drawn = views(samples[i : i + 1].expand(_DRAWS, -1, -1, -1), generator)
        found.append(-loss(model, pixels(drawn, loss.views), drawn.pretext_target))
    return torch.stack(found)
