import sys

import numpy as np
import pytest
import torch

from orchestra_strategy.errors import DataError, ParameterError
from orchestra_strategy.evaluation import plot_cluster_balance, plot_cluster_confusion

# Cluster 0 holds the classes 4 4, cluster 1 nothing, cluster 2 holds 1 1 4, and cluster 3 holds 1.
CLUSTERS, LABELS = np.array([0, 0, 2, 2, 2, 3]), np.array([4, 4, 1, 1, 4, 1])


def texts(labels):
    return [label.get_text() for label in labels]


class TestConfusion:
    @pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
    def test_cells_are_fractions_of_the_cluster_sorted_by_majority(
        self, tmp_path, figures, convert
    ):
        plot_cluster_confusion(convert(CLUSTERS), convert(LABELS), tmp_path / "a" / "map.png")
        axis = figures[0].axes[0]
        assert texts(axis.get_yticklabels()) == ["1", "4"]
        assert texts(axis.get_xticklabels()) == ["3", "2", "0"]  # of class 1: purest first
        cells = axis.images[0].get_array()
        assert np.allclose(cells, [[1, 2 / 3, 0], [0, 1 / 3, 1]])
        assert (tmp_path / "a" / "map.png").read_bytes().startswith(b"\x89PNG")

    def test_many_clusters_keep_room_for_their_numbers(self, tmp_path, figures):
        plot_cluster_confusion(np.arange(200), np.arange(200) % 7, tmp_path / "map.png")
        axis = figures[0].axes[0]
        assert axis.images[0].get_array().shape == (7, 200)
        assert len(axis.get_xticks()) == 50
        assert max(figures[0].get_size_inches()) <= 14

    def test_refuses(self, tmp_path):
        with pytest.raises(DataError, match=r"`labels` to have shape \(6,\)"):
            plot_cluster_confusion(CLUSTERS, LABELS[1:], tmp_path / "map.png")


class TestBalance:
    def test_sizes_fall_and_empty_clusters_are_there(self, tmp_path, figures):
        plot_cluster_balance(torch.from_numpy(CLUSTERS), 5, tmp_path / "a" / "sizes.png")
        axis = figures[0].axes[0]
        assert [bar.get_height() for bar in axis.patches] == [3, 2, 1, 0, 0]
        assert axis.lines[0].get_ydata()[0] == 6 / 5
        entropy = -(1 / 2 * np.log(1 / 2) + 1 / 3 * np.log(1 / 3) + 1 / 6 * np.log(1 / 6))
        assert axis.get_title(loc="right") == f"balance {entropy / np.log(5):.3f}"
        assert (tmp_path / "a" / "sizes.png").read_bytes().startswith(b"\x89PNG")

    def test_refuses(self, tmp_path):
        with pytest.raises(DataError, match="`assignments` to be below `num_clusters` = 3, got 3"):
            plot_cluster_balance(CLUSTERS, 3, tmp_path / "sizes.png")
        with pytest.raises(ParameterError, match="`num_clusters` to be at least 2"):
            plot_cluster_balance(np.zeros(3, int), 1, tmp_path / "sizes.png")


def test_missing_matplotlib_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # what makes `import` fail
    with pytest.raises(ImportError, match=r"`pip install 'orchestra-strategy\[plots\]'`"):
        plot_cluster_confusion(CLUSTERS, LABELS, tmp_path / "map.png")
    with pytest.raises(ImportError, match=r"`pip install 'orchestra-strategy\[plots\]'`"):
        plot_cluster_balance(CLUSTERS, 5, tmp_path / "map.png")
