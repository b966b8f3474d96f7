"""The picture of utility and leakage over epsilon."""

import numpy as np
import pytest
from PIL import Image

from orchestra_strategy.errors import DataError
from orchestra_strategy.evaluation.plots import figures, privacy_plot
from orchestra_strategy.evaluation.plots.privacy_plot import Curve, plot_privacy_curve

UTILITY = Curve("probe, %", [90, 80, 70], [88, 78, 69], [92, 82, 71], {"pixels": 84.0})
UTILITY = UTILITY._replace(control=("noise alone", [50, 60, 61]))
LEAKAGE = Curve("AUC", [0.6, 0.55, 0.5], [0.5, 0.5, 0.4], [0.7, 0.6, 0.6], {})
EPSILONS = [None, 100.0, 3.0]


@pytest.fixture
def drawn(monkeypatch):
    kept = []

    def keep(figure, path):
        kept.append(figure)
        figures.save_figure(figure, path)

    monkeypatch.setattr(privacy_plot, "save_figure", keep)
    return kept


def test_a_panel_per_curve_with_its_values_bars_and_controls(drawn, tmp_path):
    pytest.importorskip("matplotlib")
    file = tmp_path / "new" / "curve.png"
    plot_privacy_curve(EPSILONS, [UTILITY, LEAKAGE], file, delta=1e-3)
    assert Image.open(file).size[0] > 900
    left, right = drawn[0].axes
    assert [left.get_title(loc="left"), right.get_title(loc="left")] == ["probe, %", "AUC"]
    line = left.lines[0]
    assert line.get_xdata().tolist() == [3.0, 100.0]  # the run without privacy is no part of it
    assert line.get_ydata().tolist() == [70, 80]
    assert left.lines[1].get_ydata().tolist() == [61, 60]
    assert [t.get_text() for t in left.get_legend().get_texts()] == ["noise alone"]
    assert right.get_legend() is None
    points = left.containers[0].lines[0]
    assert points.get_ydata().tolist() == [90, 80, 70]
    assert points.get_xdata()[0] > 100  # it stands at the right
    (bars,) = left.containers[0].lines[2]
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    assert ends.tolist() == [[88, 92], [78, 82], [69, 71]]
    texts = {t.get_text() for t in left.texts}
    assert texts == {"pixels 84", "none"}
    assert left.get_xlabel() == "epsilon at delta = 0.001"


@pytest.mark.parametrize("epsilons", [[None] * 3, [None, 0.0, 1.0], [1.0, 2.0, float("inf")]])
def test_epsilons_that_cannot_be_drawn_are_refused(epsilons, tmp_path):
    with pytest.raises(DataError, match="`epsilons` to hold positive finite numbers"):
        plot_privacy_curve(epsilons, [UTILITY], tmp_path / "x.png", 1e-3)


def test_unequal_lengths_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"to have 2 values, as many as `epsilons`, got \[3\]"):
        plot_privacy_curve([1.0, 2.0], [UTILITY], tmp_path / "x.png", 1e-3)
