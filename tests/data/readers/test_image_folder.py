"""Image folders: order, labels, conversion, and every kind of bad input."""

import logging
import os
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

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
    with pytest.raises(
        DataError, match=r"1 folder is not among `class_names` \(`dog`, is `dogs` meant"
    ):
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


def photo(size=32, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8))


def test_mpo__of_a_phone_is_read_as_its_main_picture(tmp_path):
    photo(seed=1).save(
        tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[photo(16), photo(32)]
    )
    photo(seed=1).save(tmp_path / "b.jpg")
    data = load_image_folder(tmp_path)
    assert data.samples.shape == (2, 3, 32, 32)
    assert np.array_equal(data.samples[0], data.samples[1])


@pytest.mark.parametrize(("above", "below"), [(-1, 0), (-72, 1)])
def test_exif__that_is_odd_still_turns_the_image(tmp_path, above, below):
    entries = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack("<HHII", 0x011A, 10, 1, 38)
    odd = struct.pack("<ii", above, below)  # a resolution as Pillow would not write it
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + struct.pack("<I", 0) + odd
    wide = Image.fromarray(np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3))
    wide.save(tmp_path / "a.jpg", exif=exif)
    wide.save(tmp_path / "b.jpg")
    plain = np.asarray(Image.open(tmp_path / "b.jpg"))
    (tmp_path / "b.jpg").unlink()
    data = load_image_folder(tmp_path)
    assert np.array_equal(data.samples[0].transpose(1, 2, 0), np.rot90(plain, -1))


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif__every_turn_is_undone_as_pillow_does(tmp_path, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    image = Image.fromarray(np.arange(4 * 6, dtype=np.uint8).reshape(4, 6))
    image.save(tmp_path / "a.png", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
    assert np.array_equal(load_image_folder(tmp_path).samples[0, 0], expected)


def test_exif__that_is_broken_leaves_the_image_as_it_lies(tmp_path, caplog):
    pixels = np.arange(4 * 6, dtype=np.uint8).reshape(4, 6)
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=b"Exif\0\0no TIFF at all")
    with caplog.at_level(logging.WARNING):
        data = load_image_folder(tmp_path)
    assert np.array_equal(data.samples[0, 0], pixels)
    assert "Of 1 images the EXIF data are broken" in caplog.text


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_transparency__becomes_white(tmp_path, mode):
    image = Image.new("RGBA", (4, 4), (10, 20, 30, 255))
    image.putpixel((0, 0), (200, 0, 0, 0))  # a colour that nobody has seen
    image.putpixel((1, 0), (0, 0, 0, 51))
    if mode == "P":
        flat = image.convert("RGB").quantize(4)
        flat.save(tmp_path / "0.png", transparency=flat.getpixel((0, 0)))
    else:
        image.convert(mode if mode != "PA" else "RGBA").save(tmp_path / "0.png")
    samples = load_image_folder(tmp_path, mode="RGB").samples
    assert samples[0, :, 0, 0].tolist() == [255, 255, 255]
    grey = load_image_folder(tmp_path, mode="L").samples
    assert grey[0, 0, 0, 0] == 255
    if mode != "P":
        assert samples[0, :, 0, 1].tolist() == [204, 204, 204]  # 0.2 of black on white
    assert samples[0, 0, 3, 3] in (10, 18)  # 18 is the grey of that colour


def test_value_range__reads_deep_images(tmp_path):
    deep = np.array([[0, 1000], [4095, 65535]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "0.png")
    Image.fromarray(deep.astype(np.int32)).save(tmp_path / "1.tif")
    Image.fromarray(deep.astype(np.float32)).save(tmp_path / "2.tif")
    samples = load_image_folder(tmp_path, value_range=(0, 4095)).samples
    assert samples.dtype == np.float32
    expected = np.minimum(deep / 4095, 1)
    for one in samples:
        np.testing.assert_allclose(one[0], expected, atol=1e-7)
    colour = load_image_folder(tmp_path, value_range=(0, 4095), mode="RGB", image_size=7).samples
    assert colour.shape == (3, 3, 7, 7)
    assert np.array_equal(colour[:, 0], colour[:, 2])
    assert (colour.min(), colour.max()) == (0, 1)  # though resizing overshoots
    with pytest.raises(DataError, match="3 images have more than 8 bits"):
        load_image_folder(tmp_path)


def test_value_range__of_shallow_images(tmp_path):
    pixels = write_image(tmp_path / "0.png")
    samples = load_image_folder(tmp_path, value_range=(0, 51)).samples
    np.testing.assert_allclose(samples[0], np.minimum(pixels / 51, 1), atol=1e-6)
    with pytest.raises(DataError, match=r"1 image has 8 bits per channel \(`0.png`\): give"):
        load_image_folder(tmp_path, value_range=(0, 4095))


# ---- Bad input -----------------------------------------------------------------------------


def test_corrupt__is_named(tmp_path):
    write_classes(tmp_path, {"cat": 2})
    (tmp_path / "cat" / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1 image is corrupt \(`cat/0.png`, Unident.*skip_corrupt"):
        load_image_folder(tmp_path)


def test_truncated__is_named(tmp_path):
    write_image(tmp_path / "0.jpg", size=(64, 64))
    content = (tmp_path / "0.jpg").read_bytes()
    (tmp_path / "0.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"\(`0.jpg`, OSError\): remove them, or leave"):
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
    with pytest.raises(
        DataError, match=r"1 image is sound .*0.png`, (20x10|over \d+) pixels\): at most"
    ):
        load_image_folder(tmp_path, skip_corrupt=True)


def test_a_long_file__is_refused(tmp_path, monkeypatch):
    write_image(tmp_path / "0.png")
    monkeypatch.setattr(image_decoding, "MOST_BYTES", 10)
    with pytest.raises(DataError, match=r"beyond the limits \(`0.png`, \d+ bytes\)"):
        load_image_folder(tmp_path)


def test_links_out_of_the_folder__are_refused_by_name(tmp_path):
    write_image(tmp_path / "outside" / "secret.png")
    write_image(tmp_path / "root" / "cat" / "0.png")
    for link, target in [("dog", "outside"), ("cat/1.png", "outside/secret.png")]:
        (tmp_path / "root" / link).symlink_to(tmp_path / target)
        with pytest.raises(
            DataError, match=rf"1 link leads out of the folder \(`{link}`\)"
        ) as error:
            load_image_folder(tmp_path / "root")
        assert "secret" not in str(error.value)
        (tmp_path / "root" / link).unlink()
    # By a detour: one link to another.
    (tmp_path / "root" / ".hidden").symlink_to(tmp_path / "outside")
    (tmp_path / "root" / "dog").symlink_to(".hidden")
    with pytest.raises(DataError, match=r"out of the folder \(`dog`\)"):
        load_image_folder(tmp_path / "root")


def test_links_that_stay__are_followed_and_circles_end(tmp_path):
    pixels = write_image(tmp_path / "root" / "cat" / "0.png")
    (tmp_path / "root" / "dog").symlink_to("cat")
    (tmp_path / "given").symlink_to("root")  # what was given is itself a link
    data = load_image_folder(tmp_path / "given")
    assert np.array_equal(data.samples, [pixels, pixels])
    (tmp_path / "root" / "cat" / "1.png").symlink_to("1.png")
    with pytest.raises(DataError, match=r"2 entries are no files, .* \(`cat/1.png`; `dog/1.png`\)"):
        load_image_folder(tmp_path / "root")


def test_a_pipe__is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "0.png")
    with pytest.raises(DataError, match=r"1 entry is no file, .* \(`0.png`\): remove"):
        load_image_folder(tmp_path)


def test_unequal_channels__are_counted_with_an_example_each(tmp_path):
    write_image(tmp_path / "a" / "0.png")
    write_image(tmp_path / "b" / "1.png", mode="L")
    with pytest.raises(
        DataError, match=r"2 modes, 1 of RGB \(`a/0.png`\), 1 of L \(`b/1.png`\): .*`mode='RGB'`"
    ):
        load_image_folder(tmp_path)


def test_unequal_sizes__are_counted_the_commonest_first(tmp_path):
    for i, width in enumerate([9, 7, 7, 6, 8, 7]):
        write_image(tmp_path / f"{i}.png", size=(width, 5))
    with pytest.raises(
        DataError,
        match=r"got 4 sizes, 3 of 5x7 \(`1.png`\), 1 of 5x9 \(`0.png`\), 1 of 5x6 \(`3.png`\) and "
        r"1 more: give `image_size`, such as 5",
    ):
        load_image_folder(tmp_path, skip_corrupt=True)  # they are not corrupt
    assert len(load_image_folder(tmp_path, image_size=5)) == 6


def test_all_problems_come_in_one_message_with_their_numbers(tmp_path):
    write_classes(tmp_path, {"cat": 3, "dog": 4})
    for i in range(4):
        (tmp_path / "dog" / f"{i}.png").write_bytes(b"no image")
    write_image(tmp_path / "cat" / "3.png", size=(3, 3), mode="L")
    (tmp_path / "cat" / "notes.txt").write_bytes(b"x")
    Image.new("I;16", (4, 4)).save(tmp_path / "cat" / "4.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError) as caught:
        load_image_folder(tmp_path)
    told = str(caught.value)
    for part in (
        "1 file is no image by its name (`cat/notes.txt`)",
        "1 class has no image (`empty`)",
        "4 images are corrupt (`dog/0.png`, Unid",
        "`dog/2.png`, UnidentifiedImageError; ...)",
        "1 image has more than 8 bits per channel (`cat/4.png`)",
        "2 modes, 3 of RGB (`cat/0.png`), 1 of L (`cat/3.png`)",
        "2 sizes, 3 of 5x6 (`cat/0.png`), 1 of 3x3 (`cat/3.png`)",
    ):
        assert part in told
    assert "dog/3.png" not in told  # a few names, not a list of the whole folder


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("RGBA", r"neither RGB nor L, 1 of RGBA \(`0.png`\): .*`mode='RGB'`.* becomes white"),
        ("I;16", r"more than 8 bits per channel \(`0.png`\): .*`value_range`"),
    ],
)
def test_other_modes__are_refused(tmp_path, mode, message):
    Image.new(mode, (4, 4)).save(tmp_path / "0.png")
    with pytest.raises(DataError, match=message):
        load_image_folder(tmp_path)


def test_programs_of_a_printer__are_not_run(tmp_path):
    # Pillow tells PostScript by its content, and hands it to a program that runs it
    Image.new("L", (4, 4)).save(tmp_path / "0.png", format="EPS")
    with pytest.raises(DataError, match=r"corrupt \(`0.png`, UnidentifiedImageError"):
        load_image_folder(tmp_path)


def test_series__are_refused(tmp_path):
    pages = [Image.new("L", (4, 4), shade) for shade in (0, 9)]
    pages[0].save(tmp_path / "0.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match=r"1 file is a series of images \(`0.tif`, 2\): take"):
        load_image_folder(tmp_path)


def test_empty_class__is_named(tmp_path):
    write_classes(tmp_path, {"cat": 1})
    (tmp_path / "dog").mkdir()
    with pytest.raises(DataError, match=r"1 class has no image \(`dog`\): remove"):
        load_image_folder(tmp_path)


def test_empty_folder__is_refused(tmp_path):
    with pytest.raises(DataError, match=r"the folder `.*` to have an image, got none"):
        load_image_folder(tmp_path)


def test_missing_folder__is_refused(tmp_path):
    with pytest.raises(DataError, match="gone` to be a folder that can be read, got FileNotFound"):
        load_image_folder(tmp_path / "gone")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("cat/notes.txt", r"\(`cat/notes.txt`\): known are .bmp, .*; convert them, or move"),
        ("cat/more/1.png", r"1 folder is in a class \(`cat/more`\)"),
        ("1.png", "got both: 1 folders such as `cat` and 1 files such as `1.png`"),
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
        ({"value_range": (1, 1)}, ParameterError, "`value_range` to be .black, white., two"),
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
