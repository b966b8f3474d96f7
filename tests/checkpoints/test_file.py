"""A checkpoint's file: what goes in comes out, what is not whole is refused, nothing is half."""

import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestra_strategy.checkpoints.file import (
    SCHEMA,
    Label,
    plain,
    read_checkpoint,
    write_checkpoint,
)
from orchestra_strategy.checkpoints.round_files import RoundFiles
from orchestra_strategy.errors import CheckpointError
from orchestra_strategy.files import write_bytes

LABEL = Label("alice", 3, "d1gest", ("alice", "bob"))
STATE = {
    "tensors": [torch.arange(3), torch.tensor(float("nan")), torch.ones(2, 2, dtype=torch.float64)],
    "plain": {"none": None, "yes": True, "pair": (1, 0.1), 7: "text"},
}


@pytest.fixture
def path(tmp_path):
    found = RoundFiles(tmp_path / "party", "alice").path(3)
    write_checkpoint(found, LABEL, STATE)
    return found


def test_what_goes_in_comes_out(path):
    label, state = read_checkpoint(path)
    assert label == LABEL
    assert state["plain"] == STATE["plain"]
    for ours, theirs in zip(state["tensors"], STATE["tensors"], strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours.nan_to_num(), theirs.nan_to_num())


def test_only_its_owner_can_read_it(path):
    assert path.stat().st_mode & 0o777 == 0o600


def test_it_holds_copies_not_the_storage_behind_a_view():
    big = torch.zeros(1_000_000)
    buffer = io.BytesIO()
    torch.save(plain({"view": big[:2], "array": np.float32([1])}), buffer)
    assert len(buffer.getvalue()) < 10_000


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [1, {"b": object()}]}, r"`state/a/1/b` to be of tensors and plain .* got object"),
        ({"f": print}, r"`state/f` .* got builtin_function_or_method"),
        ({(1, 2): 3}, r"`state` .* got dict"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(tmp_path, value, message):
    with pytest.raises(CheckpointError, match=message):
        write_checkpoint(tmp_path / "x", LABEL, value)
    assert list(tmp_path.iterdir()) == []


# ---- Refusals ------------------------------------------------------------------------------


def changed_head(path, **values):
    magic, line, body = path.read_bytes().split(b"\n", 2)
    head = {**json.loads(line), **values}
    path.write_bytes(b"\n".join([magic, json.dumps(head).encode(), body]))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"a checkpoint in `.*nowhere`, got No such file"):
        read_checkpoint(tmp_path / "nowhere")


def test_a_newer_schema_is_refused_before_anything_else_is_read(path):
    changed_head(path, schema=SCHEMA + 1, bytes=-1)
    with pytest.raises(CheckpointError, match=r"000003.ckpt` to have a schema of at most 1, got 2"):
        read_checkpoint(path)


def test_a_file_that_is_cut_off_is_refused_at_every_length(path):
    whole = path.read_bytes()
    for length in [*range(0, 300, 7), len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"round-000003.ckpt` to be a whole checkpoint"):
            read_checkpoint(path)
    path.write_bytes(whole[:-1])
    with pytest.raises(CheckpointError, match=r"got one that ends after \d+ of \d+ bytes"):
        read_checkpoint(path)


def test_a_single_changed_byte_is_found(path):
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    with pytest.raises(CheckpointError, match=r"whose content differs .*SHA-256"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a file of another kind, or an empty one"),
        (b"PK\x03\x04 something else", "a file of another kind"),
        (b"orchestra-strategy checkpoint\n{not json\n", "whose first lines cannot be read"),
        (b"orchestra-strategy checkpoint\n[1]\n", "one without a schema"),
        (b'orchestra-strategy checkpoint\n{"schema": 1}\n', "first lines are not complete"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(CheckpointError, match=f"`.*x` to be a whole checkpoint, got .*{message}"):
        read_checkpoint(tmp_path / "x")


@pytest.mark.parametrize("line", [b"[" * 60_000, b'{"a":' * 10_000, b"[" * 200_000])
def test_deep_and_long_first_lines_are_refused(tmp_path, line):
    (tmp_path / "x").write_bytes(b"orchestra-strategy checkpoint\n" + line + b"\nbody")
    with pytest.raises(CheckpointError, match="whose first lines cannot be read"):
        read_checkpoint(tmp_path / "x")


@pytest.mark.parametrize("values", [{"bytes": -1}, {"round_index": -1}])
def test_numbers_below_zero_are_refused(path, values):
    changed_head(path, **values)
    with pytest.raises(CheckpointError, match="whose first lines have numbers below zero"):
        read_checkpoint(path)


def with_body(path, body):
    magic, line, _ = path.read_bytes().split(b"\n", 2)
    path.write_bytes(b"\n".join([magic, line, body]))
    changed_head(path, bytes=len(body), sha256=hashlib.sha256(body).hexdigest())


def rewritten(change, compression=zipfile.ZIP_STORED, before=b""):
    """The body of a checkpoint of ten zeros, with another index."""
    written, changed = io.BytesIO(), io.BytesIO(before)
    torch.save({"a": torch.zeros(10)}, written)
    changed.seek(0, io.SEEK_END)
    with zipfile.ZipFile(written) as old, zipfile.ZipFile(changed, "a", compression) as new:
        for member in old.infolist():
            content = old.read(member)
            index = member.filename.endswith("data.pkl")
            new.writestr(member.filename, change(content) if index else content)
    return changed.getvalue()


def test_compressed_values_are_refused_before_they_are_unpacked(path):
    with_body(path, rewritten(lambda index: index, zipfile.ZIP_DEFLATED))
    with pytest.raises(CheckpointError, match="whose values are compressed"):
        read_checkpoint(path)


@pytest.mark.parametrize("count", [b"K\xf0", b"K\x09", b"K\x00"])
def test_tensors_that_are_longer_than_their_bytes_are_refused(path, count):
    # torch would lay 240 values over the bytes of 10: what is behind them is the process's memory
    with_body(path, rewritten(lambda index: index.replace(b"K\x0a", count)))
    with pytest.raises(CheckpointError, match="whose tensors are longer or shorter than their"):
        read_checkpoint(path)


def test_an_index_that_asks_for_more_memory_is_refused(path):
    # torch's loader would make an array of 2 GB from these 60 bytes
    large = b"\x80\x02}X\x01\x00\x00\x00ac__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85Rs."
    with_body(path, rewritten(lambda index: large))
    with pytest.raises(CheckpointError, match="whose index names something else than tensors"):
        read_checkpoint(path)


def test_an_archive_behind_other_bytes_is_refused(path):
    # two readers may not agree on where it begins
    with_body(path, rewritten(lambda index: index, before=b"12345678"))
    with pytest.raises(CheckpointError, match="got one without a single index"):
        read_checkpoint(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 160), value=st.binary(min_size=1, max_size=3))
def test_any_change_of_the_index_is_loaded_or_refused(path, place, value):
    with_body(path, rewritten(lambda index: index[:place] + value + index[place + len(value) :]))
    try:
        _, state = read_checkpoint(path)
    except CheckpointError:
        return
    tensors = [value for value in state.values() if isinstance(value, torch.Tensor)]
    assert all(tensor.untyped_storage().nbytes() == 40 for tensor in tensors)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(-500, 200), value=st.binary(min_size=1, max_size=4))
def test_any_change_of_the_archive_is_loaded_or_refused(path, place, value):
    body = bytearray(rewritten(lambda index: index))
    body[place % len(body) : place % len(body) + len(value)] = value
    with_body(path, bytes(body))
    try:
        _, state = read_checkpoint(path)
    except CheckpointError:
        return
    tensors = [value for value in state.values() if isinstance(value, torch.Tensor)]
    assert all(tensor.untyped_storage().nbytes() == 40 for tensor in tensors)


def test_every_dtype_and_shared_memory_come_back(tmp_path):
    shared = torch.arange(6)
    dtypes = (torch.bool, torch.uint8, torch.int16, torch.float16, torch.bfloat16, torch.float64)
    state = {str(dtype): torch.ones(3, dtype=dtype) for dtype in dtypes}
    state |= {"rows": [shared, shared], "empty": torch.zeros(0), "large": torch.zeros(70_000)}
    write_checkpoint(tmp_path / "x", LABEL, state)
    _, found = read_checkpoint(tmp_path / "x")
    assert all(torch.equal(found[str(dtype)], state[str(dtype)]) for dtype in dtypes)
    assert torch.equal(found["rows"][1], shared)
    assert found["empty"].numel() == 0
    assert found["large"].shape == (70_000,)


def test_a_dtype_that_cannot_be_read_back_is_not_written(tmp_path):
    with pytest.raises(CheckpointError, match=r"that can be read back, got .*common dtypes"):
        write_checkpoint(tmp_path / "x", LABEL, {"a": torch.zeros(3, dtype=torch.uint16)})
    assert list(tmp_path.iterdir()) == []


def test_other_values_than_a_dictionary_are_refused(path):
    written = io.BytesIO()
    torch.save([1, 2], written)
    with_body(path, written.getvalue())
    with pytest.raises(CheckpointError, match="got one without a dictionary"):
        read_checkpoint(path)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil-was-here",)


def test_no_code_of_a_file_is_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    buffer = io.BytesIO()
    torch.save({"state": Evil()}, buffer, pickle_module=pickle)
    body = buffer.getvalue()
    magic, line, _ = path.read_bytes().split(b"\n", 2)
    path.write_bytes(b"\n".join([magic, line, body]))
    changed_head(path, bytes=len(body), sha256=hashlib.sha256(body).hexdigest())
    with pytest.raises(CheckpointError, match="whose index names something else than tensors"):
        read_checkpoint(path)
    assert not (tmp_path / "evil-was-here").exists()


# ---- Nothing is half -----------------------------------------------------------------------

KILLED = """
import os, sys
os.replace = lambda *paths: os._exit(9)
from orchestra_strategy.checkpoints.file import Label, write_checkpoint
write_checkpoint(sys.argv[1], Label("alice", 3, "new", ()), {"new": True})
"""


def test_a_process_that_dies_between_write_and_rename_loses_nothing(path):
    before = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], timeout=120)
    assert done.returncode == 9
    (leftover,) = path.parent.glob(".round-*.tmp")
    assert path.read_bytes() == before
    files = RoundFiles(path.parent, "alice")
    assert files.committed() == [3]
    # The next of that name are not in its way, and it goes with the next checkpoint.
    write_checkpoint(path, LABEL, {"again": 1})
    assert read_checkpoint(path)[1] == {"again": 1}
    files.prune(keep=1)
    assert files.committed() == [3]
    assert not leftover.exists()


def test_a_write_that_fails_leaves_the_old_file_and_no_other(path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(path, LABEL, {"new": True})
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done = []
    real_sync, real_replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append("sync"), real_sync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("name"), real_replace(a, b))[1])
    write_bytes(tmp_path / "x", b"content")
    assert done == ["sync", "name", "sync"]
