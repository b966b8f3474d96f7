"""Scores of an attack against the truth, each beside what is had without any attack; and outputs.

Only this side sees the true data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich import box
from rich.table import Table
from torch import Tensor

from orchestra_strategy.audit.attacks.scores import chance_overlap, label_overlap, psnr

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Outcome", "draw_pictures", "results_table", "scores"]

_INK, _MUTED, _LEAK = "#222222", "#777777", "#b3261e"
# The picture's lengths, in inches: left of the images, an image, from one to the next, rows.
_LEFT, _SIZE, _PITCH, _HEIGHT, _TOPS = 1.1, 0.74, 0.8, 4.2, (0.55, 1.77, 2.99)


@dataclass(frozen=True)
class Outcome:
    """One attack on one user.

    Attributes:
        title: The user, in words.
        row: What goes into the results file.
        truth: Images (n, 1, 8, 8).
        found: The reconstruction, matched to the truth, (n, 1, 8, 8).
    """

    title: str
    row: dict[str, Any]
    truth: Tensor
    found: Tensor


def scores(
    found_labels: Tensor,
    labels: Tensor,
    found: Tensor,
    truth: Tensor,
    mean_image: Tensor,
    generator: torch.Generator,
) -> dict[str, Any]:
    """Return all scores of one attack; images (n, 1, 8, 8), already matched, and labels (n,)."""
    own = psnr(found, truth)
    control = psnr(mean_image.expand_as(truth), truth)
    return {
        "labels_recovered": label_overlap(found_labels, labels),
        "labels_chance": chance_overlap(labels, generator),
        "psnr": sum(own) / len(own),
        "control_psnr": sum(control) / len(control),
        "images_above_control": sum(o > c for o, c in zip(own, control, strict=True)),
    }


def results_table(pairs: Sequence[tuple[Outcome, Outcome]]) -> Table:
    """Lay out the attacks, two lines per user, and mark those that are better than the control."""
    table = Table(title="What the server recovers", title_style="bold", title_justify="left")
    table.show_lines, table.box = True, box.SIMPLE
    table.pad_edge, table.collapse_padding = False, True
    for name in ("user", "defence"):
        table.add_column(name, no_wrap=True, vertical="bottom")
    for name in ("labels\n%", "chance\n%", "PSNR\ndB", "control\ndB", "images\nabove"):
        table.add_column(name, justify="right", no_wrap=True, vertical="bottom")
    for pair in pairs:
        rows = [outcome.row for outcome in pair]
        table.add_row(
            pair[0].title,
            "\n".join(r["defence"] for r in rows),
            "\n".join(f"{100 * r['labels_recovered']:.0f}" for r in rows),
            "\n".join(f"{100 * r['labels_chance']:.0f}" for r in rows),
            "\n".join(
                f"[bold red]! {r['psnr']:.1f}[/]" if _leaks(r) else f"{r['psnr']:.1f}" for r in rows
            ),
            "\n".join(f"{r['control_psnr']:.1f}" for r in rows),
            "\n".join(f"{r['images_above_control']}/{r['num_images']}" for r in rows),
        )
    table.caption = (
        "chance: labels guessed at random; control: the mean of all other digits,\n"
        "for every image; above: images closer than it; ! closer on average"
    )
    table.caption_justify = "left"
    return table


def _leaks(row: dict[str, Any]) -> bool:
    return bool(row["psnr"] > row["control_psnr"])


def draw_pictures(pairs: Sequence[tuple[Outcome, Outcome]], path: Path) -> None:
    """Draw the true images above the reconstructions, a panel per user.

    Args:
        pairs: For each user the outcome without and with the defence.
        path: The picture; missing folders are made.

    Raises:
        ImportError: Matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sizes = [len(plain.truth) for plain, _ in pairs]
    # Half an image of air between two panels, and room for the names of the rows on the left.
    width = _LEFT + _PITCH * (sum(sizes) + 0.5 * (len(sizes) - 1)) + 0.1
    figure = Figure(figsize=(width, _HEIGHT), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    left = _LEFT
    for (plain, defended), size in zip(pairs, sizes, strict=True):
        _draw_panel(figure, plain, defended, left)
        left += _PITCH * (size + 0.5)
    names = ("true\nimages", "recovered,\nno defence", "recovered,\nclip + noise")
    for name, top in zip(names, _TOPS, strict=True):
        y = 1 - (top + _SIZE / 2) / _HEIGHT
        figure.text(0.12 / width, y, name, color=_INK, fontsize=10, va="center")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _draw_panel(figure: "Figure", plain: Outcome, defended: Outcome, left: float) -> None:
    """Draw one user: three rows of images with their scores below; lengths in inches."""
    width = figure.get_size_inches()[0]
    figure.text(left / width, 1 - 0.12 / _HEIGHT, plain.title, color=_INK, fontsize=10, va="top")
    _draw_row(figure, plain.truth, left, _TOPS[0])
    control = f"control\n{plain.row['control_psnr']:.1f} dB"
    _write_below(figure, control, left, _TOPS[0], _MUTED)
    for outcome, top in zip((plain, defended), _TOPS[1:], strict=True):
        _draw_row(figure, outcome.found, left, top)
        row = outcome.row
        right = round(row["labels_recovered"] * row["num_images"])
        text = f"{row['psnr']:.1f} dB\nlabels {right}/{row['num_images']}"
        _write_below(figure, text, left, top, _LEAK if _leaks(row) else _MUTED)


def _draw_row(figure: "Figure", images: Tensor, left: float, top: float) -> None:
    width = figure.get_size_inches()[0]
    bottom = 1 - (top + _SIZE) / _HEIGHT
    for column, image in enumerate(images):
        x = (left + _PITCH * column) / width
        axis = figure.add_axes((x, bottom, _SIZE / width, _SIZE / _HEIGHT))
        axis.imshow(image[0].numpy(), cmap="gray_r", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_color("#cccccc")


def _write_below(figure: "Figure", text: str, left: float, top: float, color: str) -> None:
    x, y = left / figure.get_size_inches()[0], 1 - (top + _SIZE + 0.06) / _HEIGHT
    figure.text(x, y, text, color=color, fontsize=9, va="top", linespacing=1.15)
