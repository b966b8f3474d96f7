"""Orchestra: one local step, and what a party keeps for it.

E. S. Lubana, C. I. Tang, F. Kawsar, R. P. Dick, A. Mathur, "Orchestra: Unsupervised Federated
Learning via Globally Consistent Clustering", ICML 2022 (PMLR 162), https://arxiv.org/abs/2205.11506.
Symbols are the paper's: f backbone, g projector, r degeneracy head, C global centroids, T
temperature, M projection memory, tau EMA decay; a prime marks the target network.

Where we deviate from the published code: the log of the online assignment is a log_softmax, the
online network does not run on x1 (the result was thrown away), and neither M nor the target
networks ever leave the party: between rounds a target follows the averaged network in place of
being averaged by the server.

Three additions are off by default. Balanced, sharpened targets
(:mod:`~orchestra_strategy.algorithms.orchestra_targets`). An instance term, which compares the
samples of a batch with each other while the clusters do not say much yet: NT-Xent (T. Chen et al.,
ICML 2020, https://arxiv.org/abs/2002.05709) between the online network's view 2 and view 1 as the
target network or the online one has it. And a limit on what the degeneracy head sees: as published
it takes projections as BatchNorm leaves them, of length sqrt(D), so that a step of SGD moves its
logits by about lr * D. With D = 512 that is beyond what is stable from a rate of 0.01 on: its loss
rises above that of guessing, and its gradient drowns the clusters'. ``deg_length`` gives the
projections a length.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchestra_strategy.algorithms.ema import frozen_statistics
from orchestra_strategy.algorithms.memory import ProjectionMemory
from orchestra_strategy.algorithms.model import parts_of
from orchestra_strategy.algorithms.objective import Batch, LossParts
from orchestra_strategy.algorithms.objective_bases import TargetObjective, ThreeViews
from orchestra_strategy.algorithms.orchestra_targets import Balance, assignments, mean_similarity
from orchestra_strategy.algorithms.precision import in_fp32
from orchestra_strategy.algorithms.simclr import nt_xent
from orchestra_strategy.errors import OrchestraError

__all__ = [
    "ContrastWith",
    "OrchestraObjective",
    "OrchestraSettings",
    "cluster_loss",
    "orchestra_loss",
    "with_length",
]


ContrastWith = Literal["target", "online"]
"""Whose projections of view 1 the instance term compares view 2 with."""


class OrchestraSettings(NamedTuple):
    """Hyper-parameters of the objective; defaults are the published ones."""

    temperature: float = 0.1
    ema_decay: float = 0.996
    deg_weight: float = 1.0
    memory_size: int = 128
    balance: Balance = "none"
    target_temperature: float | None = None
    contrast_weight: float = 0.0
    contrast_temperature: float = 0.2
    contrast_with: ContrastWith = "target"
    deg_length: float | None = None


@in_fp32
def cluster_loss(
    z2: Tensor,
    tz1: Tensor,
    C: Tensor,
    temperature: float,
    target_temperature: float | None = None,
    centre: Tensor | None = None,
) -> Tensor:
    """Cross entropy between the target's and the online network's cluster assignments.

    L = -mean_b sum_j q1 log p2, q1 = softmax((tz1 C^T - centre) / T'), p2 = softmax(z2 C^T / T).

    Args:
        z2: Online unit-norm projections of view 2, shape (B, D); takes the gradient.
        tz1: Target unit-norm projections of view 1, shape (B, D); no gradient flows here.
        C: Global unit-norm centroids, shape (N_g, D); no gradient flows here.
        temperature: T > 0.
        target_temperature: T' > 0; None is T.
        centre: Mean similarity to each centroid, shape (N_g,); None is 0, as published.

    >>> e = torch.eye(2)
    >>> round(cluster_loss(e, e, e, 1.0).item(), 4)  # q = (0.7311, 0.2689): its entropy
    0.5822
    """
    C = C.detach()
    q1 = assignments(tz1.detach(), C, target_temperature or temperature, centre)
    log_p2 = torch.log_softmax(z2 @ C.T / temperature, dim=1)
    return -(q1 * log_p2).sum(dim=1).mean()


@in_fp32
def orchestra_loss(
    z2: Tensor,
    tz1: Tensor,
    C: Tensor,
    rotation_logits: Tensor,
    rotation: Tensor,
    settings: OrchestraSettings,
    centre: Tensor | None = None,
    z1: Tensor | None = None,
) -> LossParts:
    """L = L_cluster + deg_weight * L_deg, with L_deg the cross entropy of the rotation guess.

    Where ``contrast_weight`` is not 0, NT-Xent of z2 and tz1, or of z2 and z1, times it is in the
    total, too; no gradient flows into tz1. It is no part of its own: which losses leave a party
    does not depend on its parameters.

    Args:
        z2: Online unit-norm projections of view 2, shape (B, D).
        tz1: Target unit-norm projections of view 1, shape (B, D).
        C: Global unit-norm centroids, shape (N_g, D).
        rotation_logits: r(g(f(x3))), shape (B, 4).
        rotation: Which rotation view 3 had, shape (B,), int64.
        settings: Temperatures and weights.
        centre: Mean similarity to each centroid, shape (N_g,), that the targets are centred by.
        z1: Online unit-norm projections of view 1, shape (B, D), which take the gradient, too; None
            is tz1 in their place.

    Raises:
        DataError: There is an instance term, and B is 1: there is nothing to compare with.
    """
    cluster = cluster_loss(z2, tz1, C, settings.temperature, settings.target_temperature, centre)
    degeneracy = F.cross_entropy(rotation_logits, rotation)
    total = cluster + settings.deg_weight * degeneracy
    if settings.contrast_weight:
        first = tz1.detach() if z1 is None else z1
        contrast = nt_xent(z2, first, settings.contrast_temperature)
        total = total + settings.contrast_weight * contrast
    return LossParts(total, {"cluster": cluster, "degeneracy": degeneracy})


def with_length(projections: Tensor, length: float | None) -> Tensor:
    """Return projections (B, D) with an L2 norm of ``length``; as they are for None.

    >>> with_length(torch.tensor([[3.0, 4.0]]), 10.0).tolist()
    [[6.0, 8.0]]
    """
    return projections if length is None else length * F.normalize(projections, dim=1)


class OrchestraObjective(TargetObjective):
    """The objective with what a party keeps for it: target network, memory M, centroids C.

    Args:
        model: A model with ``backbone``, ``projector`` and ``degeneracy_head``; it is not kept.
        views: Draws the three views.
        settings: Hyper-parameters.
        generator: Source of the views' randomness; replaced every round by the owner.

    Attributes:
        centroids: Global centroids C, shape (N_g, D), or None before the first global clustering.
        memory: M.

    Raises:
        ModelError: The model lacks a part.
    """

    heads = ("degeneracy_head",)
    settings_class = OrchestraSettings
    settings: OrchestraSettings

    def __init__(
        self,
        model: nn.Module,
        views: ThreeViews,
        settings: OrchestraSettings,
        generator: torch.Generator,
    ) -> None:
        super().__init__(model, views, settings, generator)
        _, (degeneracy_head,) = parts_of(model, self.heads)
        assert isinstance(degeneracy_head, nn.Linear)  # parts_of has seen to it
        width, device = degeneracy_head.in_features, degeneracy_head.weight.device
        self.memory = ProjectionMemory(settings.memory_size, width, device)
        self.centroids: Tensor | None = None

    def per_example(
        self, model: nn.Module, batch: Batch
    ) -> tuple[Callable[[nn.Module, Batch], LossParts], Batch]:
        """Move the state on once for a batch, and return what is left: a pure function of it.

        Per-example clipping takes that function's gradient row by row, which must not move the
        target network or draw views again.

        Args:
            model: The online network.
            batch: ``inputs`` (B, ...) and ``ids`` (B,).

        Returns:
            The loss, and the batch it takes: ``inputs`` (view 2), ``rotated`` (view 3),
            ``rotation`` (B,) and ``target`` (B, D), the target's projections of view 1; and
            ``first`` (view 1) where the online network needs it.

        Raises:
            OrchestraError: There are no global centroids so far.
        """
        if self.centroids is None:
            raise OrchestraError(
                "Expected `centroids` before a training step, got None: round 0 (clustering only) "
                "has not been run."
            )
        x1, x2, x3, rotation = self.draw(batch)
        (tz1,) = self.follow(model, x1)
        self.memory.append(tz1, batch["ids"])
        centroids, settings = self.centroids, self.settings
        centre = mean_similarity(settings.balance, centroids, *self.memory.places())

        def loss(model: nn.Module, prepared: Batch) -> LossParts:
            online, (degeneracy_head,) = parts_of(model, self.heads)
            z2 = F.normalize(online(prepared["inputs"]), dim=1)
            z1 = F.normalize(online(prepared["first"]), dim=1) if "first" in prepared else None
            z3 = with_length(online(prepared["rotated"]), settings.deg_length)
            tz1, rotation = prepared["target"], prepared["rotation"]
            logits = degeneracy_head(z3)
            return orchestra_loss(z2, tz1, centroids, logits, rotation, settings, centre, z1)

        prepared = {"inputs": x2, "rotated": x3, "rotation": rotation, "target": tz1}
        compares = settings.contrast_weight and settings.contrast_with == "online"
        return loss, prepared | ({"first": x1} if compares else {})

    @torch.no_grad()
    def fill_memory(self, batches: Iterable[Batch]) -> None:
        """Fill M from the target network without any training (round 0).

        BatchNorm normalises by the batch, as in training, but its running statistics stay.
        """
        with frozen_statistics(self.target):
            for batch in batches:
                x1, _, _, _ = self.draw(batch)
                self.memory.append(F.normalize(self.target(x1), dim=1), batch["ids"])

    def state_dict(self) -> dict[str, Any]:
        """Return all that must survive at the party: target network, M and C."""
        centroids = None if self.centroids is None else self.centroids.clone()
        memory = self.memory.state_dict()
        return {**super().state_dict(), "memory": memory, "centroids": centroids}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the state of :meth:`state_dict`."""
        super().load_state_dict(state)
        self.memory.load_state_dict(state["memory"])
        self.centroids = None if state["centroids"] is None else state["centroids"].clone()
