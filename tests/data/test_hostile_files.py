"""Files that ask for too much, lead elsewhere, or whose content must not show in a message."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from orchestra_strategy.checkpoint_file import Label, read_checkpoint, write_checkpoint
from orchestra_strategy.data import image_folder, load_local, numpy_files
from orchestra_strategy.errors import CheckpointError, DataError
from orchestra_strategy.files import private_folder, write_private
from tests.data.files import write_image

SECRET = "SECRET4711"


def npz(path, shape, content=b"", dtype="|u1", name="x.npy"):
    header = io.BytesIO()
    form = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, form)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, header.getvalue() + content)
    return path


@pytest.mark.parametrize(
    ("shape", "content", "message"),
    [
        ((2**32, 2), b"x", "at most 2147483648 bytes .* got one of 8589934592: save it as .npy"),
        ((2**20, 2), b"x", "as large as they say, got one of 2097152 bytes in"),
        ((-4, -4), b"x" * 16, "as large as they say"),
    ],
)
def test_an_array_is_no_larger_than_its_file_says(tmp_path, shape, content, message):
    with pytest.raises(DataError, match=message):
        load_local(npz(tmp_path / "a.npz", shape, content))


def test_a_packed_array_has_a_limit(tmp_path, monkeypatch):
    path = tmp_path / "zeros.npz"
    np.savez_compressed(path, x=np.zeros((1000, 100), np.uint8))
    assert load_local(path).samples.shape == (1000, 100)
    monkeypatch.setattr(numpy_files, "MOST_BYTES", 99_999)
    with pytest.raises(DataError, match="arrays of at most 99999 bytes"):
        load_local(path)


def test_a_member_that_comes_twice_is_refused(tmp_path):
    path = npz(tmp_path / "a.npz", (2, 4), b"x" * 8)
    with pytest.warns(UserWarning, match="Duplicate name"):
        npz(path, (2, 4), b"y" * 8)
    with pytest.raises(DataError, match=r"every member of .* once, got one twice"):
        load_local(path)


def test_images_have_a_limit_of_pixels_and_are_not_skipped_as_corrupt(tmp_path, monkeypatch):
    write_image(tmp_path / "a.png", size=(32, 32))
    monkeypatch.setattr(image_folder, "MOST_PIXELS", 32 * 32)
    assert load_local(tmp_path).samples.shape[0] == 1
    monkeypatch.setattr(image_folder, "MOST_PIXELS", 32 * 32 - 1)
    with pytest.raises(DataError, match=r"images of at most 1,023 pixels, got more in .*a.png"):
        load_local(tmp_path, skip_corrupt=True)
    monkeypatch.setattr(image_folder, "MOST_PIXELS", 2**27)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow's own error, at twice its limit
    with pytest.raises(DataError, match="images of at most 134,217,728 pixels"):
        load_local(tmp_path, skip_corrupt=True)


@pytest.mark.parametrize("kind", ["file", "folder", "nested", "loop", "nowhere"])
def test_links_that_lead_out_of_a_folder_are_refused(tmp_path, kind):
    outside, root = tmp_path / "outside", tmp_path / "images"
    outside.mkdir()
    (root / "cat").mkdir(parents=True)
    write_image(outside / "s.png")
    write_image(root / "cat" / "a.png")
    link = root / "cat" / "l.png" if kind in ("file", "loop", "nowhere") else root / "dog"
    if kind == "nested":
        link = root / "cat" / "deep"
    link.symlink_to(
        {"file": outside / "s.png", "loop": link, "nowhere": outside / "none"}.get(kind, outside)
    )
    with pytest.raises(DataError, match=f"got the link `{link.name}` to another place"):
        load_local(root)


def test_links_inside_a_folder_and_to_it_are_fine(tmp_path):
    (tmp_path / "images" / "cat").mkdir(parents=True)
    write_image(tmp_path / "images" / "cat" / "a.png")
    (tmp_path / "images" / "cat" / "b.png").symlink_to(tmp_path / "images" / "cat" / "a.png")
    (tmp_path / "link").symlink_to(tmp_path / "images")
    assert len(load_local(tmp_path / "link").samples) == 2


def test_a_linked_cifar_batch_is_refused(tmp_path):
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "data_batch_1").symlink_to(tmp_path / "secret")
    with pytest.raises(DataError, match="got the link `data_batch_1`"):
        load_local(tmp_path / "c")


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (f"{SECRET},{SECRET},1\n1,2,3\n", {}),
        (f"{SECRET},17,1\n1,2,3\n", {"columns": ["age"]}),
        (f"{SECRET},17,1\n1,2,3\n", {"label_column": "age"}),
        (f"{SECRET},17\nx,2\n", {}),
        (f"{SECRET},17\n,2\n", {}),
        (f"{SECRET},17\n1,2\n", {"standardise": {"age": (0.0, 1.0)}}),
        (f"{SECRET},17\n1e400,2\n3,4\n", {}),
        (f"{SECRET},\n1,2\n", {}),
    ],
)
def test_no_message_shows_a_cell_of_a_file_without_a_header(tmp_path, text, options):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(Exception, match="Expected") as e:
        load_local(tmp_path / "t.csv", **options)
    assert SECRET not in str(e.value)
    assert "17" not in str(e.value).replace(str(tmp_path), "")


def test_a_broken_archive_does_not_show_its_bytes(tmp_path):
    (tmp_path / "t.csv.gz").write_text(f"{SECRET},2\n")
    with pytest.raises(DataError, match=r"a CSV file in UTF-8, got BadGzipFile$") as e:
        load_local(tmp_path / "t.csv.gz")
    assert e.value.__cause__ is None


def test_deep_and_packed_checkpoints_are_refused(tmp_path):
    path = tmp_path / "a.ckpt"
    write_checkpoint(path, Label("a", 1, "d"), {"x": 1})
    magic = path.read_bytes().split(b"\n")[0] + b"\n"
    path.write_bytes(magic + b"[" * 60_000 + b"\n")
    with pytest.raises(CheckpointError, match="whose first lines cannot be read"):
        read_checkpoint(path)


# ---- Folders ---------------------------------------------------------------------------------


def test_a_private_folder_is_its_owners_alone(tmp_path):
    private_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    private_folder(tmp_path / "a" / "b")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "file").write_text("")
    for name, got in (("open", "permissions 0777"), ("link", "a link"), ("file", "a file")):
        with pytest.raises(PermissionError, match=f"its owner alone can write in, got .*{got}"):
            private_folder(tmp_path / name)


def test_what_shows_samples_is_its_owners_alone(tmp_path):
    path = tmp_path / "new" / "report.html"
    write_private(path, b"x")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
