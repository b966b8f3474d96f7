"""Pictures of what the network saw above what the server made of it, a row per setting."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from orchestra_strategy.audit.attacks.reply_attack import Reply
from orchestra_strategy.evaluation.plots.figures import INK, MUTED, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_replies"]

_MOST = 8  # images in a row
_SIDE = 0.95  # inches


def draw_replies(replies: Sequence[tuple[str, Reply]], path: Path) -> None:
    """Draw the replies of one kind of user.

    Args:
        replies: Name of the setting and its reply. The random views are the same in all of them, so
            the first one's truth stands for all.
        path: The picture; missing folders are made.

    Raises:
        ImportError: Matplotlib is not installed.
    """
    first = replies[0][1]
    columns = min(_MOST, first.truth.shape[0] * first.truth.shape[1])
    figure = new_figure(_SIDE * columns + 2.2, _SIDE * (len(replies) + 1))
    axes = figure.subplots(len(replies) + 1, columns, squeeze=False)
    rows = [("the network saw", first.truth, "")]
    rows += [(name, reply.found, f"{reply.leakage.psnr:.1f} dB") for name, reply in replies]
    for line, (name, images, note) in zip(axes, rows, strict=True):
        for axis, image in zip(line, images.flatten(0, 1), strict=False):
            _draw(axis, image)
        label = f"{name.replace(', ', chr(10))}\n{note}".strip()
        line[0].set_ylabel(
            label,
            rotation=0,
            ha="right",
            va="center",
            fontsize=8,
            color=INK if not note else MUTED,
        )
    save_figure(figure, path)


def _draw(axis: "Axes", image: Tensor) -> None:
    if len(image) == 3:
        axis.imshow(image.permute(1, 2, 0).numpy())
    else:
        axis.imshow(image[0].numpy(), cmap="gray", vmin=0, vmax=1)
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
