"""The common parts of all pictures: a figure of one's own, colours, a plain axis, the file.

Matplotlib is optional and imported inside the functions. Figures are drawn on their own Agg canvas
and never through pyplot, so the caller's backend and open figures are left alone.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestra_strategy.errors import DataError
from orchestra_strategy.files import PathLike, write_private

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["INK", "LINE", "MUTED", "bare_axis", "named_classes", "new_figure", "save_figure"]

INK, MUTED, LINE = "#222222", "#777777", "#2f6db3"


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure, sizes in inches.

    Raises:
        ImportError: Matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise ImportError(
            "Expected matplotlib to be installed for plots, got none. Install it with "
            "`pip install 'orchestra-strategy[plots]'`."
        ) from error
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    figure = Figure(figsize=(width, height), dpi=150, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: "Figure", path: PathLike) -> None:
    """Write the figure for its owner alone, since it may show samples.

    The suffix gives the format; missing folders are made.
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, format=Path(path).suffix.removeprefix(".") or None)
    write_private(path, drawn.getvalue())


def bare_axis(axis: "Axes") -> None:
    """Leave of an axis only the line below and a light grid behind."""
    axis.grid(axis="y", color="#e4e4e4", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(colors=MUTED, labelsize=8, length=0)
    axis.spines[:].set_visible(False)
    axis.spines["bottom"].set(visible=True, color="#bbbbbb")


def named_classes(classes: Sequence[Any], class_names: Sequence[str] | None) -> list[str]:
    """Return how classes are called in a picture.

    Args:
        classes: Their numbers, at least 0.
        class_names: By number; None for the numbers themselves.

    Raises:
        DataError: A class has no name.

    >>> named_classes([0, 2], ["cat", "dog", "ship"]), named_classes([0, 2], None)
    (['cat', 'ship'], ['0', '2'])
    """
    if class_names is None:
        return [str(label) for label in classes]
    if max(classes) >= len(class_names):
        raise DataError(
            f"Expected `class_names` to have a name for each class, got {len(class_names)} names "
            f"and class {max(classes)}."
        )
    return [str(class_names[label]) for label in classes]
