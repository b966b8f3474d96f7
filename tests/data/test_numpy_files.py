"""Arrays from .npy and .npz files: mapped, not copied; nothing is ever unpickled."""

import mmap

import numpy as np
import pytest

from orchestra_strategy.data.numpy_files import load_npy, load_npz
from orchestra_strategy.errors import DataError
from orchestra_strategy.strategies.party import PartyData

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 3, 4, 4), dtype=np.uint8)


def base_of(array):
    while isinstance(array, np.ndarray):
        array = array.base
    return array


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_npy__is_mapped_up_to_the_party(tmp_path, dtype):
    np.save(tmp_path / "x.npy", IMAGES.astype(dtype))
    data = load_npy(tmp_path / "x.npy")
    assert np.array_equal(data.samples, IMAGES)
    assert data.labels is None
    held = PartyData.from_host(data.samples).samples
    assert held.dtype == dtype
    assert isinstance(base_of(held), mmap.mmap)


def test_npy__of_another_dtype_becomes_float32(tmp_path):
    np.save(tmp_path / "x.npy", np.eye(4))
    assert load_npy(tmp_path / "x.npy").samples.dtype == np.float32


def test_npz__with_and_without_labels(tmp_path):
    np.savez(tmp_path / "a.npz", x=IMAGES)
    assert load_npz(tmp_path / "a.npz").labels is None
    np.savez_compressed(tmp_path / "b.npz", x=IMAGES, y=np.arange(6).reshape(6, 1))
    data = load_npz(tmp_path / "b.npz")
    assert np.array_equal(data.samples, IMAGES)
    assert data.samples.dtype == np.uint8
    assert data.labels.dtype == np.int64
    assert data.labels.tolist() == [0, 1, 2, 3, 4, 5]
    np.savez(tmp_path / "c.npz", images=IMAGES, kinds=np.array(["b", "a"] * 3))
    data = load_npz(tmp_path / "c.npz", samples_key="images", labels_key="kinds")
    assert data.labels.tolist() == [1, 0] * 3
    assert data.class_names == ("a", "b")


# ---- Bad input -----------------------------------------------------------------------------


@pytest.mark.parametrize(("load", "name"), [(load_npy, "x.npy"), (load_npz, "x.npz")])
def test_missing_and_broken_files__are_named(tmp_path, load, name):
    with pytest.raises(DataError, match=f"{name}` to be a {name[1:]} file .*, got FileNotFound"):
        load(tmp_path / name)
    (tmp_path / name).write_bytes(b"no array")
    with pytest.raises(DataError, match=f"{name}` to be a {name[1:]} file of plain numbers, got"):
        load(tmp_path / name)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_object_arrays__are_refused_and_run_nothing(tmp_path):
    objects = np.array([Bomb(tmp_path / "gone off")], dtype=object)
    np.save(tmp_path / "x.npy", objects)
    with pytest.raises(DataError, match=r"x.npy.*object arrays are refused, since reading them"):
        load_npy(tmp_path / "x.npy")
    np.savez(tmp_path / "x.npz", x=objects)
    with pytest.raises(DataError, match=r"x.npz.*object arrays are refused, since reading them"):
        load_npz(tmp_path / "x.npz")
    assert not (tmp_path / "gone off").exists()


def test_a_missing_name__is_refused_with_the_nearest(tmp_path):
    np.savez(tmp_path / "a.npz", image=IMAGES, y=np.zeros(6))
    with pytest.raises(DataError, match=r"named `images`, got none: did you mean `image`\?.*`y`"):
        load_npz(tmp_path / "a.npz", samples_key="images")
    with pytest.raises(DataError, match="named `z`, got none"):
        load_npz(tmp_path / "a.npz", samples_key="image", labels_key="z")


def test_nan__is_found_in_the_file(tmp_path):
    x = np.ones((3, 5), np.float32)
    x[1, 2] = np.nan
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(DataError, match=r"x.npy` is refused: .* 1 NaN .* at index \(1, 2\)"):
        load_npy(tmp_path / "x.npy")
    np.savez(tmp_path / "x.npz", x=x)
    with pytest.raises(DataError, match=r"`x` in `.*x.npz` is refused: .* at index \(1, 2\)"):
        load_npz(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros(5), "`labels` to be one per sample, got 5 for 6 samples"),
        (np.full(6, 0.5), "`y` in .* to be whole numbers or names, got 6 .* first in row 1"),
        (np.array([0, 1, np.nan, 0, 0, 0]), "got 1 that are not, the first in row 3"),
        (np.zeros((6, 2)), r"to be \(N,\) whole numbers or names, got shape \(6, 2\)"),
    ],
)
def test_labels__that_are_none_are_refused(tmp_path, y, message):
    np.savez(tmp_path / "a.npz", x=IMAGES, y=y)
    with pytest.raises(DataError, match=message):
        load_npz(tmp_path / "a.npz")
