"""CIFAR's python batches, read without trusting them."""

import os
import pickle

import numpy as np
import pytest

from orchestra_strategy.data.readers.cifar_batches import load_cifar_batches
from orchestra_strategy.errors import DataError, ParameterError
from tests.data.readers.files import write_cifar_batch


def write_meta(path, **names):
    path.write_bytes(pickle.dumps({k.encode(): [n.encode() for n in v] for k, v in names.items()}))


@pytest.mark.parametrize("protocol", range(6))
def test_cifar10__all_batches_in_order(tmp_path, protocol):
    parts = [
        write_cifar_batch(tmp_path / f"data_batch_{i}", rows=3, seed=i, protocol=protocol)
        for i in (1, 2, 10)
    ]
    test, _ = write_cifar_batch(tmp_path / "test_batch", rows=2, seed=9, protocol=protocol)
    write_meta(tmp_path / "batches.meta", label_names=[f"c{i}" for i in range(10)])
    data = load_cifar_batches(tmp_path)
    assert data.samples.dtype == np.uint8
    assert np.array_equal(data.samples, np.concatenate([images for images, _ in parts]))
    assert data.labels.tolist() == [n for _, labels in parts for n in labels[b"labels"]]
    assert data.class_names == tuple(f"c{i}" for i in range(10))
    assert np.array_equal(load_cifar_batches(tmp_path, split="test").samples, test)
    assert np.array_equal(load_cifar_batches(tmp_path / "data_batch_2").samples, parts[1][0])


def test_cifar100__fine_and_coarse(tmp_path):
    images, labels = write_cifar_batch(
        tmp_path / "train", rows=4, keys=("fine_labels", "coarse_labels")
    )
    data = load_cifar_batches(tmp_path)
    assert np.array_equal(data.samples, images)
    assert data.labels.tolist() == labels[b"fine_labels"]
    assert data.class_names is None
    write_meta(tmp_path / "meta", coarse_label_names=list("abcdefghij"))
    data = load_cifar_batches(tmp_path, label_kind="coarse")
    assert data.labels.tolist() == labels[b"coarse_labels"]
    assert data.class_names == tuple("abcdefghij")


def test_written_by_python_2_and_by_numpy_2(tmp_path):
    images, _ = write_cifar_batch(tmp_path / "train", rows=1, keys=("fine_labels",))
    content = (tmp_path / "train").read_bytes()
    # What Python 2 writes of a string: opcode U, length, bytes.
    assert b"data" in content
    two = b"\x80\x02}(U\x06labels]K\x03aU\x04dataN" + b"u."
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "test").write_bytes(two)
    with pytest.raises(DataError, match=r"to hold `data`, a uint8 array \(N, 3072\), got none"):
        load_cifar_batches(tmp_path / "old" / "test")
    assert b"numpy.core.multiarray" in content
    renamed = content.replace(b"cnumpy.core.multiarray", b"cnumpy._core.multiarray")
    (tmp_path / "train").write_bytes(renamed)
    assert np.array_equal(load_cifar_batches(tmp_path).samples, images)


# ---- Bad input -----------------------------------------------------------------------------


class Calls:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("bomb", "name"),
    [
        (lambda path: Calls(os.mkdir, str(path)), "posix.mkdir"),
        (lambda path: Calls(eval, f"__import__('os').mkdir({str(path)!r})"), "builtins.eval"),
        (lambda path: Calls(getattr, np, "load"), "builtins.getattr"),
    ],
)
@pytest.mark.parametrize("file", ["data_batch_1", "batches.meta"])
def test_a_pickle_that_calls__is_refused_by_name_and_runs_nothing(tmp_path, bomb, name, file):
    write_cifar_batch(tmp_path / "data_batch_1", rows=1)
    if name == "builtins.getattr":  # modules do not pickle, so the argument is written by hand
        content = b"\x80\x02c__builtin__\ngetattr\n."
    else:
        content = pickle.dumps({b"data": bomb(tmp_path / "gone off")}, protocol=2)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError, match=rf"refers to `(__builtin__|{name.split('.')[0]})\.") as e:
        load_cifar_batches(tmp_path)
    assert name.split(".")[1] in str(e.value)
    assert not (tmp_path / "gone off").exists()


def test_encoded_bytes__are_refused(tmp_path):
    # protocol 2 writes bytes as _codecs.encode(text, 'latin1'); another codec could inflate them
    (tmp_path / "test").write_bytes(b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aU\x03hex\x86R.")
    with pytest.raises(DataError, match="to hold plain bytes, got encoded ones"):
        load_cifar_batches(tmp_path / "test")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no pickle", "test` is refused: Expected a pickle of plain data, got step b'n'"),
        (b"", "test` to be a pickle of plain data, got broken bytes at step 0"),
        (
            pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0, [1]]}),
            "the labels in .*test` to be whole numbers from 0 on, below 2147483648, got others",
        ),
        (pickle.dumps([1]), "test` to hold a dictionary, got another type"),
        (pickle.dumps({"data": np.zeros((2, 3072))}), "`data`, a uint8 array"),
        (pickle.dumps({"data": np.zeros((2, 300), np.uint8)}), r"be \(N, 3072\), got \(2, 300\)"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8)}), "a list of 2 labels, got another"),
        (
            pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}),
            "a list of 2 labels, got another",
        ),
    ],
)
def test_broken_batches__are_named(tmp_path, content, message):
    (tmp_path / "test").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_cifar_batches(tmp_path / "test")


def test_labels_beyond_the_names__are_refused(tmp_path):
    write_cifar_batch(tmp_path / "data_batch_1", rows=30)
    write_meta(tmp_path / "batches.meta", label_names=["a", "b"])
    with pytest.raises(DataError, match="to be among the 2 `class_names`"):
        load_cifar_batches(tmp_path)


def test_class_names__that_are_no_names_are_refused(tmp_path):
    write_cifar_batch(tmp_path / "data_batch_1", rows=1)
    (tmp_path / "batches.meta").write_bytes(pickle.dumps({"label_names": [[], "b"]}))
    with pytest.raises(DataError, match=r"batches.meta` to list names, got other values"):
        load_cifar_batches(tmp_path)


@pytest.mark.parametrize("file", ["data_batch_1", "batches.meta"])
def test_links_out_of_the_folder__are_refused(tmp_path, file):
    write_cifar_batch(tmp_path / "cifar" / "data_batch_2", rows=1)
    write_cifar_batch(tmp_path / "elsewhere", rows=1)
    (tmp_path / "cifar" / file).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=rf"to lie in it, got `{file}`, a link that leads else"):
        load_cifar_batches(tmp_path / "cifar")


def test_options__out_of_range_are_refused(tmp_path):
    write_cifar_batch(tmp_path / "data_batch_1", rows=1)
    with pytest.raises(ParameterError, match="`split` to be 'train' or 'test', got 'val'"):
        load_cifar_batches(tmp_path, split="val")
    with pytest.raises(ParameterError, match="`label_kind` to be 'fine' or 'coarse', got 'x'"):
        load_cifar_batches(tmp_path, label_kind="x")
    with pytest.raises(ParameterError, match="no `split` for a single batch, got 'test'"):
        load_cifar_batches(tmp_path / "data_batch_1", split="test")
    with pytest.raises(DataError, match="to have CIFAR batches of the test split, got none"):
        load_cifar_batches(tmp_path, split="test")
