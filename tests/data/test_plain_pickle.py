"""The reader of pickles that has no way to call anything."""

import pickle
from collections import OrderedDict
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestra_strategy.data import plain_pickle
from orchestra_strategy.data.pickled_arrays import PickledArray
from orchestra_strategy.data.plain_pickle import read_plain_pickle
from orchestra_strategy.errors import DataError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4)
    | st.tuples(inner, inner)
    | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
anywhere = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def read(folder, content):
    path = folder / "file"
    path.write_bytes(content)
    return read_plain_pickle(path)


@pytest.mark.parametrize("protocol", [p for p in PROTOCOLS if p > 0])
@given(value=plain)
@anywhere
def test_plain_values_come_back_as_they_were(tmp_path, protocol, value):
    assert read(tmp_path, pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", ["u1", "<i4", ">i8", "f4", "?"])
def test_arrays_come_back_in_every_protocol(tmp_path, protocol, dtype):
    array = np.arange(24).reshape(4, 6).astype(dtype)
    for given_array in (array, np.asfortranarray(array)):
        got = read(tmp_path, pickle.dumps({"data": given_array, "n": b"x"}, protocol))
        assert isinstance(got["data"], PickledArray)
        assert np.array_equal(got["data"].array, array)
        assert got["data"].array.dtype == array.dtype
        assert got["n"] == b"x"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        # An array of objects over raw bytes: its elements would be addresses.
        (
            b"cnumpy\nndarray\n((I1\ntcnumpy\ndtype\n(S'O8'\ntRS'AAAAAAAA'\ntR.",
            "dtype 'O8'; an array of objects can read memory",
        ),
        (b"cnumpy\nndarray\n((I100000000000\nttR.", "broken bytes|known name"),
        (pickle.dumps(np.array([1, "a"], object), 2), "plain numbers .* got dtype 'O8'"),
        (pickle.dumps(np.zeros(2, [("a", "i4")]), 2), "plain numbers .* got dtype 'V4'"),
        (pickle.dumps(OrderedDict(), 2), "refers to `collections.OrderedDict`"),
        (pickle.dumps(np.zeros(3))[:-40], "broken bytes|got another"),
        (pickle.dumps({(1, 2): 3}), "Expected keys to be names, got tuple"),
        (b"\x8e" + b"\xff" * 8, "broken bytes at step"),  # bytes of a length beyond the file
        (b"I" + b"9" * 10_000 + b"\n.", "broken bytes at step"),
        (b"((((((", "broken bytes at step"),
    ],
)
def test_anything_else_is_refused(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, content)


@given(cut=st.integers(0, 400), at=st.integers(0, 400), byte=st.integers(0, 255))
@anywhere
def test_broken_files_end_in_our_words(tmp_path, cut, at, byte):
    content = bytearray(pickle.dumps({"data": np.zeros((2, 8), np.uint8), "labels": [1, 2]}, 2))
    if at < len(content):
        content[at] = byte
    with suppress(DataError):
        read(tmp_path, bytes(content[: len(content) - cut % 7]))


@given(content=st.binary(max_size=60))
@anywhere
def test_any_bytes_end_in_our_words(tmp_path, content):
    with suppress(DataError):
        read(tmp_path, content)


def test_size_and_steps_have_limits(tmp_path, monkeypatch):
    monkeypatch.setattr(plain_pickle, "MOST_STEPS", 10)
    with pytest.raises(DataError, match="at most 10 steps of a pickle"):
        read(tmp_path, pickle.dumps(list(range(50))))
    monkeypatch.setattr(plain_pickle, "MOST_BYTES", 10)
    with pytest.raises(DataError, match="to have at most 10 bytes, got"):
        read(tmp_path, pickle.dumps(list(range(50))))


def test_deep_nesting_does_not_end_the_process(tmp_path):
    with pytest.raises(DataError, match=r"to be a pickle of plain data|is refused"):
        read(tmp_path, b"(" * 10**5)
    read(tmp_path, b"]" + b"]a" * 10**5 + b".")
