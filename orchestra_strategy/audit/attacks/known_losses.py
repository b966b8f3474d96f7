"""The losses as a server can compute them, without what the party keeps to itself.

The server knows the model, the objective, its hyper-parameters and, for Orchestra, the global
centroids C. It does not know which views a party drew: they are what the attack searches for, one
image per view, so that a recovered view counts as a leak. Nor does it know the target network: the
server takes a copy of the weights it sent in its place, which is right in the first round and then
an approximation.

In the party's losses no gradient flows into targets. For the search it must reach their pixels, so
the targets here come from a copy whose weights are frozen, and nothing is detached.
"""

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchestra_strategy.algorithms.ema import frozen_copy
from orchestra_strategy.algorithms.masked import hide, reconstruction_loss
from orchestra_strategy.algorithms.model import parts_of
from orchestra_strategy.algorithms.orchestra_objective import OrchestraSettings, with_length
from orchestra_strategy.algorithms.orchestra_targets import assignments, mean_similarity
from orchestra_strategy.algorithms.simclr import nt_xent
from orchestra_strategy.errors import ParameterError
from orchestra_strategy.rng import torch_generator

__all__ = [
    "KnownLoss",
    "MaskedLoss",
    "OrchestraLoss",
    "PairLoss",
    "PredictionLoss",
    "RotationLoss",
    "Supervised",
    "ViewsAlone",
]


class KnownLoss(Protocol):
    """A loss of images in [0, 1] and classes, as the server can compute it.

    Attributes:
        views: Which of the three views it looks at, by number; empty for the samples themselves.
        online: Those of them that go through the trained network, and not through a target alone.
        class_bias: The parameter whose gradient tells the classes; None if it knows no classes.
        class_weight: The weight of the classes' cross entropy in the loss.
    """

    views: tuple[int, ...]
    online: tuple[int, ...]
    class_bias: str | None
    class_weight: float

    def __call__(self, model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
        """Return the mean loss of images (n, ...) with classes (n,), as a scalar."""
        ...

    def logits(self, model: nn.Module, images: Tensor) -> Tensor:
        """Return the logits of the classes (n, classes) of images (n, ...)."""
        ...


def _model_input(images: Tensor) -> Tensor:
    # As orchestra_strategy.data.to_model_input; rows of a table pass as they are.
    return images if images.ndim == 2 else images * 2 - 1


class Supervised:
    """Cross entropy of the labels.

    Args:
        class_bias: The bias of the last layer, by name.
        scale: From pixels in [0, 1] to what the model takes.
    """

    views: tuple[int, ...] = ()
    online: tuple[int, ...] = ()
    class_weight = 1.0

    def __init__(
        self, class_bias: str | None, scale: Callable[[Tensor], Tensor] = _model_input
    ) -> None:
        self.class_bias = class_bias
        self.scale = scale

    def __call__(self, model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
        """Return the mean cross entropy; images (n, C, H, W)."""
        return F.cross_entropy(self.logits(model, images), classes)

    def logits(self, model: nn.Module, images: Tensor) -> Tensor:
        """Return the model's outputs (n, classes)."""
        outputs: Tensor = model(self.scale(images))
        return outputs


class RotationLoss:
    """Cross entropy of the turned view's rotation; images (n, 1, C, H, W)."""

    length: float | None = None  # of the projections that the head sees
    views: tuple[int, ...] = (2,)
    online: tuple[int, ...] = (2,)
    class_bias: str | None = "degeneracy_head.bias"
    class_weight = 1.0

    def __call__(self, model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
        """Return the mean cross entropy."""
        return F.cross_entropy(self.logits(model, images), classes)

    def logits(self, model: nn.Module, images: Tensor) -> Tensor:
        """Return the logits of the four rotations (n, 4), by the last of the views."""
        encoder, (head,) = parts_of(model, ("degeneracy_head",))
        logits: Tensor = head(with_length(encoder(_model_input(images[:, -1])), self.length))
        return logits


class OrchestraLoss(RotationLoss):
    """Orchestra's two losses; images (n, 3, C, H, W).

    Args:
        model: With the weights that the server sent.
        centroids: C, shape (N_g, D).
        settings: The objective's. Of a memory that targets are centred by the server knows nothing:
            the images' own mean stands in.
    """

    views: tuple[int, ...] = (0, 1, 2)
    online: tuple[int, ...] = (1, 2)

    def __init__(self, model: nn.Module, centroids: Tensor, settings: OrchestraSettings) -> None:
        self.target = frozen_copy(parts_of(model).encoder)
        self.centroids = centroids
        self.settings = settings
        self.class_weight = settings.deg_weight
        self.length = settings.deg_length
        if settings.contrast_weight and settings.contrast_with == "online":
            self.online = (0, 1, 2)
        if not settings.deg_weight:
            self.class_bias = None

    def __call__(self, model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
        """Return the mean loss."""
        x1, x2 = _model_input(images[:, 0]), _model_input(images[:, 1])
        C, known = self.centroids, self.settings
        tz1 = F.normalize(self.target(x1), dim=1)
        centre = mean_similarity(known.balance, C, tz1)
        q1 = assignments(tz1, C, known.target_temperature or known.temperature, centre)
        z2 = F.normalize(parts_of(model).encoder(x2), dim=1)
        loss = -(q1 * torch.log_softmax(z2 @ C.T / known.temperature, dim=1)).sum(dim=1).mean()
        if known.contrast_weight and len(images) > 1:
            z1 = F.normalize(parts_of(model).encoder(x1), dim=1) if 0 in self.online else tz1
            loss = loss + known.contrast_weight * nt_xent(z2, z1, known.contrast_temperature)
        return loss + self.class_weight * super().__call__(model, images, classes)


class PairLoss:
    """A function of two views' unit-norm projections; images (n, 2, C, H, W).

    Args:
        of: (z1, z2) -> scalar.
    """

    views: tuple[int, ...] = (0, 1)
    online: tuple[int, ...] = (0, 1)
    class_bias: str | None = None
    class_weight = 1.0

    def __init__(self, of: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.of = of

    def __call__(self, model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
        """Return the loss of the batch."""
        encoder = parts_of(model).encoder
        z1, z2 = (F.normalize(encoder(_model_input(images[:, v])), dim=1) for v in (0, 1))
        return self.of(z1, z2)

    def logits(self, model: nn.Module, images: Tensor) -> Tensor:
        """There are no classes: zeros (n, 1)."""
        return images.new_zeros(len(images), 1)


class PredictionLoss(PairLoss):
    """SimSiam's and BYOL's loss: minus the cosine between prediction and target, both ways.

    Args:
        model: With the weights that the server sent; the targets come from a frozen copy of it.
        factor: 1 for SimSiam; BYOL's loss is 4 times it plus a constant.
    """

    def __init__(self, model: nn.Module, factor: float = 1.0) -> None:
        self.target = frozen_copy(parts_of(model).encoder)
        self.factor = factor

    def __call__(self, model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
        """Return the mean loss."""
        encoder, (predictor,) = parts_of(model, ("predictor",))
        views = [_model_input(images[:, v]) for v in (0, 1)]
        targets = [self.target(x) for x in views]
        pairs = ((views[0], targets[1]), (views[1], targets[0]))
        cosines = [F.cosine_similarity(predictor(encoder(x)), t, dim=1).mean() for x, t in pairs]
        return -self.factor * (cosines[0] + cosines[1]) / 2


class MaskedLoss(PairLoss):
    """Masked reconstruction of view 1; images (n, 1, C, H, W).

    The server knows how much is hidden, and not where: it hides parts of its own choice, the same
    in every step of a search.

    Args:
        ratio: The share that is hidden.
    """

    views: tuple[int, ...] = (0,)
    online: tuple[int, ...] = (0,)

    def __init__(self, ratio: float) -> None:
        self.ratio = ratio

    def __call__(self, model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
        """Return the mean loss."""
        guessed = torch_generator(0, "server", 0, "hidden")
        return reconstruction_loss(model, hide(_model_input(images[:, 0]), self.ratio, guessed))


class ViewsAlone:
    """What is known of somebody's own objective: that it looks at views, but not its loss."""

    views: tuple[int, ...] = (0, 1, 2)
    online: tuple[int, ...] = (0, 1, 2)
    class_bias: str | None = None
    class_weight = 1.0

    def __init__(self, objective: object) -> None:
        self.name = type(objective).__name__

    def __call__(self, model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
        """Refuse.

        Raises:
            ParameterError: Always.
        """
        raise ParameterError(
            f"Expected an objective whose loss the audit knows, got {self.name}; use attacks that "
            "need no loss, such as 'span'."
        )

    def logits(self, model: nn.Module, images: Tensor) -> Tensor:
        """There are no classes: zeros (n, 1)."""
        return images.new_zeros(len(images), 1)
