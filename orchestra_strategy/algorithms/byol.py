"""BYOL: predict what a slowly moving average of the network projects the other view to.

J.-B. Grill et al., "Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning", NeurIPS
2020, https://arxiv.org/abs/2006.07733, eq. 1 to 3. Where we deviate: tau is constant (the paper
raises it to 1 by a cosine), and the projector is that of the other methods here. The target network
never leaves the party.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from orchestra_strategy.algorithms.model import parts_of
from orchestra_strategy.algorithms.objective import Batch, LossParts
from orchestra_strategy.algorithms.objective_bases import TargetObjective
from orchestra_strategy.algorithms.simsiam import negative_cosine

__all__ = ["BYOLObjective", "BYOLSettings", "byol_loss"]


class BYOLSettings(NamedTuple):
    """Hyper-parameters: tau of the target network, t <- tau * t + (1 - tau) * o."""

    ema_decay: float = 0.996


def byol_loss(p1: Tensor, p2: Tensor, t1: Tensor, t2: Tensor) -> Tensor:
    """mean_b |unit(p1) - unit(t2)|^2 + mean_b |unit(p2) - unit(t1)|^2, in [0, 8].

    Args:
        p1: Predictions from view 1, shape (B, D).
        p2: Predictions from view 2, shape (B, D).
        t1: The target's projections of view 1, shape (B, D); no gradient flows here.
        t2: The target's projections of view 2, shape (B, D); no gradient flows here.

    >>> import torch
    >>> p, t = torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]])
    >>> round(byol_loss(p, p, t, t).item(), 4)  # twice 2 - 2 * 0.6
    1.6
    """
    # |unit(p) - unit(t)|^2 = 2 - 2 cos(p, t)
    return 4 + 2 * negative_cosine(p1, t2) + 2 * negative_cosine(p2, t1)


class BYOLObjective(TargetObjective):
    """BYOL's loss, symmetric in the views; see :class:`SelfSupervisedObjective` for arguments."""

    heads = ("predictor",)
    settings_class = BYOLSettings
    settings: BYOLSettings

    def per_example(
        self, model: nn.Module, batch: Batch
    ) -> tuple[Callable[[nn.Module, Batch], LossParts], Batch]:
        """Draw the views and move the target network on; what is left is a pure function.

        Args:
            model: The online network.
            batch: ``inputs`` (B, ...).

        Returns:
            The loss, and the batch it takes: ``inputs`` (view 1), ``inputs2`` (view 2), and the
            target's unit-norm projections of them, ``target1`` and ``target2`` (B, D).
        """
        x1, x2, _, _ = self.draw(batch)
        t1, t2 = self.follow(model, x1, x2)

        def loss(model: nn.Module, prepared: Batch) -> LossParts:
            encoder, (predictor,) = parts_of(model, self.heads)
            p1, p2 = (predictor(encoder(prepared[view])) for view in ("inputs", "inputs2"))
            return LossParts(byol_loss(p1, p2, prepared["target1"], prepared["target2"]), {})

        return loss, {"inputs": x1, "inputs2": x2, "target1": t1, "target2": t2}
