"""The utility of an encoder to its owner, on samples that it was not trained on."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from orchestra_strategy.audit.samples import Split
from orchestra_strategy.data.augmentation.views import Views
from orchestra_strategy.evaluation import ProbeResult, extract_features, health_of, probe_protocol
from orchestra_strategy.rng import torch_generator

__all__ = ["LABELS_PER_CLASS", "Utility", "utility_of"]

LABELS_PER_CLASS = 5
_DRAWS = 5  # of the labelled samples


@dataclass(frozen=True)
class Utility:
    """What an encoder is worth.

    Attributes:
        probe: Linear probe with 5 labels per class on the others, a fraction, mean and deviation
            over 5 draws of the labels; None without labels, or where a class has fewer.
        knn: Accuracy of nearest neighbours among the members on the others; None likewise.
        alignment: Mean squared distance of two views of one of the others; 0 is best.
        uniformity: Of their features; lower is better.
        effective_rank: Of their features; the number of directions in use.
    """

    probe: ProbeResult | None
    knn: float | None
    alignment: float
    uniformity: float
    effective_rank: float

    def beats(self, control: "Utility") -> bool | None:
        """Whether the probe is better than the control's; None where there are no labels.

        Both have the same labelled samples in each draw, so the draws are compared one by one: the
        mean difference must exceed twice its standard error.
        """
        if self.probe is None or control.probe is None:
            return None
        pairs = zip(self.probe.values, control.probe.values, strict=True)
        gain = ProbeResult.from_values([own - other for own, other in pairs])
        return gain.mean > 0 and gain.mean > 2 * gain.std / len(gain.values) ** 0.5


def utility_of(model: nn.Module, split: Split, views: Views, seed: int) -> Utility:
    """Measure the backbone: members are the bank and the labelled samples, others the test.

    Args:
        model: With ``backbone``.
        split: The party's samples.
        views: The augmentation, for alignment.
        seed: Of the labelled samples and the views.
    """
    backbone = model.backbone
    assert isinstance(backbone, nn.Module)
    probe, knn = None, None
    if split.member_labels is not None and split.other_labels is not None:
        labels, truth = split.member_labels.numpy(), split.other_labels.numpy()
        rows_of_class = np.unique(labels, return_counts=True)[1]
        if len(rows_of_class) > 1 and rows_of_class.min() >= LABELS_PER_CLASS:
            bank, queries = (extract_features(backbone, x) for x in (split.members, split.others))
            pairs = {"encoder": (bank, queries)}
            counts = (LABELS_PER_CLASS,)
            found = probe_protocol(pairs, labels, truth, counts, _DRAWS, seed)["encoder"]
            probe, knn = found[str(LABELS_PER_CLASS)], found["knn"].mean
    drawn = views(split.others, torch_generator(seed, "auditor", 0, "health"))
    model.eval()
    with torch.no_grad():
        health = health_of(backbone(drawn.x1), backbone(drawn.x2))
    return Utility(probe, knn, health.alignment, health.uniformity, health.effective_rank)
