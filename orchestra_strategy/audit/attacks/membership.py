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

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchestra_strategy.algorithms.objective_bases import RowwiseObjective
from orchestra_strategy.audit.attacks.known_losses import KnownLoss, ViewsAlone
from orchestra_strategy.audit.attacks.losses_by_objective import known_loss
from orchestra_strategy.audit.attacks.roc import Auc, auc_with_interval
from orchestra_strategy.audit.attacks.scene import Attack, Scene
from orchestra_strategy.audit.recorded_views import pixels
from orchestra_strategy.data.augmentation.views import Views
from orchestra_strategy.errors import DataError
from orchestra_strategy.rng import torch_generator

__all__ = ["Membership", "alignment_scores", "loss_scores"]

_DRAWS = 4  # views of each kind per sample


@torch.no_grad()
def alignment_scores(
    model: nn.Module, samples: Tensor, views: Views, generator: torch.Generator
) -> Tensor:
    """Return how alike the features of each sample's views are: their mean cosine, shape (N,).

    Args:
        model: With ``backbone``; put into evaluation mode.
        samples: Pixels (N, C, H, W), or rows (N, F).
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
        drawn = views(samples[i : i + 1].expand(_DRAWS, *samples.shape[1:]), generator)
        found.append(-loss(model, pixels(drawn, loss.views), drawn.pretext_target))
    return torch.stack(found)


class Membership(Attack):
    """Both signals on the trained encoder."""

    name = "membership"
    sees = "the encoder after the last round, and candidate samples"
    limits = "It sets thresholds on single samples; stronger tests train many models of their own."

    def run(self, scene: Scene) -> tuple[Auc, ...]:
        """Threshold the loss, where it is known and a sample's own, and the likeness of views."""
        party, model = scene.party, scene.party.model
        model.eval()
        known = known_loss(model, party.objective)
        own_loss = isinstance(party.objective, RowwiseObjective)
        signals = ["loss"] if own_loss and not isinstance(known, ViewsAlone) else []
        found = []
        for signal in (*signals, "alignment"):
            scores = []
            for who, samples in scene.split.sides():
                stream = torch_generator(scene.config.seed, "attacker", 0, f"{signal} {who}")
                if signal == "loss":
                    scores.append(loss_scores(model, known, samples, None, scene.views, stream))
                else:
                    scores.append(alignment_scores(model, samples, scene.views, stream))
            found.append(auc_with_interval(scores[0], scores[1], signal))
        return tuple(found)
