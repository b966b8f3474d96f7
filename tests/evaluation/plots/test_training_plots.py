import sys

import matplotlib
import numpy as np
import pytest
import torch

from orchestra_strategy.errors import DataError
from orchestra_strategy.evaluation import plot_embedding_map, plot_learning_curve
from orchestra_strategy.evaluation.plots import training_plots as plots

HISTORY = {"total": [3.0, 2.0, 1.5], "cluster": [2.0, 1.5, 1.2], "degeneracy_rotation": [1, 0.5, 0]}
RNG = np.random.default_rng(0)
LABELS = np.arange(60) % 3
FEATURES = RNG.normal(size=(60, 6)) + 8 * np.eye(6)[LABELS]


def is_picture(path):
    content = path.read_bytes()
    # A drawing compresses badly, an empty canvas of this size to some 2 kB.
    return content.startswith(b"\x89PNG\r\n") and len(content) > 6000


class TestLearningCurve:
    def test_writes_a_picture_into_a_new_folder(self, tmp_path):
        plot_learning_curve(HISTORY, tmp_path / "new" / "curve.png")
        assert is_picture(tmp_path / "new" / "curve.png")

    def test_one_panel_per_series_with_its_values(self, tmp_path, figures):
        plot_learning_curve(HISTORY, tmp_path / "curve.png")
        axes = figures[0].axes
        titles = [axis.get_title(loc="left") for axis in axes]
        assert titles == ["total", "cluster", "degeneracy rotation"]
        for axis, values in zip(axes, HISTORY.values(), strict=True):
            assert axis.lines[0].get_ydata().tolist() == values
            assert list(axis.lines[0].get_xdata()) == [1, 2, 3]
            assert axis.get_xlabel() == "round"

    @pytest.mark.parametrize(("count", "grid"), [(1, 1), (2, 2), (4, 4), (5, 6), (7, 9)])
    def test_panels_beyond_the_series_are_hidden(self, tmp_path, figures, count, grid):
        plot_learning_curve({f"s{i}": [1.0, 2.0] for i in range(count)}, tmp_path / "curve.png")
        assert len(figures[0].axes) == grid
        assert [axis.get_visible() for axis in figures[0].axes].count(True) == count

    def test_panels_share_the_rounds_of_the_longest(self, tmp_path, figures):
        plot_learning_curve({"a": [1.0] * 9, "b": [1.0, 2.0]}, tmp_path / "curve.png")
        assert [axis.get_xlim() for axis in figures[0].axes] == [(0.5, 9.5)] * 2

    def test_single_round_is_seen_as_a_point(self, tmp_path, figures):
        plot_learning_curve({"total": [1.0]}, tmp_path / "curve.png")
        assert figures[0].axes[0].lines[0].get_marker() == "o"

    @pytest.mark.parametrize(
        ("history", "got"), [({}, "got none"), ({"a": [1.0], "b": []}, "got an empty series `b`")]
    )
    def test_refuses(self, tmp_path, history, got):
        with pytest.raises(
            DataError, match="`history` to have series with a value per round, " + got
        ):
            plot_learning_curve(history, tmp_path / "curve.png")


class TestEmbeddingMap:
    @pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
    def test_writes_a_picture(self, tmp_path, convert):
        plot_embedding_map(convert(FEATURES), convert(LABELS), tmp_path / "map.png")
        assert is_picture(tmp_path / "map.png")

    def test_seed_decides(self, tmp_path):
        pictures = []
        for seed in (0, 0, 1):
            plot_embedding_map(FEATURES, LABELS, tmp_path / "map.png", seed)
            pictures.append((tmp_path / "map.png").read_bytes())
        assert pictures[0] == pictures[1] != pictures[2]

    def test_colours_follow_the_classes(self, tmp_path, figures):
        labels = np.array([2, 7, 11])[LABELS]
        plot_embedding_map(FEATURES, labels, tmp_path / "map.png")
        axis = figures[0].axes[0]
        legend = axis.get_legend()
        assert [text.get_text() for text in legend.get_texts()] == ["2", "7", "11"]
        # The three classes lie far apart: the points nearest to one another have one colour.
        points, colours = axis.collections[0].get_offsets(), axis.collections[0].get_facecolors()
        distance = np.linalg.norm(points[:, None] - points[None], axis=2) + 1e9 * np.eye(60)
        assert (colours[distance.argmin(axis=1)] == colours).all()
        drawn = {tuple(colour[:3]) for colour in colours}
        shown = {matplotlib.colors.to_rgb(mark.get_color()) for mark in legend.legend_handles}
        assert drawn == shown
        assert len(shown) == 3

    def test_at_most_1000_points_each_with_its_own_label(self, tmp_path, figures, monkeypatch):
        seen = []
        monkeypatch.setattr(plots, "_tsne", lambda x, seed: seen.append(x) or x[:, :2])
        features = np.stack([np.arange(1500.0), np.arange(1500) % 2], axis=1)
        for seed in (0, 1):
            plot_embedding_map(features, np.arange(1500) % 2, tmp_path / "map.png", seed)
        assert [len(np.unique(x[:, 0])) for x in seen] == [1000, 1000]
        assert set(seen[0][:, 0]) != set(seen[1][:, 0])
        scatter = figures[0].axes[0].collections[0]
        for row, colour in zip(scatter.get_offsets(), scatter.get_facecolors(), strict=True):
            assert tuple(colour[:3]) == matplotlib.colormaps["tab10"](int(row[1]))[:3]

    @pytest.mark.parametrize("count", [3, 15, 26])
    def test_every_class_has_a_colour_of_its_own(self, count):
        assert len({tuple(colour) for colour in plots._palette(count)}) == count

    def test_global_generator_is_left_alone(self, tmp_path):
        before = repr(np.random.get_state())
        plot_embedding_map(FEATURES, LABELS, tmp_path / "map.png")
        assert repr(np.random.get_state()) == before

    @pytest.mark.parametrize(
        ("features", "labels", "message"),
        [
            (FEATURES[:4], LABELS[:4], r"at least 5 rows and 2 columns, got shape \(4, 6\)"),
            (FEATURES[:, :1], LABELS, r"at least 5 rows and 2 columns, got shape \(60, 1\)"),
            (FEATURES * np.nan, LABELS, "`features` to be finite"),
            (FEATURES, LABELS[:5], r"`labels` to have shape \(60,\)"),
        ],
    )
    def test_refuses(self, tmp_path, features, labels, message):
        with pytest.raises(DataError, match=message):
            plot_embedding_map(features, labels, tmp_path / "map.png")


class TestMatplotlib:
    def draw(self, tmp_path):
        plot_learning_curve(HISTORY, tmp_path / "curve.png")
        plot_embedding_map(FEATURES, LABELS, tmp_path / "map.png")

    def test_caller_keeps_backend_settings_and_figures(self, tmp_path, monkeypatch):
        monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
        # Through dict, because reading the backend from rcParams would choose one.
        before = {key: dict.__getitem__(matplotlib.rcParams, key) for key in matplotlib.rcParams}
        self.draw(tmp_path)
        after = {key: dict.__getitem__(matplotlib.rcParams, key) for key in matplotlib.rcParams}
        assert str(after) == str(before)
        assert "matplotlib.pyplot" not in sys.modules

    @pytest.mark.parametrize("name", ["matplotlib.figure", "matplotlib.backends.backend_agg"])
    def test_missing_matplotlib_names_the_command(self, tmp_path, monkeypatch, name):
        monkeypatch.setitem(sys.modules, name, None)  # what makes `import` fail
        with pytest.raises(ImportError, match=r"`pip install 'orchestra-strategy\[plots\]'`"):
            self.draw(tmp_path)
