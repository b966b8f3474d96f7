"""Pickles of plain data: what Python and numpy write is read; nothing is called, or made large."""

import contextlib
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestra_strategy.data.readers import plain_pickle
from orchestra_strategy.data.readers.pickled_arrays import PickledArray
from orchestra_strategy.data.readers.plain_pickle import read_plain_pickle
from orchestra_strategy.errors import DataError

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(min_size=1),
    lambda inner: st.lists(inner)
    | st.lists(inner).map(tuple)
    | st.dictionaries(st.text() | st.binary(min_size=1), inner),
)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("pickles") / "batch"


def read(file, content):
    file.write_bytes(content)
    return read_plain_pickle(file)


def made_by_hand(name, arguments, state=None):
    """The steps that call ``name``, which are those of protocol 0, and build the state."""
    return (
        b"c" + name + b"\n(" + arguments + b"tR" + (b"" if state is None else b"(" + state + b"tb")
    )


RECONSTRUCT = (b"numpy.core.multiarray\n_reconstruct", b"cnumpy\nndarray\n(I0\ntS'b'\n")
DTYPE = made_by_hand(b"numpy\ndtype", b"S'%s'\nI0\nI1\n", b"I3\nS'|'\nNNNI-1\nI-1\nI0\n")


def array_by_hand(shape, code, content):
    dtype = DTYPE.replace(b"%s", code)
    sizes = b"".join(b"I%d\n" % n for n in shape)
    state = b"I1\n(" + sizes + b"t" + dtype + b"I00\nS'" + content + b"'\n"
    return made_by_hand(*RECONSTRUCT, state) + b"."


@settings(deadline=None, max_examples=50)
@given(value=plain, protocol=st.integers(0, 5))
def test_plain_values__come_back_as_from_pythons_reader(file, value, protocol):
    assert read(file, pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["u1", "<i8", ">i4", "f4", "bool"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays__come_back(file, protocol, dtype, order):
    expected = np.arange(12).reshape(3, 4).astype(dtype, order=order)
    found = read(file, pickle.dumps({"a": expected, "b": np.ones(1)}, protocol))["a"]
    assert isinstance(found, PickledArray)
    assert found.array.dtype == expected.dtype
    assert np.array_equal(found.array, expected)
    assert not found.array.flags.writeable


def test_what_python_2_wrote(file):
    # CIFAR's own files: protocol 2, strings by their length, the dtype's order as a string.
    content = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\n"
        b"q\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K\x02K\x03\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01"
        b"\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T\x06\x00\x00\x00"
        b"\x00\xff\x02\x03\x04\x05tbU\x06labels]q\x08(K\x03K\x09eu."
    )
    found = read(file, content)
    assert found[b"labels"] == [3, 9]
    assert found[b"data"].array.tolist() == [[0, 255, 2], [3, 4, 5]]
    assert read(file, array_by_hand([2], b"u1", b"\\xff\\n")).array.tolist() == [255, 10]


# ---- Bad input -----------------------------------------------------------------------------


@pytest.mark.parametrize("code", [b"O8", b"O", b"V8", b"S4", b"M8[s]", b"c16", b"i4,O", b"f16"])
def test_dtypes_other_than_numbers__are_refused(file, code):
    with pytest.raises(DataError, match=r"an array of plain numbers .*, got dtype .* get it anew"):
        read(file, array_by_hand([1], code, b"AAAAAAAA"))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ([100_000_000_000], "to have 100000000000 bytes, got 4"),
        ([3], "to have 3 bytes, got 4"),
        ([-2, -2], "of sizes from 0 on, got others"),
        ([2**62, 4], "of sizes from 0 on, got others"),
        ([1] * 33, "of sizes from 0 on, got others"),
    ],
)
def test_shapes_other_than_that_of_the_bytes__are_refused(file, shape, message):
    with pytest.raises(DataError, match=rf"batch` is refused: Expected .* {message}"):
        read(file, array_by_hand(shape, b"u1", b"AAAA"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        # The array class itself takes a buffer and a dtype: objects over raw bytes.
        (b"cnumpy\nndarray\n((I1\ntS'O8'\nS'AAAAAAAA'\ntR.", "a call of a known name, got another"),
        (b"cnumpy\nndarray\n(I1\ntR.", "a call of a known name, got another"),
        (b"cnumpy\nload\n.", "refers to `numpy.load`, which could run a program"),
        (b"\x8c\x02os\x8c\x06system\x93.", "refers to `os.system`, which could run"),
        (made_by_hand(RECONSTRUCT[0], b"cnumpy\nndarray\n(I9\ntS'b'\n") + b".", "of a plain array"),
        (
            made_by_hand(b"numpy\ndtype", b"S'u1'\n", b"I3\nS'|'\nN(tNI8\nI8\nI0\n") + b".",
            "struct",
        ),
        (
            made_by_hand(b"numpy\ndtype", b"S'u1'\n", b"I3\nS'O'\nNNNI-1\nI-1\nI0\n") + b".",
            "struct",
        ),
        (made_by_hand(*RECONSTRUCT, b"I1\n(tNI00\nS''\n") + b".", "shape, dtype and bytes of an"),
        (made_by_hand(*RECONSTRUCT, b"I1\n") + b".", "got broken bytes at step"),
        (b"}}b.", "the state of an array, got that of another kind"),
        (b"}(Ns.", "got broken bytes at step 4"),
        (b"}(tNs.", "keys to be names, got tuple"),
        (b"(I1\nI2\nd.", "keys to be names, got int"),
        (b"]\x8c\x01kNs.", "got broken bytes at step 4"),
        (b"Na.", "got broken bytes at step 2"),
        (b"h\x00.", "got broken bytes at step 1"),
        (b"I" + b"9" * 100_000 + b"\n.", "got broken bytes at step 1"),
        (b"B\xff\xff\xff\xffxx.", "got broken bytes at step 1"),
        (b"\x8e" + b"\xff" * 8 + b"xx.", "got broken bytes at step 1"),
        (b"\x96" + b"\xff" * 7 + b"\x7fxx.", "got broken bytes at step 1"),
        (b"T\xff\xff\xff\xffxx.", "got broken bytes at step 1"),
        (b"S'secret\n.", "got broken bytes at step 1"),
        (b"(i__main__\nX\n.", "got step b'i', which such data do not need"),
        (b"\x82\x01.", "got step"),
        (b"Psecret\n.", "got step b'P'"),
    ],
)
def test_everything_else__is_refused(file, content, message):
    with pytest.raises(DataError, match=message) as error:
        read(file, content)
    assert "secret" not in str(error.value)


def test_a_deep_key__is_refused_and_does_not_end_the_process(file):
    with pytest.raises(DataError, match="keys to be names, got tuple"):
        read(file, b"})" + b"\x85" * 1_000_000 + b"Ns.")


def test_a_little_file__asks_for_little_memory(file):
    # A place in the memory by number, and a text that is encoded again and again.
    tracemalloc.start()
    try:
        assert read(file, b"Nr\xff\xff\xff\x7f.") is None
        text = b"X" + (100_000).to_bytes(4, "little") + b"a" * 100_000 + b"q\x00"
        call = b"c_codecs\nencode\nq\x01" + b"h\x01h\x00X\x06\x00\x00\x00latin1\x86R" * 50
        with pytest.raises(DataError, match="the bytes of a pickle to be in it, got repeated"):
            read(file, text + call + b".")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_large_files_and_long_ones__are_refused(file, monkeypatch):
    content = pickle.dumps([0] * 100)
    monkeypatch.setattr(plain_pickle, "MOST_STEPS", 50)
    with pytest.raises(DataError, match="at most 50 steps of a pickle, got more"):
        read(file, content)
    monkeypatch.setattr(plain_pickle, "MOST_BYTES", 99)
    with pytest.raises(DataError, match=rf"at most 99 bytes, got {len(content)}: divide it"):
        read(file, content)


@settings(deadline=None, max_examples=300)
@given(
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=8),
    cut=st.integers(0, 400),
    protocol=st.integers(0, 5),
)
@example(changes=[(0, 0x80)], cut=0, protocol=2)
def test_changed_bytes__are_read_or_refused(file, changes, cut, protocol):
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    content = bytearray(pickle.dumps({"data": array, b"labels": [1, 2], "n": 0.5}, protocol))
    for place, byte in changes:
        content[place % len(content)] = byte
    with contextlib.suppress(DataError):  # the only error that may come
        read(file, bytes(content[: len(content) - cut % len(content)]))


@settings(deadline=None, max_examples=300)
@given(content=st.lists(st.sampled_from([*plain_pickle._STEPS, b"\x00", b"\x01\n", b"u1"])))
def test_any_row_of_steps__is_read_or_refused(file, content):
    with contextlib.suppress(DataError):
        read(file, b"".join(content) + b".")
