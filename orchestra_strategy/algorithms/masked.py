"""Masked reconstruction: tell what stands in the hidden parts of a sample.

K. He, X. Chen, S. Xie, Y. Li, P. Dollár, R. Girshick, "Masked Autoencoders Are Scalable Vision
Learners", CVPR 2022, https://arxiv.org/abs/2111.06377; Z. Xie et al., "SimMIM: A Simple Framework
for Masked Image Modeling", CVPR 2022, https://arxiv.org/abs/2111.09886. Where we deviate, for small
convolutional networks: hidden patches are grey in place of left out; the decoder is one layer on
the projection, as the other methods' heads are; it tells the means of an 8x8 grid of cells in place
of pixels, and these are standardised by picture and not by patch, whose four cells would lose what
tells them from other patches. Rows of a table have columns hidden, which are told as they are.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchestra_strategy.algorithms.devices import constant, sent_to
from orchestra_strategy.algorithms.heads import DECODED_SIDE
from orchestra_strategy.algorithms.model import parts_of
from orchestra_strategy.algorithms.objective import Batch, LossParts
from orchestra_strategy.algorithms.objective_bases import RowwiseObjective
from orchestra_strategy.algorithms.precision import in_fp32
from orchestra_strategy.errors import ModelError

__all__ = [
    "MaskedObjective",
    "MaskedSettings",
    "chosen_parts",
    "hide",
    "masked_loss",
    "reconstruction_loss",
]

_SIDE = 4  # a picture has 4x4 patches of 2x2 cells, or as many as it has pixels where it is smaller
_FLAT = 1e-3  # a standard deviation of pixels, of [-1, 1], below which a picture counts as even


class MaskedSettings(NamedTuple):
    """Hyper-parameters of the objective; the default is SimMIM's."""

    mask_ratio: float = 0.6


@in_fp32
def masked_loss(guess: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
    """mean_b sum_v hidden_bv (guess_bv - target_bv)^2 / sum_v hidden_bv.

    Args:
        guess: The decoder's, shape (B, V); takes the gradient.
        target: What was there, shape (B, V).
        hidden: Which values were hidden, shape (B, V), bool; at least one in each row.

    >>> guess, target = torch.tensor([[1.0, 9.0, 0.0]]), torch.tensor([[3.0, 0.0, 0.0]])
    >>> masked_loss(guess, target, torch.tensor([[True, False, True]])).item()  # (4 + 0) / 2
    2.0
    """
    squares = (guess - target).square() * hidden
    return (squares.sum(dim=1) / hidden.sum(dim=1)).mean()


def chosen_parts(drawn: Tensor, ratio: float) -> Tensor:
    """Return which parts are hidden, (B, P) bool: in each row those of the smallest numbers.

    Args:
        drawn: Random numbers, shape (B, P); equal ones are hidden together.
        ratio: The share of the parts that is hidden, rounded, but never none, and of several never
            all.

    >>> chosen_parts(torch.tensor([[0.9, 0.1, 0.5, 0.7]]), 0.5).tolist()
    [[False, True, True, False]]
    """
    parts = drawn.shape[1]
    count = max(min(round(ratio * parts), parts - 1), 1)
    return drawn <= drawn.kthvalue(count, dim=1, keepdim=True).values


def hide(
    x: Tensor, ratio: float, generator: torch.Generator, groups: Sequence[Sequence[int]] = ()
) -> dict[str, Tensor]:
    """Hide a share of each sample; what happens to a row depends on that row and its draws alone.

    Args:
        x: Model inputs: pictures (B, C, H, W) in [-1, 1], or rows of a table (B, F).
        ratio: The share that is hidden, of 4x4 patches or of the columns.
        generator: Where the draws come from, on any device.
        groups: Columns of a table that hold one category together: one part, hidden as a whole.

    Returns:
        ``inputs`` like x with 0 where it is hidden, and for :func:`masked_loss` ``target`` and
        ``hidden``, shape (B, V): V is F, or 64 cells for each of C channels.
    """
    high, wide = (min(side, _SIDE) for side in x.shape[-2:])
    part_of = _parts_of_columns(x.shape[1], groups) if x.ndim == 2 else range(high * wide)
    shape = (len(x), max(part_of) + 1)
    drawn = torch.rand(shape, generator=generator, device=generator.device)
    chosen = chosen_parts(sent_to(drawn, x.device), ratio)
    if x.ndim == 2:
        hidden = chosen[:, constant(tuple(part_of), x.device, torch.long)]
        return {"inputs": x.masked_fill(hidden, 0.0), "target": x, "hidden": hidden}
    patches = chosen.view(-1, 1, high, wide).float()
    pixels = F.interpolate(patches, size=x.shape[2:]) > 0
    cells = F.interpolate(patches, size=DECODED_SIDE).expand(-1, x.shape[1], -1, -1) > 0
    target = F.adaptive_avg_pool2d(x, DECODED_SIDE).flatten(1)
    target = target - target.mean(dim=1, keepdim=True)
    target = target / target.std(dim=1, keepdim=True).clamp_min(_FLAT)
    return {"inputs": x.masked_fill(pixels, 0.0), "target": target, "hidden": cells.flatten(1)}


def _parts_of_columns(columns: int, groups: Sequence[Sequence[int]]) -> list[int]:
    """Return which part each column belongs to, from 0: a group is one, every other column, too."""
    first = list(range(columns))
    for group in groups:
        for column in group:
            first[column] = min(group)
    number = {column: part for part, column in enumerate(sorted(set(first)))}
    return [number[column] for column in first]


def reconstruction_loss(model: nn.Module, prepared: Batch) -> Tensor:
    """Return :func:`masked_loss` of what the model's decoder makes of ``hide(...)``, a scalar.

    Raises:
        ModelError: The decoder gives another number of values than the samples have.
    """
    encoder, (decoder,) = parts_of(model, MaskedObjective.heads)
    values = prepared["target"].shape[1]
    if decoder.out_features != values:
        raise ModelError(
            f"Expected the head `decoder` to give {values} values for such samples, a column each "
            f"or {DECODED_SIDE**2} cells for each channel, got {decoder.out_features}; wrap the "
            f"network with `OrchestraModel(..., decoded_values={values})`."
        )
    return masked_loss(decoder(encoder(prepared["inputs"])), prepared["target"], prepared["hidden"])


class MaskedObjective(RowwiseObjective):
    """Squared error of what was hidden; see :class:`SelfSupervisedObjective` for the arguments."""

    heads = ("decoder",)
    settings_class = MaskedSettings
    settings: MaskedSettings

    def per_example(
        self, model: nn.Module, batch: Batch
    ) -> tuple[Callable[[nn.Module, Batch], LossParts], Batch]:
        """Draw view 1 and hide a share of it; what is left is a pure function of both.

        Args:
            model: The online network.
            batch: ``inputs`` (B, ...).

        Returns:
            The loss, and the batch it takes, that of :func:`hide`.
        """
        x1, *_ = self.draw(batch)
        groups = getattr(self.views, "one_hot", ())  # those of tables know them
        prepared = hide(x1, self.settings.mask_ratio, self.generator, groups)

        def loss(model: nn.Module, prepared: Batch) -> LossParts:
            return LossParts(reconstruction_loss(model, prepared), {})

        return loss, prepared
