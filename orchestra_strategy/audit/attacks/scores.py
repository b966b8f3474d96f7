"""Scores of an attack against the truth, each beside what is had without any attack.

Only this side sees the true data.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

__all__ = [
    "Leakage",
    "chance_overlap",
    "label_overlap",
    "leakage",
    "matched",
    "psnr",
    "ssim",
]

_EXACT = 99.0  # dB, in place of infinity, which JSON lacks
_RANDOM_GUESSES = 8  # draws of other samples as a control
MARGIN = 1.0  # dB above every control, from which on an image counts as leaked; fixed beforehand


def label_overlap(found: Tensor, truth: Tensor, classes: int = 10) -> float:
    """Return the fraction of the true labels (n,) found, as multisets: order does not count.

    >>> label_overlap(torch.tensor([7, 7, 1, 2]), torch.tensor([1, 7, 3, 3]))
    0.5
    """
    counts = [torch.bincount(labels, minlength=classes) for labels in (found, truth)]
    return int(torch.minimum(*counts).sum()) / len(truth)


def chance_overlap(
    truth: Tensor, generator: torch.Generator, classes: int = 10, draws: int = 20_000
) -> float:
    """Return the mean :func:`label_overlap` of labels guessed uniformly at random."""
    guesses = torch.randint(classes, (draws, len(truth)), generator=generator)
    counts = [F.one_hot(labels, classes).sum(-2) for labels in (guesses, truth)]
    return torch.minimum(*counts).sum(1).double().mean().item() / len(truth)


def matched(found: Tensor, truth: Tensor) -> Tensor:
    """Reorder the reconstruction so that the total squared error is least.

    The server knows no order, so it is not asked for one. This favours the attack a little, and
    the control, the same image everywhere, not at all; the control of random images as much.

    Args:
        found: Shape (n, C, H, W).
        truth: Shape (n, C, H, W).
    """
    errors = torch.cdist(truth.flatten(1), found.flatten(1)) ** 2
    _, columns = linear_sum_assignment(errors.numpy())
    return found[torch.as_tensor(columns)]


def psnr(found: Tensor, truth: Tensor) -> list[float]:
    """Return the peak signal-to-noise ratio of each image, in dB, for pixels in [0, 1].

    Of a table's rows it is the same formula, with 1 (a standard deviation) for the peak.
    """
    pairs = zip(found, truth, strict=True)
    return [min(peak_signal_noise_ratio(*p, data_range=1.0).item(), _EXACT) for p in pairs]


def ssim(found: Tensor, truth: Tensor) -> list[float]:
    """Return the structural similarity of each image (n, C, H, W), pixels in [0, 1].

    Z. Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE
    TIP 2004. The usual window of 11 pixels does not fit into small images: below 24 pixels a side
    it is a flat one of 3. Of a table's rows (n, F) it is the correlation over columns.
    """
    if truth.ndim == 2:
        pair = (found - found.mean(1, keepdim=True), truth - truth.mean(1, keepdim=True))
        return F.cosine_similarity(*pair, dim=1).tolist()
    small = min(truth.shape[-2:]) < 24
    values = structural_similarity_index_measure(
        found,
        truth,
        gaussian_kernel=not small,
        kernel_size=3 if small else 11,
        data_range=1.0,
        reduction="none",
    )
    assert isinstance(values, Tensor)
    return [float(value) for value in values.flatten()]


@dataclass(frozen=True)
class Leakage:
    """How near an attack came, with the controls; all values are means over the samples.

    Attributes:
        psnr: Of each sample's best view, in dB.
        ssim: Of the same views.
        control_mean_psnr: The mean of other samples as the guess for every image.
        control_mean_ssim: The same by structural similarity.
        control_random_psnr: Other samples at random as the guess, matched as the attack's are.
        control_random_ssim: The same by structural similarity.
        leaked: Samples of which a view is at least 1 dB nearer than by both controls.
        samples: How many there are.
    """

    psnr: float
    ssim: float
    control_mean_psnr: float
    control_mean_ssim: float
    control_random_psnr: float
    control_random_ssim: float
    leaked: int
    samples: int

    @property
    def above_control(self) -> float:
        """How many dB the attack is above the better of its controls."""
        return self.psnr - max(self.control_mean_psnr, self.control_random_psnr)

    @classmethod
    def together(cls, parts: Sequence["Leakage"]) -> "Leakage":
        """Return the scores of several reconstructions: means over all samples, and sums of counts.

        >>> one, two = Leakage(20, 1, 0, 0, 0, 0, 1, 1), Leakage(14, 0.5, 0, 0, 0, 0, 0, 2)
        >>> both = Leakage.together([one, two])
        >>> both.psnr, both.leaked, both.samples
        (16.0, 1, 3)
        """
        total = sum(part.samples for part in parts)
        counted = ("leaked", "samples")
        means = {
            field.name: sum(getattr(p, field.name) * p.samples for p in parts) / total
            for field in fields(cls)
            if field.name not in counted
        }
        return cls(**means, leaked=sum(p.leaked for p in parts), samples=total)


def leakage(
    found: Tensor, truth: Tensor, others: Tensor, generator: torch.Generator
) -> tuple[Leakage, Tensor]:
    """Score a reconstruction.

    Args:
        found: As many images as ``truth`` has, in any order, shape (n * V, C, H, W); or rows of a
            table (n * V, F), and likewise below.
        truth: What the network saw: V views of n samples, shape (n, V, C, H, W).
        others: The same views of other samples, shape (m, V, C, H, W), m >= n.
        generator: Draws the random guesses.

    Returns:
        The scores, and the reconstruction in the order of the truth, shape (n, V, C, H, W).
    """
    n, num_views = truth.shape[:2]
    flat = truth.flatten(0, 1)
    ordered = matched(found, flat)
    own = _best(ordered, flat, num_views)
    mean = _best(others.mean(0).expand(n, *truth.shape[1:]).flatten(0, 1), flat, num_views)
    random = []
    for _ in range(_RANDOM_GUESSES):
        rows = torch.randperm(len(others), generator=generator)[:n]
        random.append(_best(matched(others[rows].flatten(0, 1), flat), flat, num_views))
    drawn = torch.stack(random).mean(0)  # (2, n)
    above = own[0] >= torch.maximum(mean[0], drawn[0]) + MARGIN
    (psnr_, ssim_), (mean_psnr, mean_ssim), (random_psnr, random_ssim) = (
        values.mean(1).tolist() for values in (own, mean, drawn)
    )
    scores = Leakage(
        psnr=psnr_,
        ssim=ssim_,
        control_mean_psnr=mean_psnr,
        control_mean_ssim=mean_ssim,
        control_random_psnr=random_psnr,
        control_random_ssim=random_ssim,
        leaked=int(above.sum()),
        samples=n,
    )
    return scores, ordered.reshape(truth.shape)


def _best(found: Tensor, truth: Tensor, num_views: int) -> Tensor:
    """Return PSNR and SSIM (2, n) of each sample's view with the highest PSNR."""
    values = torch.tensor([psnr(found, truth), ssim(found, truth)]).reshape(2, -1, num_views)
    best = values[0].argmax(1, keepdim=True)  # (n, 1)
    return torch.stack([value.gather(1, best).squeeze(1) for value in values])
