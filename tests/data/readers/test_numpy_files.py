"""Arrays from .npy and .npz files: mapped, not copied; nothing is ever unpickled."""

import contextlib
import io
import mmap
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra_strategy.data.readers import numpy_files
from orchestra_strategy.data.readers.numpy_files import load_npy, load_npz
from orchestra_strategy.errors import DataError
from orchestra_strategy.party.data import PartyData

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 3, 4, 4), dtype=np.uint8)


def base_of(array):
    while isinstance(array, np.ndarray):
        array = array.base
    return array


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_npy__is_mapped_up_to_the_party(tmp_path, dtype):
    images = IMAGES if dtype == "uint8" else IMAGES.astype(dtype) / np.float32(255)
    np.save(tmp_path / "x.npy", images)
    data = load_npy(tmp_path / "x.npy")
    assert np.array_equal(data.samples, images)
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
    with pytest.raises(DataError, match=rf"{name}` to be .* as numpy .*broken|{name}.* got BadZip"):
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


def npy(shape, descr="|u1", content=b"", header=None):
    """A .npy file that says of itself what it is told to."""
    text = header or repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


def npz(path, content, method=zipfile.ZIP_DEFLATED, times=1):
    with zipfile.ZipFile(path, "w", method) as archive:
        for _ in range(times):
            archive.writestr("x.npy", content)
    return path


FALSE = [
    (npy((2**40, 4)), "to have [0-9]+ bytes, as its header says, got [0-9]+: it is cut off"),
    (npy((2**62, 2**62)), "to have [0-9]+ bytes, as its header says"),
    (npy((3, 4), content=bytes(11)), "as its header says"),
    (npy((3, 4), content=bytes(13)), "as its header says"),
    (npy((-3, -4), content=bytes(12)), "to have sizes from 0 on, got others"),
    (npy((True, 12), content=bytes(12)), "to have sizes from 0 on, got others"),
    (npy((1,) * 33, content=bytes(1)), "to have sizes from 0 on, got others"),
    (npy((1,), "|O", bytes(8)), "plain numbers or texts, got dtype object; object arrays are"),
    (npy((1,), [("a", "|O")], bytes(8)), "plain numbers or texts, got dtype void64"),
    (npy((1,), header=b"-" * 4000 + b"1"), "as numpy saves it, got broken bytes"),
    (npy((1,), header=b"[" * 4000), "as numpy saves it, got broken bytes"),
    (npy((1,), header=b" " * 60_000), "as numpy saves it, got broken bytes"),
    (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}", "as numpy saves it, got broken bytes"),
    (b"\x93NUMPY\x03\x00\x02\x00\x00\x00{}", "as numpy saves it, got broken bytes"),
    (b"\x93NUMPY\x01\x00\x02", "as numpy saves it, got broken bytes"),
]


@pytest.mark.parametrize(("content", "message"), FALSE)
def test_false_headers__are_refused(tmp_path, content, message):
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(DataError, match=rf"Expected `.*x.npy` .*{message}"):
        load_npy(tmp_path / "x.npy")
    with pytest.raises(DataError, match=rf"Expected `x` in `.*x.npz` .*{message}"):
        load_npz(npz(tmp_path / "x.npz", content))


def test_a_member_beyond_the_limit__is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(numpy_files, "MOST_BYTES", 2**20)
    path = npz(tmp_path / "x.npz", npy((2**23, 4), content=bytes(2**25)))
    assert path.stat().st_size < 2**16
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"`x` .* at most 1048576 bytes .* as a .npy file"):
            load_npz(path)
        assert tracemalloc.get_traced_memory()[1] < 2**18
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("x", [np.zeros((4, 70), np.int8), np.zeros((70, 4), np.float32).T])
def test_an_array_whose_copy_is_beyond_the_limit__is_refused(tmp_path, monkeypatch, x):
    monkeypatch.setattr(numpy_files, "MOST_BYTES", 1119)
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(DataError, match=r"at most 1119 bytes of memory, got 1120: save it as"):
        load_npy(tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", np.zeros((4, 70), np.float32))
    assert load_npy(tmp_path / "x.npy").samples.shape == (4, 70)  # it is mapped


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_as_numpy_does_not_write_them__are_refused(tmp_path):
    content = npy((3, 4), content=bytes(12))
    with pytest.raises(DataError, match="to have every array once, got one twice"):
        load_npz(npz(tmp_path / "x.npz", content, times=2))
    with pytest.raises(DataError, match="to be compressed as numpy does, got another method"):
        load_npz(npz(tmp_path / "y.npz", content, zipfile.ZIP_LZMA))


def test_a_damaged_member__is_refused(tmp_path):
    path = npz(tmp_path / "x.npz", npy((3, 4), content=bytes(12)), zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(bytes(12), b"\x01" * 12, 1))
    with pytest.raises(DataError, match=r"x.npz` to be a .npz file of plain numbers, got BadZip"):
        load_npz(path)


@settings(deadline=None, max_examples=200)
@given(changes=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), min_size=1))
def test_changed_bytes__are_read_or_refused(tmp_path_factory, changes):
    written = io.BytesIO()
    np.save(written, np.ones((3, 4), np.int16))
    content = bytearray(written.getvalue())
    for place, byte in changes:
        content[place % len(content)] = byte
    path = tmp_path_factory.getbasetemp() / "changed.npz"
    with contextlib.suppress(DataError):  # the only error that may come
        load_npz(npz(path, bytes(content)))


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
