from __future__ import annotations

import io
import lzma
import os
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageOps

from ripieno.data import load_dataset
from ripieno.data.prediction_inputs import read_inputs
from ripieno.errors import DataError
from ripieno.types import Input


def error_of(source, **options) -> str:
    with pytest.raises(DataError) as caught:
        load_dataset(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_folders_are_classes_and_rows_are_in_order_of_class_and_file(image_folder):
    dataset = load_dataset(image_folder(count=10))
    assert dataset.classes == ("a", "b")
    assert dataset.targets.tolist() == [0] * 10 + [1] * 10
    assert dataset.inputs.shape == (20, 8, 8, 3)
    assert dataset.name == "images"


def test_pixels_are_those_of_the_file(image_folder):
    folder = image_folder()
    dataset = load_dataset(folder)
    assert np.array_equal(dataset.inputs[3], np.asarray(Image.open(folder / "a" / "a003.png")))


def test_more_pictures_than_a_block_keep_their_order(image_folder):
    folder = image_folder(count=150, size=(2, 2))
    dataset = load_dataset(folder)
    assert np.array_equal(dataset.inputs[299], np.asarray(Image.open(folder / "b" / "b149.png")))
    assert len(dataset.inputs) == 300


def test_grey_pictures_keep_one_channel(image_folder):
    assert load_dataset(image_folder(mode="L")).inputs.shape == (20, 8, 8, 1)


def test_one_colour_picture_among_grey_makes_all_rgb(image_folder, make):
    folder = image_folder(mode="L")
    make.picture(folder / "b" / "b000.png", mode="RGB")
    assert load_dataset(folder).inputs.shape == (20, 8, 8, 3)


def test_a_grey_palette_is_grey(image_folder):
    folder = image_folder(mode="L")
    Image.open(folder / "a" / "a000.png").convert("P").save(folder / "a" / "a000.png")
    assert load_dataset(folder).inputs.shape[3] == 1


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "tif", "webp", "ppm"])
def test_every_format_of_pillow_is_read(image_folder, suffix):
    folder = image_folder(value=200)
    for path in folder.rglob("*.png"):
        Image.open(path).save(path.with_suffix(f".{suffix}"))
        if suffix != "png":
            path.unlink()
    assert np.abs(load_dataset(folder).inputs.astype(int) - 200).max() <= 2


def test_transparent_pictures_are_laid_on_white(image_folder):
    folder = image_folder(value=0)
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(folder / "a" / "a000.png")
    assert (load_dataset(folder).inputs[0] == 255).all()


def test_pictures_of_16_bits_become_float32_in_their_own_unit(image_folder):
    folder = image_folder()
    for i, path in enumerate(sorted(folder.rglob("*.png"))):
        Image.fromarray(np.full((8, 8), 1000 * i, np.uint16)).save(path)
    dataset = load_dataset(folder)
    assert dataset.inputs.dtype == np.float32
    assert dataset.inputs[:, 0, 0, 0].tolist() == [1000 * i for i in range(20)]


def test_16_and_8_bits_together_are_refused(image_folder):
    folder = image_folder()
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(folder / "a" / "a000.png")
    assert "a000.png has more than 8 bits a sample and" in error_of(folder)


def test_nan_in_a_float_picture_names_its_file(image_folder):
    folder = image_folder()
    for path in folder.rglob("*.png"):
        value = np.nan if path.stem == "b003" else 1
        Image.fromarray(np.full((8, 8), value, np.float32)).save(path.with_suffix(".tif"))
        path.unlink()
    message = error_of(folder)
    assert "b003.tif" in message
    assert "NaN" in message


def test_photographs_are_turned_upright(image_folder):
    folder = image_folder(size=(4, 8))
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, :4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated: its left is its top
    Image.fromarray(pixels).save(folder / "a" / "a000.jpg", exif=exif, quality=100)
    (folder / "a" / "a000.png").unlink()
    upright = load_dataset(folder).inputs[0]
    assert upright.shape == (8, 4, 3)
    assert upright[:4].min() > 200
    assert upright[4:].max() < 50


def test_mixed_sizes_get_the_median_of_their_longer_sides_and_keep_their_aspect_ratio(image_folder, make):
    folder = image_folder(size=(12, 8))
    wide = np.full((8, 24, 3), 200, np.uint8)
    wide[:4] = 10
    Image.fromarray(wide).save(folder / "b" / "b005.png")
    notes = []
    dataset = load_dataset(folder, notes=notes)
    assert dataset.inputs.shape == (20, 12, 12, 3)
    assert set(dataset.inputs[15, :5, 0, 0]) == {10}  # the upper border, repeated
    assert notes[0] == (
        "images have 2 sizes, 12 x 8 to 24 x 8 pixels: they are resized to 12 x 12 (the median of their longer sides) "
        "and padded to keep their aspect ratio; --size N sets another size"
    )


def test_the_size_proposed_for_large_pictures_has_a_limit(image_folder, make):
    folder = image_folder(size=(300, 8), count=3)
    make.picture(folder / "a" / "a001.png", size=(400, 8))
    notes = []
    assert load_dataset(folder, notes=notes).inputs.shape[1:3] == (224, 224)
    assert "(the median of their longer sides is 300, at most 224 is used)" in notes[0]


def test_size_brings_mixed_sizes_to_one(image_folder, make):
    folder = image_folder()
    make.picture(folder / "b" / "b005.png", size=(30, 20))
    assert load_dataset(folder, size=16).inputs.shape == (20, 16, 16, 3)


def test_size_keeps_the_aspect_ratio_and_repeats_the_border(image_folder, make):
    folder = image_folder()
    pixels = np.zeros((4, 8), np.uint8)
    pixels[0], pixels[-1] = 10, 20
    Image.fromarray(pixels).convert("RGB").save(folder / "a" / "a000.png")
    image = load_dataset(folder, size=8).inputs[0, :, :, 0]
    assert image[:, 0].tolist() == [10, 10, 10, 0, 0, 20, 20, 20]


@pytest.mark.parametrize("name", ["valid", "val", "validation"])
def test_train_valid_and_test_folders_are_kept(image_folder, name):
    for top, count in (("train", 6), (name, 3), ("test", 4)):
        image_folder(count=count, top=f"images/{top}")
    dataset = load_dataset(image_folder(classes="", count=0))
    assert dataset.classes == ("a", "b")
    assert [len(dataset.rows(s)) for s in ("train", "valid", "test")] == [12, 6, 8]


def test_folders_for_train_and_test_only_get_a_validation_split(image_folder):
    image_folder(count=20, top="images/train")
    dataset = load_dataset(image_folder(count=5, top="images/test").parent)
    assert [len(dataset.rows(s)) for s in ("train", "valid", "test")] == [36, 4, 10]


def test_a_class_only_in_test_is_named(image_folder):
    image_folder(count=5, top="images/train")
    assert "class 'c' has no sample for train" in error_of(image_folder("abc", top="images/test").parent)


def test_folders_without_train_are_refused(image_folder):
    image_folder(top="images/valid")
    assert "has test and valid but no train folder" in error_of(image_folder(top="images/test").parent)


def test_two_folders_for_one_split_are_refused(image_folder):
    image_folder(top="images/train")
    image_folder(top="images/val")
    assert "two folders for one split" in error_of(image_folder(top="images/valid").parent)


@pytest.mark.parametrize("splits", [("train", "test"), ("Train", "val", "test"), ("training", "dev")])
def test_a_folder_beside_those_of_splits_is_named_and_they_become_no_classes(image_folder, splits):
    for top in (*splits, "unlabeled"):
        root = image_folder(count=5, top=f"images/{top}").parent
    message = error_of(root)
    assert "and the folder unlabeled, which is no split; move unlabeled elsewhere; or, if all of them" in message
    assert all(name in message for name in splits)


@pytest.mark.parametrize("classes", [("train", "car"), ("test", "valid", "car")])
def test_a_class_may_be_called_as_a_split_where_there_are_no_splits(image_folder, classes):
    assert load_dataset(image_folder(classes)).classes == tuple(sorted(classes))


def test_pictures_deeper_down_belong_to_the_class_above(image_folder, make):
    folder = image_folder()
    make.picture(folder / "a" / "monday" / "x.png")
    assert np.bincount(load_dataset(folder).targets).tolist() == [11, 10]


def test_an_empty_folder_says_what_it_must_hold(tmp_path):
    assert "is empty; expected one folder of images per class" in error_of(tmp_path)


def test_a_folder_of_pictures_without_classes_says_what_it_must_hold(tmp_path, make):
    make.picture(tmp_path / "a.png")
    assert "holds 1 images outside a class folder; expected one folder of images per class" in error_of(tmp_path)


def test_folders_without_pictures_say_so(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.txt").touch()
    assert "holds no image that Pillow can read" in error_of(tmp_path)


def test_a_single_class_is_refused(image_folder):
    assert "only the class 'a'" in error_of(image_folder("a"))


def test_an_empty_class_folder_is_named(image_folder):
    folder = image_folder()
    (folder / "c").mkdir()
    assert "class 'c' has no sample for train, valid, test; expected at least 3" in error_of(folder)


def test_a_class_with_too_few_images_is_named_before_anything_is_decoded(image_folder, make):
    folder = image_folder()
    make.picture(folder / "c" / "c0.png")
    done = []
    message = error_of(folder, progress=lambda *p: done.append(p))
    assert "class 'c' has 1 sample" in message
    assert not done


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_a_broken_picture_names_its_file(image_folder, damage):
    folder = image_folder()
    path = folder / "b" / "b004.png"
    path.write_bytes({"cut": path.read_bytes()[:-60], "empty": b"", "text": b"hello"}[damage])
    message = error_of(folder)
    assert message.startswith(f"{path} is broken (")
    assert "--skip-bad" in message


def test_skip_bad_leaves_broken_pictures_out_and_counts_them(image_folder):
    folder = image_folder()
    (folder / "a" / "a000.png").write_bytes(b"")
    path = folder / "b" / "b004.png"
    path.write_bytes(path.read_bytes()[:-60])
    notes = []
    dataset = load_dataset(folder, skip_bad=True, notes=notes)
    assert np.bincount(dataset.targets).tolist() == [9, 9]
    assert np.array_equal(dataset.inputs[9 + 4], np.asarray(Image.open(folder / "b" / "b005.png")))
    assert "skipped 2 broken images, the first" in notes[0]
    assert "a000.png" in notes[0]


def test_a_class_left_with_too_few_images_by_skip_bad_is_named(image_folder):
    folder = image_folder(count=3)
    path = folder / "b" / "b001.png"
    path.write_bytes(path.read_bytes()[:-60])
    assert "class 'b' has 2 samples" in error_of(folder, skip_bad=True)


def test_only_broken_pictures_say_so_even_when_skipped(image_folder):
    folder = image_folder(count=3)
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")
    assert "holds no readable picture" in error_of(folder, skip_bad=True)


def test_one_note_counts_all_that_is_left_out_with_the_first_of_each(image_folder, make):
    folder = image_folder()
    (folder / "a" / "README.txt").touch()
    (folder / "notes.csv").touch()
    (folder / "a" / ".DS_Store").touch()
    (folder / ".cache").mkdir()
    make.picture(folder / "cover.png")
    notes = []
    assert len(load_dataset(folder, notes=notes).inputs) == 20
    assert notes == [
        f"skipped in {folder}: 2 hidden or system (first: .cache), 2 not an image by name (first: a/README.txt), "
        "1 outside a class folder (first: cover.png)"
    ]


@pytest.mark.parametrize("place", [".ipynb_checkpoints", "__MACOSX", "@eaDir"])
def test_pictures_in_hidden_and_system_folders_inside_a_class_are_not_trained_on(image_folder, make, place):
    folder = image_folder()
    make.picture(folder / "a" / place / "x.png")
    make.picture(folder / "a" / "._x.png")
    make.picture(folder / place / "b" / "y.png")
    notes = []
    assert len(load_dataset(folder, notes=notes).inputs) == 20
    assert "3 hidden or system" in notes[0]


@pytest.mark.parametrize(
    ("train", "test"),
    [("training_set", "test_set"), ("Train", "EVAL"), ("train_images", "test-images"), ("train2017", "testing")],
)
def test_folders_called_otherwise_for_a_split_are_splits(image_folder, train, test):
    image_folder(count=20, top=f"images/{train}")
    dataset = load_dataset(image_folder(count=5, top=f"images/{test}").parent)
    assert dataset.classes == ("a", "b")
    assert [len(dataset.rows(s)) for s in ("train", "valid", "test")] == [36, 4, 10]


def test_eval_is_the_validation_split_beside_a_test_folder(image_folder):
    for top, count in (("train", 6), ("eval", 3), ("test", 4)):
        root = image_folder(count=count, top=f"images/{top}").parent
    assert [len(load_dataset(root).rows(s)) for s in ("train", "valid", "test")] == [12, 6, 8]


def test_pictures_straight_in_the_folder_of_a_split_are_told(image_folder, make):
    root = image_folder(top="images/train").parent
    make.picture(root / "test" / "1.png")
    notes = []
    assert len(load_dataset(root, notes=notes).inputs) == 20
    assert "1 outside a class folder (first: test/1.png)" in notes[0]
    assert notes[1] == f"the test folder of {root} holds no images of a class; other images are split for it"


def test_pictures_straight_in_train_only_say_what_it_must_hold(tmp_path, make):
    make.picture(tmp_path / "train" / "cat.1.png")
    make.picture(tmp_path / "test" / "1.png")
    assert "holds 2 images outside a class folder" in error_of(tmp_path)


def test_classes_that_hold_the_same_folders_are_noted(image_folder):
    for top in ("north", "south"):
        root = image_folder(top=f"images/{top}").parent
    notes = []
    assert load_dataset(root, notes=notes).classes == ("north", "south")
    assert "north and south are read as classes, though each holds folders such as a and b" in notes[0]


def test_a_folder_around_the_folder_of_classes_says_which_to_give(image_folder):
    root = image_folder(top="outer/images").parent
    assert f"the class folders: {root / 'images'}" in error_of(root)


def test_linked_folders_are_read_and_circles_and_broken_links_are_counted(image_folder, make, tmp_path):
    folder = image_folder()
    make.picture(tmp_path / "more" / "x.png")
    (tmp_path / "more" / "up").symlink_to(folder)
    (folder / "a" / "more").symlink_to(tmp_path / "more")
    (folder / "a" / "gone.png").symlink_to(tmp_path / "nothing.png")
    (folder / "b" / "circle").symlink_to(folder / "b" / "circle")
    (folder / "b" / "root").symlink_to("/")
    notes = []
    assert np.bincount(load_dataset(folder, notes=notes).targets).tolist() == [11, 10]
    assert "2 linking nowhere (first: a/gone.png)" in notes[0]
    assert "2 linking back to a folder above" in notes[0]


def test_what_is_neither_file_nor_folder_is_left_out(image_folder, tmp_path):
    folder = image_folder()
    os.mkfifo(folder / "a" / "pipe.png")
    (folder / "b" / "null.png").symlink_to(os.devnull)
    notes = []
    assert len(load_dataset(folder, notes=notes).inputs) == 20
    assert "2 neither file nor folder (first: a/pipe.png)" in notes[0]


def test_a_class_whose_name_is_not_utf8_is_named(image_folder):
    folder = image_folder()
    os.rename(os.fsencode(folder / "a"), os.fsencode(folder) + b"/caf\xe9")
    assert "caf\\xe9 has a name that is not UTF-8; rename it" in error_of(folder)


def test_a_data_set_and_a_run_in_the_folder_of_images_are_no_classes(image_folder):
    folder = image_folder()
    load_dataset(folder, folder=folder / "prepared")
    (folder / "runs" / "first").mkdir(parents=True)
    (folder / "runs" / "first" / "run.json").touch()
    notes = []
    assert load_dataset(folder, notes=notes, folder=folder / "prepared").classes == ("a", "b")
    assert "2 made by ripieno (first: prepared)" in notes[0]


def test_a_run_that_begins_in_the_folder_of_its_images_is_no_class(image_folder):
    folder = image_folder()
    (folder / "run").mkdir()
    (folder / "run" / "lock").touch()
    assert load_dataset(folder, folder=folder / "run" / "dataset").classes == ("a", "b")


def test_progress_ends_with_all_pictures_done(image_folder):
    done = []
    load_dataset(image_folder(count=150, size=(2, 2)), progress=lambda *p: done.append(p))
    assert done == [(256, 300), (300, 300)]


def test_a_folder_is_decoded_straight_into_the_data_sets_file(image_folder, tmp_path):
    source = image_folder()
    (source / "a" / "a005.png").write_bytes(b"")
    dataset = load_dataset(source, skip_bad=True, folder=tmp_path / "prepared")
    assert isinstance(dataset.inputs, np.memmap)
    assert np.array_equal(dataset.inputs, load_dataset(source, skip_bad=True).inputs)
    named = ["dataset.json", "files.npy", "inputs.npy", "split.npy", "targets.npy"]
    assert sorted(os.listdir(tmp_path / "prepared")) == named


def test_a_broken_picture_leaves_the_data_set_there_as_it_was(image_folder, tmp_path):
    source, prepared = image_folder(), tmp_path / "prepared"
    load_dataset(source, folder=prepared)
    before = {p.name: p.read_bytes() for p in prepared.iterdir()}
    path = source / "b" / "b004.png"
    path.write_bytes(path.read_bytes()[:-60])
    error_of(source, folder=prepared)
    assert {p.name: p.read_bytes() for p in prepared.iterdir()} == before


def test_a_class_that_loses_too_many_pictures_leaves_the_data_set_there_as_it_was(image_folder, tmp_path):
    source, prepared = image_folder(count=3), tmp_path / "prepared"
    load_dataset(source, folder=prepared)
    before = {p.name: p.read_bytes() for p in prepared.iterdir()}
    path = source / "b" / "b001.png"
    path.write_bytes(path.read_bytes()[:-60])
    error_of(source, folder=prepared, skip_bad=True)
    assert {p.name: p.read_bytes() for p in prepared.iterdir()} == before


def test_real_plankton_of_mixed_sizes_loads(shared_data: Path, tmp_path: Path):
    packed = np.load(io.BytesIO(lzma.decompress((shared_data / "plankton" / "plankton.npz.xz").read_bytes())))
    labels, offset, jpeg = packed["label"], packed["offset"], packed["jpeg"]
    common = np.argsort(-np.bincount(labels))[:3]
    for label in common:
        for i in np.flatnonzero(labels == label)[:25]:
            path = tmp_path / "plankton" / f"class {label}" / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg[offset[i] : offset[i + 1]].tobytes())
    dataset = load_dataset(tmp_path / "plankton", size=32)
    assert dataset.inputs.shape == (75, 32, 32, 1)
    assert dataset.mean[0] > 200  # the background is white, and so must be the padding
    assert [len(dataset.rows(s)) for s in ("train", "valid", "test")] == [54, 6, 15]


def written(folder: Path, save) -> Path:
    for n, name in enumerate(("a", "b")):
        (folder / name).mkdir(parents=True)
        for i in range(5):
            save(folder / name / f"{i}", np.full((6, 9), 40 * i + n, np.uint8), i)
    return folder


@pytest.mark.parametrize("orientation", [b"6\0\0\0", b"up\0\0"])
def test_an_orientation_that_is_text_breaks_no_picture(tmp_path, orientation):
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHI4s", 1, 0x112, 2, 2, orientation) + bytes(4)
    for suffix in ("jpg", "webp"):
        folder = written(
            tmp_path / suffix,
            lambda p, x, i, s=suffix: Image.fromarray(x).save(f"{p}.{s}", exif=exif if i == 2 else b""),
        )
        assert load_dataset(folder).inputs.shape[:3] == (10, 6, 9)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_exif_that_is_broken_breaks_no_picture(tmp_path):
    folder = written(
        tmp_path / "images", lambda p, x, i: Image.fromarray(x).save(f"{p}.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    )
    assert len(load_dataset(folder).inputs) == 10


def test_a_picture_whose_exif_cannot_be_read_is_upright(tmp_path, monkeypatch):
    folder = written(tmp_path / "images", lambda p, x, i: Image.fromarray(x).save(f"{p}.webp"))

    def broken(_):
        raise SyntaxError("not a TIFF file")

    monkeypatch.setattr(Image.Image, "getexif", broken)
    assert load_dataset(folder).inputs.shape[:3] == (10, 6, 9)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_upright_in_training_as_in_predicting(tmp_path, orientation):
    upright = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    held = Image.fromarray(upright)
    held.getexif()[0x0112] = {6: 8, 8: 6}.get(orientation, orientation)  # the inverse of each
    turned = ImageOps.exif_transpose(held)
    folder = written(tmp_path / "x", lambda p, x, i: turned.save(f"{p}.webp", lossless=True, exif=exif))
    dataset = load_dataset(folder)
    assert np.array_equal(dataset.inputs[0], upright)
    assert np.array_equal(read_inputs(folder / "a" / "0.webp", dataset.input)[1][0], upright)


def test_a_picture_with_too_many_pixels_is_too_large_and_not_broken(tmp_path, monkeypatch):
    folder = written(tmp_path / "x", lambda p, x, i: Image.fromarray(x).save(f"{p}.png"))
    Image.new("1", (300, 200)).save(folder / "a" / "slide.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000)
    with pytest.raises(DataError, match=r"slide\.png has more than 0 megapixels, which is too large"):
        load_dataset(folder, size=6)
    assert len(load_dataset(folder, size=6, skip_bad=True).inputs) == 10


def test_one_transparent_grey_keeps_16_bits(tmp_path):
    def save(path, pixels, _):
        deep = pixels.astype(np.uint16) * 300
        deep[0, 0] = 1000
        Image.fromarray(deep).save(f"{path}.png", transparency=1000)

    dataset = load_dataset(written(tmp_path / "x", save))
    assert dataset.inputs.dtype == np.float32
    assert set(dataset.inputs[:, 0, 0, 0]) == {65535}  # on a white background
    assert dataset.inputs[:, 1:].max() == 161 * 300


def test_floats_beside_16_bits_are_refused(tmp_path):
    def save(path, pixels, i):
        Image.fromarray(pixels / np.float32(255) if i % 2 else pixels.astype(np.uint16)).save(f"{path}.tif")

    with pytest.raises(DataError, match=r"holds floats and .* 16 bits; convert them to one type"):
        load_dataset(written(tmp_path / "x", save))


def png_of_16_bits(pixels, kind):
    """A PNG of `pixels` (height, width, channels), big-endian, of a PNG colour type."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    data = b"".join(b"\0" + row.tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def test_colour_of_16_bits_is_noted(tmp_path):
    def save(path, pixels, _):
        rows = np.repeat(pixels.astype(">u2")[..., np.newaxis] * 257, 3, axis=2)
        Path(f"{path}.png").write_bytes(png_of_16_bits(rows, kind=2))

    notes = []
    dataset = load_dataset(written(tmp_path / "x", save), notes=notes)
    assert dataset.inputs.max() == 161
    assert "10 pictures have 16 bits per colour channel; they are read with 8 bits" in notes


def test_images_that_do_not_fit_on_the_disk_are_refused_before_they_are_read(tmp_path, monkeypatch):
    folder = written(tmp_path / "x", lambda p, x, i: Image.fromarray(x).save(f"{p}.png"))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10**6))
    with pytest.raises(DataError, match=r"10 images of 400 x 400 pixels take 0\.0 GB, .* has 0\.0 GB free"):
        load_dataset(folder, size=400, folder=tmp_path / "prepared")


def test_grey_of_16_bits_with_alpha_is_refused_in_training_and_predicting(tmp_path):
    def save(path, pixels, _):
        deep = np.stack([pixels.astype(">u2") * 257, np.full(pixels.shape, 65535, ">u2")], axis=-1)
        Path(f"{path}.png").write_bytes(png_of_16_bits(deep, kind=4))

    folder = written(tmp_path / "x", save)
    with pytest.raises(DataError, match=r"0\.png has 16 bits of grey and an alpha channel"):
        load_dataset(folder)
    with pytest.raises(DataError, match="has 16 bits of grey and an alpha channel"):
        read_inputs(folder / "a" / "0.png", Input((6, 9, 1)))
