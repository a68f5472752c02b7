"""Folders of images with masks: layouts, pairs, classes, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ripieno.data import load_dataset
from ripieno.data.fingerprint import fingerprint, source_files
from ripieno.data.prediction_inputs import count_inputs, read_inputs
from ripieno.errors import DataError
from ripieno.types import IGNORED, Dataset, Input

SIZE = (8, 6)
"""Width and height."""


def mask_of(stem: str, classes: int = 3, size: tuple[int, int] = SIZE) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(list(stem.encode()))
    return rng.integers(0, classes, size[::-1], np.uint8)


def write_pair(
    make: Any, images: Path, masks: Path, stem: str, size: tuple[int, int] = SIZE, classes: int = 3, ending: str = ""
) -> None:
    make.picture(images / f"{stem}.png", size)
    path = masks / f"{stem}{ending}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask_of(stem, classes, size)).save(path)


@pytest.fixture
def folder(tmp_path: Path, make: Any) -> Path:
    """Twenty pairs without splits."""
    for i in range(20):
        write_pair(make, tmp_path / "data" / "images", tmp_path / "data" / "masks", f"p{i:02}")
    return tmp_path / "data"


def error_of(source: Any, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        load_dataset(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def check(dataset: Dataset, count: int = 20) -> None:
    """Check that each image has its own mask."""
    assert dataset.task.kind == "segmentation"
    assert dataset.task.output == (6, 8, 3)
    assert dataset.inputs.shape == (count, 6, 8, 3)
    assert dataset.targets.shape == (count, 6, 8)
    assert dataset.targets.dtype == np.uint8


def test_folders_of_images_and_masks_are_a_segmentation(folder: Path) -> None:
    dataset = load_dataset(folder)
    check(dataset)
    assert dataset.classes == ("0", "1", "2")
    assert np.array_equal(dataset.targets[7], mask_of("p07"))
    assert np.array_equal(dataset.inputs[7], np.asarray(Image.open(folder / "images" / "p07.png")))


@pytest.mark.parametrize("images", ["images", "IMG", "JPEGImages"])
@pytest.mark.parametrize("masks", ["labels", "annotations"])
def test_other_names_of_the_folders_are_known(folder: Path, images: str, masks: str) -> None:
    (folder / "images").rename(folder / images)
    (folder / "masks").rename(folder / masks)
    check(load_dataset(folder))


@pytest.mark.parametrize("above", [True, False])
def test_splits_may_be_above_or_below(tmp_path: Path, make: Any, above: bool) -> None:
    for split, count in {"train": 6, "val": 3, "test": 2}.items():
        for i in range(count):
            places = [tmp_path / split / k if above else tmp_path / k / split for k in ("images", "masks")]
            write_pair(make, *places, f"{split}{i}")
    dataset = load_dataset(tmp_path)
    check(dataset, 11)
    assert [len(dataset.rows(split)) for split in ("train", "valid", "test")] == [6, 3, 2]
    assert np.array_equal(dataset.targets[dataset.rows("valid")[1]], mask_of("val1"))


def test_pairs_have_the_same_path_and_masks_may_have_an_ending(tmp_path: Path, make: Any) -> None:
    for i in range(6):
        write_pair(make, tmp_path / "images" / f"{i}", tmp_path / "masks" / f"{i}", "same", ending="_mask")
    Image.fromarray(mask_of("other")).save(tmp_path / "masks" / "4" / "same_mask.png")
    dataset = load_dataset(tmp_path)
    assert np.array_equal(dataset.targets[4], mask_of("other"))
    assert np.array_equal(dataset.targets[5], mask_of("same"))


def test_written_data_are_mapped_and_equal(folder: Path, tmp_path: Path) -> None:
    dataset, written = load_dataset(folder), load_dataset(folder, folder=tmp_path / "set")
    assert isinstance(written.targets, np.memmap)
    assert np.array_equal(written.targets, dataset.targets)
    assert np.array_equal(written.inputs, dataset.inputs)
    again = load_dataset(tmp_path / "set")
    assert again.task == dataset.task
    assert np.array_equal(again.targets, dataset.targets)


def test_names_are_those_of_the_class_file_and_a_class_may_be_ignored(folder: Path) -> None:
    (folder / "classes.txt").write_text("sky\nvoid\nroad\n")
    assert load_dataset(folder).classes == ("sky", "void", "road")
    dataset = load_dataset(folder, ignore="void")
    assert dataset.classes == ("sky", "road")
    assert np.array_equal(dataset.targets[0], np.array([0, IGNORED, 1])[mask_of("p00")])
    assert np.array_equal(load_dataset(folder, ignore=1).targets, dataset.targets)


def test_masks_in_colour_need_the_colours_of_the_classes(folder: Path) -> None:
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)
    for path in (folder / "masks").iterdir():
        Image.fromarray(colours[mask_of(path.stem)]).save(path)
    assert "p00.png is in colour" in error_of(folder)
    (folder / "classes.json").write_text('{"sky": [0, 0, 0], "road": [255, 0, 0], "tree": [0, 255, 0]}')
    dataset = load_dataset(folder)
    assert np.array_equal(dataset.targets[3], mask_of("p03"))


def test_pictures_of_several_sizes_are_resized_with_their_masks(folder: Path, make: Any) -> None:
    write_pair(make, folder / "images", folder / "masks", "p05", (16, 12))
    dataset = load_dataset(folder)
    assert dataset.task.output == (8, 8, 3)
    assert (dataset.targets[5] == IGNORED).sum() == 16  # two rows of padding
    assert np.array_equal(dataset.targets[0][1:7], mask_of("p00"))


def test_size_resizes_both(folder: Path, tmp_path: Path) -> None:
    dataset = load_dataset(folder, size=4)
    assert dataset.inputs.shape[1:3] == dataset.targets.shape[1:] == dataset.task.output[:2] == (4, 4)
    prepared = load_dataset(load_dataset(folder, folder=tmp_path / "set"), size=4)
    assert prepared.task.output == (4, 4, 3)
    assert np.array_equal(prepared.targets, dataset.targets)


def test_a_picture_without_a_mask_is_refused_or_skipped(folder: Path) -> None:
    (folder / "masks" / "p03.png").unlink()
    message = error_of(folder)
    assert "1 picture has no mask" in message
    assert "images/p03.png" in message
    notes: list[str] = []
    assert len(load_dataset(folder, skip_bad=True, notes=notes).inputs) == 19
    assert any("no mask" in note for note in notes)


def test_a_mask_without_a_picture_is_skipped_with_a_note(folder: Path) -> None:
    (folder / "images" / "p03.png").unlink()
    notes: list[str] = []
    assert len(load_dataset(folder, notes=notes).inputs) == 19
    assert any("1 without a picture of this name (first: masks/p03.png)" in note for note in notes)


def test_a_mask_of_another_size_is_refused_or_skipped(folder: Path) -> None:
    Image.fromarray(mask_of("p03", 3, (6, 8))).save(folder / "masks" / "p03.png")
    assert "p03.png has 6 x 8 pixels, its picture 8 x 6" in error_of(folder)
    assert len(load_dataset(folder, skip_bad=True).inputs) == 19


@pytest.mark.parametrize(("kind", "twice"), [("images", "pictures of one mask"), ("masks", "masks of one picture")])
def test_two_files_of_one_name_are_refused(folder: Path, make: Any, kind: str, twice: str) -> None:
    make.picture(folder / kind / "p03.bmp", SIZE)
    paths = [folder / kind / f"p03{suffix}" for suffix in (".bmp", ".png")]
    assert error_of(folder) == f"{paths[0]} and {paths[1]} are {twice}; leave one out"


def test_a_broken_picture_is_named_and_not_its_mask(folder: Path) -> None:
    path = folder / "images" / "p03.png"
    path.write_bytes(path.read_bytes()[:20])
    assert error_of(folder).startswith(f"{path} is broken")
    notes: list[str] = []
    check(load_dataset(folder, skip_bad=True, notes=notes), 19)
    assert any(note.startswith(f"skipped 1 broken picture or mask, the first: {path} is broken") for note in notes)


def test_a_value_beyond_the_classes_is_refused_with_its_file(folder: Path) -> None:
    (folder / "classes.txt").write_text("sky\nroad\ntree\n")
    Image.fromarray(mask_of("p03") + np.uint8(1)).save(folder / "masks" / "p03.png")
    message = error_of(folder)
    assert "p03.png holds the value 3" in message
    assert "classes.txt names 3 classes" in message
    assert "--ignore 3" in message


def test_a_class_that_no_training_mask_holds_is_refused_before_images_are_read(folder: Path) -> None:
    (folder / "classes.txt").write_text("sky\nroad\ntree\nsea\n")
    (folder / "images" / "p01.png").write_bytes((folder / "images" / "p01.png").read_bytes()[:60])
    assert "no training mask holds class 'sea'" in error_of(folder)
    assert "p01.png is broken" in error_of(folder, ignore="sea")


def test_annotations_of_coco_are_refused_in_one_line(folder: Path) -> None:
    coco = '{"images": [], "annotations": [], "categories": []}'
    for path in (folder / "masks").iterdir():
        path.unlink()
    (folder / "masks").rename(folder / "annotations")
    (folder / "annotations" / "instances.json").write_text(coco)
    assert "instances.json holds annotations as JSON, as COCO has them; draw them as masks" in error_of(folder)
    (folder / "annotations" / "instances.json").rename(folder.parent / "coco.json")
    assert "annotations of COCO" in error_of(folder.parent / "coco.json")
    (folder / "annotations").rmdir()
    (folder.parent / "coco.json").rename(folder / "images" / "_annotations.coco.json")
    assert "annotations of COCO" in error_of(folder, task="segmentation")


def test_polygons_in_text_are_refused(folder: Path) -> None:
    for path in (folder / "masks").iterdir():
        path.rename(path.with_suffix(".txt"))
    assert "holds no mask that Pillow can read (it holds p00.txt and alike" in error_of(folder)


def test_a_table_has_no_masks_but_one_within_the_folder_does_not_matter(folder: Path) -> None:
    (folder / "labels.csv").write_text("file,mask\nimages/p00.png,masks/p00.png\n")
    assert "labels.csv is a table, but masks are read from folders" in error_of(
        folder / "labels.csv", task="segmentation"
    )
    check(load_dataset(folder, task="segmentation"))


def test_the_folders_are_needed(folder: Path, image_folder: Any) -> None:
    assert "has no folders of images and masks" in error_of(image_folder(), task="segmentation")
    (folder / "Annotations").mkdir()
    (folder / "Annotations" / "p00.xml").write_text("<boxes/>")
    check(load_dataset(folder))  # as PASCAL VOC has them
    (folder / "labels").mkdir()
    Image.fromarray(mask_of("p00")).save(folder / "labels" / "p00.png")
    assert "have the same purpose by name" in error_of(folder)


@pytest.mark.parametrize("missing", ["test/masks", "train"])
def test_each_split_needs_masks_and_there_must_be_one_to_train_on(tmp_path: Path, make: Any, missing: str) -> None:
    for split in ("train", "test"):
        for i in range(4):
            write_pair(make, tmp_path / split / "images", tmp_path / split / "masks", f"{i}")
    (tmp_path / missing).rename(
        tmp_path / "train" / "elsewhere" if missing != "train" else tmp_path / "test" / "elsewhere"
    )
    assert {"train": "no train folder", "test/masks": "no masks for the test split"}[missing] in error_of(tmp_path)


def test_ignore_applies_to_masks_only(image_folder: Any, tmp_path: Path, folder: Path) -> None:
    assert "ignore '3' applies to masks" in error_of(image_folder(), ignore=3)
    prepared = load_dataset(folder, folder=tmp_path / "set")
    assert "the data set is prepared" in error_of(prepared, ignore=1)


def test_a_fingerprint_covers_images_masks_and_names(folder: Path) -> None:
    (folder / "classes.txt").write_text("sky\nroad\ntree\n")
    assert len(source_files(folder)) == 41
    before = fingerprint(folder)
    Image.fromarray(mask_of("p03")[::-1]).save(folder / "masks" / "p03.png")
    assert fingerprint(folder).digest != before.digest


def test_only_the_images_are_predicted(folder: Path) -> None:
    wanted = Input((6, 8, 3), range=(0, 255))
    names, images = read_inputs(folder, wanted)
    assert len(names) == len(images) == count_inputs(folder, wanted) == 20
    assert names[0] == "images/p00.png"


@pytest.mark.parametrize("above", [True, False])
def test_images_of_a_split_without_masks_are_predicted(tmp_path: Path, make: Any, above: bool) -> None:
    for split in ("train", "test"):
        images, masks = [tmp_path / split / k if above else tmp_path / k / split for k in ("images", "masks")]
        write_pair(make, images, masks, split)
    (masks / "test.png").unlink()
    masks.rmdir()
    wanted = Input((6, 8, 3))
    assert count_inputs(tmp_path, wanted) == len(read_inputs(tmp_path, wanted)[0]) == 2
    assert "no masks for the test split" in error_of(tmp_path)


def test_classes_named_images_and_masks_are_read_as_told(folder: Path) -> None:
    assert load_dataset(folder, task="classification").classes == ("images", "masks")


@pytest.mark.parametrize("seed", range(8))
def test_a_rare_class_is_trained_on_and_in_every_split_where_it_can_be(seed: int) -> None:
    images, masks = np.zeros((60, 4, 4, 3), np.uint8), np.zeros((60, 4, 4), np.uint8)
    masks[:, 0] = 1
    masks[7, 3, 3], masks[[5, 20, 40], 2, 2] = 3, 2
    dataset = load_dataset((images, masks), seed=seed)
    counts = [len(dataset.rows(split)) for split in ("train", "valid", "test")]
    assert counts[0] in range(42, 46)
    assert counts[1] in range(4, 7)
    for split in ("train", "valid", "test"):
        assert (dataset.targets[dataset.rows(split)] == 2).any()
    assert (dataset.targets[dataset.rows("train")] == 3).any()
