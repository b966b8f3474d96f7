"""The one door: which kind of data a path is, and which options it has."""

import numpy as np
import pytest

from orchestra_strategy.data import LocalData, load_local
from orchestra_strategy.data.readers.loading import check_options
from orchestra_strategy.data.readers.local_data import encode_labels
from orchestra_strategy.errors import DataError, ParameterError
from tests.data.readers.files import write_cifar_batch, write_classes


def test_the_kind_is_told_by_the_path(tmp_path):
    write_classes(tmp_path / "images", {"train": 2, "test": 1})  # folders, so no CIFAR batches
    assert load_local(tmp_path / "images").class_names == ("test", "train")
    write_cifar_batch(tmp_path / "cifar" / "data_batch_1", rows=2)
    write_cifar_batch(tmp_path / "cifar" / "test_batch", rows=1)
    assert len(load_local(tmp_path / "cifar")) == 2
    assert len(load_local(str(tmp_path / "cifar"), split="test")) == 1
    assert len(load_local(tmp_path / "cifar" / "test_batch")) == 1
    np.save(tmp_path / "x.npy", np.eye(4))
    (tmp_path / "x.npy").rename(tmp_path / "x.NPY")
    assert len(load_local(tmp_path / "x.NPY")) == 4
    np.savez(tmp_path / "x.npz", a=np.eye(3))
    assert len(load_local(tmp_path / "x.npz", samples_key="a")) == 3
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    assert load_local(tmp_path / "x.csv").samples.shape == (1, 2)


def test_the_home_folder_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    np.save(tmp_path / "x.npy", np.eye(4))
    assert len(load_local("~/x.npy")) == 4


def test_nothing_and_nothing_known__are_refused(tmp_path):
    with pytest.raises(DataError, match=r"data in `.*gone`, got no such file or folder"):
        load_local(tmp_path / "gone")
    (tmp_path / "x.parquet").write_bytes(b"x")
    with pytest.raises(
        DataError, match=r"x.parquet` to be an image folder, CIFAR batches, .*none of these"
    ):
        load_local(tmp_path / "x.parquet")


def test_options__of_no_kind_and_of_another_kind_are_refused(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ParameterError, match="got `colums`: did you mean `columns`"):
        load_local(tmp_path / "x.csv", colums=["a"])
    with pytest.raises(
        ParameterError, match=r"options of a CSV table, which .*x.csv` is, got `image_size`: known"
    ):
        load_local(tmp_path / "x.csv", image_size=3)
    check_options({"image_size": 3, "columns": []})


def test_labels__of_another_number_are_refused():
    with pytest.raises(DataError, match="one per sample, got 1 for 2 samples"):
        LocalData(np.eye(2), np.zeros(1, np.int64))


@pytest.mark.parametrize(
    ("values", "names", "labels"),
    [
        ([2, 0], None, [2, 0]),
        ([2.0, 0.0], None, [2, 0]),
        ([True, False], None, [1, 0]),
        ([[2], [0]], None, [2, 0]),
        (["b", "a"], ["a", "c", "b"], [2, 0]),
        ([1, 0], ["a", "c"], [1, 0]),
    ],
)
def test_encode_labels(values, names, labels):
    found, kept = encode_labels(values, names, "the labels")
    assert found.dtype == np.int64
    assert found.tolist() == labels
    assert kept == (None if names is None else tuple(names))


@pytest.mark.parametrize("values", [[1, 2], [-1, 0], ["a", "x"]])
def test_encode_labels__refuses_what_has_no_name(values):
    with pytest.raises(DataError, match="Expected the labels to be among the 2 `class_names`"):
        encode_labels(values, ["a", "b"], "the labels")
