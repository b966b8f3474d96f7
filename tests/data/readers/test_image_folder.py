"""Image folders: order, labels, conversion, and every kind of bad input."""

import logging
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestra_strategy.data.readers import image_decoding
from orchestra_strategy.data.readers.image_folder import load_image_folder
from orchestra_strategy.errors import DataError, ParameterError
from tests.data.readers.files import write_classes, write_image

CIFAR = Path(__file__).parents[4] / "shared" / "data" / "cifar10_imagefolder.tar.xz"


def test_classes__are_read_by_class_and_name(tmp_path):
    pixels = write_classes(tmp_path, {"dog": 2, "cat": 3})
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "dog" / "Thumbs.db").write_bytes(b"x")
    data = load_image_folder(tmp_path)
    assert data.samples.dtype == np.uint8
    assert data.samples.shape == (5, 3, 5, 6)
    assert np.array_equal(data.samples, pixels)
    assert data.labels.tolist() == [0, 0, 0, 1, 1]
    assert data.class_names == ("cat", "dog")
    assert data.skipped == ()
    assert len(data) == 5


def test_flat_folder__has_no_labels(tmp_path):
    grey = [write_image(tmp_path / name, mode="L", seed=i) for i, name in enumerate(["b.PNG"])]
    grey.insert(0, write_image(tmp_path / "a.png", mode="L", seed=7))
    data = load_image_folder(tmp_path)
    assert data.samples.shape == (2, 1, 5, 6)
    assert np.array_equal(data.samples, grey)
    assert data.labels is None
    assert data.class_names is None


def test_max_per_class__takes_the_first(tmp_path):
    pixels = write_classes(tmp_path, {"cat": 3, "dog": 2})
    data = load_image_folder(tmp_path, max_per_class=1)
    assert np.array_equal(data.samples, pixels[[0, 3]])
    assert data.labels.tolist() == [0, 1]


def test_class_names__number_the_classes_of_a_party_that_lacks_some(tmp_path):
    write_classes(tmp_path, {"cat": 1, "dog": 2})
    data = load_image_folder(tmp_path, class_names=["frog", "dog", "cat"])
    assert data.labels.tolist() == [1, 1, 2]
    assert data.class_names == ("frog", "dog", "cat")
    with pytest.raises(DataError, match=r"`class_names`, got `dog`: did you mean `dogs`"):
        load_image_folder(tmp_path, class_names=["cat", "dogs"])


def test_mode__converts(tmp_path):
    write_image(tmp_path / "0.png", mode="L")
    write_image(tmp_path / "1.png")
    data = load_image_folder(tmp_path, mode="RGB")
    assert data.samples.shape == (2, 3, 5, 6)
    assert np.array_equal(data.samples[0, 0], data.samples[0, 2])
    assert load_image_folder(tmp_path, mode="L").samples.shape == (2, 1, 5, 6)


def test_image_size__scales_until_it_covers_and_crops_the_centre(tmp_path):
    wide = np.zeros((4, 12, 3), np.uint8)
    wide[:, 4:8] = 200  # the square in the middle is all that is left
    Image.fromarray(wide).save(tmp_path / "0.png")
    write_image(tmp_path / "1.png", size=(9, 9))
    assert (load_image_folder(tmp_path, image_size=4).samples[0] == 200).all()
    assert load_image_folder(tmp_path, image_size=(4, 8)).samples.shape == (2, 3, 4, 8)


def test_exif__turns_the_image_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held sideways: turn by 90 degrees clockwise
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "0.jpg", exif=exif)
    assert load_image_folder(tmp_path).samples.shape == (1, 3, 6, 4)


# ---- Bad input -----------------------------------------------------------------------------


def test_corrupt__is_named(tmp_path):
    write_classes(tmp_path, {"cat": 2})
    (tmp_path / "cat" / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"`.*cat/0.png` to be an image, got Unident.*skip_corrupt"):
        load_image_folder(tmp_path)


def test_truncated__is_named(tmp_path):
    write_image(tmp_path / "0.jpg", size=(64, 64))
    content = (tmp_path / "0.jpg").read_bytes()
    (tmp_path / "0.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"0.jpg` to be an image, got OSError; remove it, or leave"):
        load_image_folder(tmp_path)


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_corrupt__is_skipped_only_on_request_and_listed(tmp_path, broken, caplog):
    pixels = write_classes(tmp_path, {"cat": 3, "dog": 1})
    (tmp_path / "cat" / f"{broken}.png").write_bytes(b"\x89PNG")
    with caplog.at_level(logging.WARNING):
        data = load_image_folder(tmp_path, skip_corrupt=True)
    assert data.skipped == (f"cat/{broken}.png",)
    assert np.array_equal(data.samples, np.delete(pixels, broken, axis=0))
    assert data.labels.tolist() == [0, 0, 1]
    assert "Skipped 1 corrupt images of 4" in caplog.text


def test_corrupt__a_class_of_nothing_else_is_refused(tmp_path):
    write_classes(tmp_path, {"cat": 1, "dog": 1})
    (tmp_path / "dog" / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"class `dog` in .* corrupt ones alone"):
        load_image_folder(tmp_path, skip_corrupt=True)
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"the folder in .* corrupt ones alone"):
        load_image_folder(tmp_path / "flat", skip_corrupt=True)


@pytest.mark.parametrize("limit", ["ours", "Pillow's warning", "Pillow's error"])
def test_too_many_pixels__are_refused_and_never_skipped(tmp_path, monkeypatch, limit):
    write_image(tmp_path / "0.png", size=(20, 10))
    if limit == "ours":
        monkeypatch.setattr(image_decoding, "MOST_PIXELS", 199)
    else:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150 if "warning" in limit else 99)
    with pytest.raises(DataError, match=r"0.png` to have at most \d+ pixels, got (20x10|more): sc"):
        load_image_folder(tmp_path, skip_corrupt=True)


def test_a_long_file__is_refused(tmp_path, monkeypatch):
    write_image(tmp_path / "0.png")
    monkeypatch.setattr(image_decoding, "MOST_BYTES", 10)
    with pytest.raises(DataError, match=r"0.png` to have at most 10 bytes, got \d+"):
        load_image_folder(tmp_path)


def test_links_out_of_the_folder__are_refused_by_name(tmp_path):
    write_image(tmp_path / "outside" / "secret.png")
    write_image(tmp_path / "root" / "cat" / "0.png")
    for link, target in [("dog", "outside"), ("cat/1.png", "outside/secret.png")]:
        (tmp_path / "root" / link).symlink_to(tmp_path / target)
        with pytest.raises(DataError, match=rf"to lie in it, got `{link}`, a link that") as error:
            load_image_folder(tmp_path / "root")
        assert "secret" not in str(error.value)
        (tmp_path / "root" / link).unlink()
    # By a detour: one link to another.
    (tmp_path / "root" / ".hidden").symlink_to(tmp_path / "outside")
    (tmp_path / "root" / "dog").symlink_to(".hidden")
    with pytest.raises(DataError, match="to lie in it, got `dog`"):
        load_image_folder(tmp_path / "root")


def test_links_that_stay__are_followed_and_circles_end(tmp_path):
    pixels = write_image(tmp_path / "root" / "cat" / "0.png")
    (tmp_path / "root" / "dog").symlink_to("cat")
    (tmp_path / "given").symlink_to("root")  # what was given is itself a link
    data = load_image_folder(tmp_path / "given")
    assert np.array_equal(data.samples, [pixels, pixels])
    (tmp_path / "root" / "cat" / "1.png").symlink_to("1.png")
    with pytest.raises(DataError, match=r"to have files, got `1.png`, which is none"):
        load_image_folder(tmp_path / "root")


def test_a_pipe__is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "0.png")
    with pytest.raises(DataError, match=r"to have files, got `0.png`, which is none"):
        load_image_folder(tmp_path)


def test_unequal_channels__are_refused_with_both_files(tmp_path):
    write_image(tmp_path / "a" / "0.png")
    write_image(tmp_path / "b" / "1.png", mode="L")
    with pytest.raises(
        DataError, match=r"first, RGB 5x6 \(`a/0.png`\), got L 5x6 \(`b/1.png`\): .*`mode='RGB'`"
    ):
        load_image_folder(tmp_path)


def test_unequal_sizes__are_refused_with_both_files(tmp_path):
    write_image(tmp_path / "0.png")
    write_image(tmp_path / "1.png", size=(7, 5))
    with pytest.raises(DataError, match=r"got RGB 5x7 \(`1.png`\): .*`image_size=5`"):
        load_image_folder(tmp_path, skip_corrupt=True)  # it is not corrupt


@pytest.mark.parametrize(
    ("mode", "message"),
    [("RGBA", "`0.png` of mode RGBA: say which"), ("I;16", "8 bits .* `0.png` of mode I;16")],
)
def test_other_modes__are_refused(tmp_path, mode, message):
    Image.new(mode, (4, 4)).save(tmp_path / "0.png")
    with pytest.raises(DataError, match=message):
        load_image_folder(tmp_path)


def test_programs_of_a_printer__are_not_run(tmp_path):
    # Pillow tells PostScript by its content, and hands it to a program that runs it
    Image.new("L", (4, 4)).save(tmp_path / "0.png", format="EPS")
    with pytest.raises(DataError, match=r"0.png` to be an image, got UnidentifiedImageError"):
        load_image_folder(tmp_path)


def test_series__are_refused(tmp_path):
    pages = [Image.new("L", (4, 4), shade) for shade in (0, 9)]
    pages[0].save(tmp_path / "0.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match=r"0.tif` to be one image, got a series"):
        load_image_folder(tmp_path)


def test_empty_class__is_named(tmp_path):
    write_classes(tmp_path, {"cat": 1})
    (tmp_path / "dog").mkdir()
    with pytest.raises(DataError, match=r"class `dog` in .* to have an image, got none: remove"):
        load_image_folder(tmp_path)


def test_empty_folder__is_refused(tmp_path):
    with pytest.raises(DataError, match=r"the folder in .* to have an image, got none"):
        load_image_folder(tmp_path)


def test_missing_folder__is_refused(tmp_path):
    with pytest.raises(DataError, match="gone` to be a folder that can be read, got FileNotFound"):
        load_image_folder(tmp_path / "gone")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("cat/notes.txt", r"have images alone \(.bmp, .*\), got `notes.txt`: convert it, or move"),
        ("cat/more/1.png", "images alone, got folder `more`"),
        ("1.png", "got both: folder `cat` and file `1.png`"),
    ],
)
def test_what_does_not_belong__is_refused(tmp_path, extra, message):
    write_classes(tmp_path, {"cat": 1})
    (tmp_path / extra).parent.mkdir(exist_ok=True)
    (tmp_path / extra).write_bytes(b"x")
    with pytest.raises(DataError, match=message):
        load_image_folder(tmp_path)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mode": "BGR"}, ParameterError, "`mode` to be 'RGB' or 'L', got 'BGR'"),
        ({"image_size": 0}, ParameterError, "`image_size` to be an integer >= 1, got 0"),
        ({"image_size": (1, 2, 3)}, ParameterError, r"a side or \(H, W\), got \(1, 2, 3\)"),
        ({"max_per_class": 0}, ParameterError, "`max_per_class` to be an integer >= 1, got 0"),
        ({"class_names": ["a", "a"]}, DataError, "list of different names, got"),
        ({"class_names": ["a"]}, ParameterError, "no `class_names` for images without class"),
    ],
)
def test_options__out_of_range_are_refused(tmp_path, options, error, message):
    write_image(tmp_path / "0.png")
    with pytest.raises(error, match=message):
        load_image_folder(tmp_path, **options)


@pytest.mark.skipif(not CIFAR.exists(), reason="CIFAR-10 as an image folder is not there")
def test_real_photographs(tmp_path):
    with tarfile.open(CIFAR) as archive:
        for _ in range(12):  # the first few only: unpacking all takes minutes
            member = archive.next()
            archive.extract(member, tmp_path, filter="data")
    data = load_image_folder(tmp_path / "train")
    assert data.samples.shape[1:] == (3, 32, 32)
    assert len(data) >= 8
    assert data.class_names == ("airplane",)
    assert 20 < data.samples.std() < 110
