import numpy as np
import pytest

from orchestra_strategy.errors import DataError
from orchestra_strategy.evaluation import ProbeResult, plot_few_labels, plot_ranking

FEW, ONE = ProbeResult.from_values([0.5, 0.7]), ProbeResult.from_values([0.9])


def bars_of(axis):
    return [container for container in axis.containers if hasattr(container, "patches")]


def test_methods_stand_beside_controls_with_error_bars(tmp_path, figures):
    both = {"1": FEW, "all": ONE, "knn": ONE, "1 auc": ONE}
    plot_few_labels({"pixels": both, "orchestra": both}, tmp_path / "a" / "few.png")
    axis = figures[0].axes[0]
    ticks = [label.get_text() for label in axis.get_xticklabels()]
    assert ticks == ["1 per class", "all labels", "kNN"]
    names = [text.get_text() for text in axis.get_legend().get_texts()]
    assert names == ["orchestra", "pixels"]
    for container in bars_of(axis):
        assert [bar.get_height() for bar in container] == pytest.approx([60.0, 90.0, 90.0])
        (low, high), *others = container.errorbar.lines[2][0].get_segments()
        spread = 100 * np.std([0.5, 0.7], ddof=1)
        assert (high - low)[1] == pytest.approx(2 * spread)
        assert [len(drawn) for drawn in others] == [0, 0]  # a single value has no deviation
    blue, grey = (container[0].get_facecolor() for container in bars_of(axis))
    assert blue != grey
    assert (tmp_path / "a" / "few.png").read_bytes().startswith(b"\x89PNG")


def test_a_ranking_has_a_panel_for_each_measure_and_the_better_control_as_a_line(tmp_path, figures):
    results = {
        "orchestra": {"kNN": FEW, "SGD": ONE},
        "untrained (control)": {"kNN": ProbeResult.from_values([0.3])},
        "pixels (control)": {"kNN": ProbeResult.from_values([0.4])},
    }
    plot_ranking(results, tmp_path / "ranking.png")
    knn, sgd = figures[0].axes
    assert [axis.get_title(loc="left") for axis in (knn, sgd)] == ["kNN", "SGD"]
    assert [label.get_text() for label in knn.get_yticklabels()] == list(results)
    assert knn.yaxis_inverted()  # the first one stands above
    assert [bar.get_width() for bar in bars_of(knn)[0]] == pytest.approx([60.0, 30.0, 40.0])
    assert [bar.get_width() for bar in bars_of(sgd)[0]] == pytest.approx([90.0])
    lines = [line for line in knn.lines if len(set(line.get_xdata())) == 1]
    assert 40.0 in [line.get_xdata()[0] for line in lines]
    assert knn.get_xlim()[1] > 60.0 + 100 * FEW.std


def test_refusals(tmp_path):
    with pytest.raises(
        DataError, match=r"with the same probes, got \{'a': \['1'\], 'b': \['2'\]\}"
    ):
        plot_few_labels({"a": {"1": ONE}, "b": {"2": ONE}}, tmp_path / "a.png")
    with pytest.raises(DataError, match="`results` to have a result, got none"):
        plot_ranking({"a": {}}, tmp_path / "a.png")
