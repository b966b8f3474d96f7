"""What the tests of plots share: the figures themselves, beside the files."""

from typing import Any

import pytest

from orchestra_strategy.evaluation.plots import accuracy_plots, cluster_plots, training_plots
from orchestra_strategy.evaluation.plots.figures import save_figure


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return every figure that is saved, still open to look at."""
    saved: list[Any] = []

    def keep(figure: Any, path: Any) -> None:
        saved.append(figure)
        save_figure(figure, path)

    for module in (accuracy_plots, cluster_plots, training_plots):
        monkeypatch.setattr(module, "save_figure", keep)
    return saved
