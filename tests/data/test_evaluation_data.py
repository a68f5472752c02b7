"""Targets of an evaluation in the order of a bundle's task, from tables and arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ripieno.data.evaluation_data import read_evaluation_data
from ripieno.data.targets import match_targets
from ripieno.errors import DataError
from ripieno.types import Input, Task, classification

WANTED = Input((8, 8, 1), "uint8")
PETS = classification(["owl", "cat", "dog"])
TAGS = Task("multilabel", (3,), ("dog", "cat", "owl"))
SIZES = Task("regression", (2,), ("height", "age"))


def table(folder: Path, make: Any, header: str, rows: list[str]) -> Path:
    for i, _ in enumerate(rows):
        make.picture(folder / f"{i}.png", mode="L")
    path = folder / "mine.csv"
    path.write_text("\n".join([f"file,{header}", *(f"{i}.png,{row}" for i, row in enumerate(rows))]) + "\n")
    return path


@pytest.mark.parametrize(
    ("task", "header", "rows", "targets"),
    [
        (PETS, "label", ["cat", "cat"], [1, 1]),
        (TAGS, "tags", ["cat|dog", "cat", "|"], [[1, 1, 0], [0, 1, 0], [0, 0, 0]]),
        (TAGS, "owl,dog,cat,id", ["1,0,0,7", "0,1,1,9"], [[0, 0, 1], [1, 1, 0]]),
        (SIZES, "id,age,height", ["5,1.5,2", "6,3,4"], [[2, 1.5], [4, 3]]),
    ],
)
def test_a_table_is_matched_by_name_and_its_images_are_read_in_batches(
    task: Task, header: str, rows: list[str], targets: Any, tmp_path: Path, make: Any
) -> None:
    found = read_evaluation_data(table(tmp_path, make, header, rows), WANTED, task)
    assert found.targets.tolist() == targets
    ((names, inputs),) = found.batches(WANTED)
    assert (len(names), inputs.shape) == (len(rows), (len(rows), 8, 8, 1))


def test_a_split_of_a_table_is_chosen(tmp_path: Path, make: Any) -> None:
    path = table(tmp_path, make, "label,split", ["cat,train", "dog,test", "owl,train"])
    assert read_evaluation_data(path, WANTED, PETS).targets.tolist() == [2]
    assert read_evaluation_data(path, WANTED, PETS, "train").targets.tolist() == [1, 0]


@pytest.mark.parametrize(("task", "targets"), [(TAGS, np.eye(3, dtype=int)[[0, 1, 1]]), (SIZES, np.ones((3, 2)))])
def test_columns_of_arrays_are_matched_by_their_order(task: Task, targets: Any) -> None:
    found = read_evaluation_data((np.zeros((3, 8, 8), np.uint8), targets), WANTED, task)
    assert np.array_equal(found.targets, targets)


@pytest.mark.parametrize(
    ("found", "wanted", "message"),
    [
        (TAGS, SIZES, "the task of the data is multilabel; expected regression"),
        (Task("multilabel", (2,), ("cat", "cow")), TAGS, "targets are cat, cow; expected dog, cat, owl"),
        (Task("regression", (1,), ("age",)), SIZES, "targets are age; expected height, age"),
    ],
)
def test_other_targets_are_told(found: Task, wanted: Task, message: str) -> None:
    with pytest.raises(DataError, match=message):
        match_targets(np.zeros((4, len(found.names))), found, wanted)


def test_a_series_that_is_too_long_is_named_by_its_number_before_anything_is_predicted() -> None:
    series = [np.ones((5 if number == 300 else 4, 1)) for number in range(301)]
    with pytest.raises(DataError, match=r"^inputs have 5 points \(series 300\), but the network takes at most 4"):
        read_evaluation_data((series, np.arange(301) % 3), Input((4, 1), "float32"), PETS)


def test_series_of_a_split_that_is_not_evaluated_may_be_longer() -> None:
    names = np.array(PETS.names * 2)
    parts = {split: (np.ones((6, length, 1)), names) for split, length in (("train", 5), ("test", 4))}
    wanted = Input((4, 1), "float32")
    ((_, inputs),) = read_evaluation_data(parts, wanted, PETS).batches(wanted)
    assert inputs.shape == (6, 4, 1)
    with pytest.raises(DataError, match=r"^inputs of the train split have 5 points \(series 0\)"):
        read_evaluation_data(parts, wanted, PETS, "train")


ROAD = Task("segmentation", (6, 8, 3), ("sky", "road", "tree"))


def masked(folder: Path, make: Any, count: int = 5, size: tuple[int, int] = (8, 6)) -> Path:
    """Pictures of (width, height) with masks whose pixels hold their number modulo three."""
    for i in range(count):
        make.picture(folder / "images" / f"{i}.png", size)
        (folder / "masks").mkdir(exist_ok=True)
        Image.fromarray(np.full(size[::-1], i % 3, np.uint8)).save(folder / "masks" / f"{i}.png")
    return folder


def test_masks_of_a_folder_are_read_at_the_size_of_the_inputs(tmp_path: Path, make: Any) -> None:
    wanted = Input((6, 8, 3), "uint8", (0, 255))
    found = read_evaluation_data(masked(tmp_path, make), wanted, ROAD)
    assert found.targets.shape == (5, 6, 8)
    assert found.targets[:, 0, 0].tolist() == [0, 1, 2, 0, 1]
    ((names, inputs),) = found.batches(wanted)
    assert (Path(names[1]).name, inputs.shape) == ("1.png", (5, 6, 8, 3))
    square = read_evaluation_data(tmp_path, Input((4, 4, 3), "uint8", (0, 255)), ROAD)
    assert square.targets.shape == (5, 4, 4)
    assert square.targets[1].tolist() == [[1] * 4] * 3 + [[255] * 4]


def test_a_folder_of_test_masks_alone_is_evaluated_on(tmp_path: Path, make: Any) -> None:
    (tmp_path / "test").mkdir()
    masked(tmp_path / "test", make)
    found = read_evaluation_data(tmp_path, Input((6, 8, 3), "uint8", (0, 255)), ROAD)
    assert (found.split, len(found.targets)) == ("test", 5)


def test_masks_are_matched_by_the_names_of_their_class_file(tmp_path: Path, make: Any) -> None:
    wanted = Input((6, 8, 3), "uint8", (0, 255))
    (masked(tmp_path, make) / "classes.txt").write_text("tree\nvoid\nsky\n")
    with pytest.raises(DataError, match=r"class 'void', which the bundle does not have: .* --ignore void"):
        read_evaluation_data(tmp_path, wanted, ROAD)
    found = read_evaluation_data(tmp_path, wanted, ROAD, ignore=["void"])
    assert found.targets[:, 0, 0].tolist() == [2, 255, 0, 2, 255]


def test_without_a_class_file_values_are_those_of_the_bundle(tmp_path: Path, make: Any) -> None:
    wanted = Input((6, 8, 3), "uint8", (0, 255))
    masked(tmp_path, make)
    (tmp_path / "masks" / "1.png").unlink()
    (tmp_path / "images" / "1.png").unlink()
    (tmp_path / "masks" / "4.png").unlink()
    (tmp_path / "images" / "4.png").unlink()  # no mask holds 1
    assert read_evaluation_data(tmp_path, wanted, ROAD).targets[:, 0, 0].tolist() == [0, 2, 0]
    numbers = Task("segmentation", (6, 8, 3), ("0", "2", "7"))
    assert read_evaluation_data(tmp_path, wanted, numbers).targets[:, 0, 0].tolist() == [0, 1, 0]
    Image.fromarray(np.full((6, 8), 3, np.uint8)).save(tmp_path / "masks" / "2.png")
    with pytest.raises(DataError, match=r"class '3', which the bundle does not have: .* --ignore 3"):
        read_evaluation_data(tmp_path, wanted, numbers)
    with pytest.raises(DataError, match=r"2.png holds the value 3, but the bundle names 3 classes"):
        read_evaluation_data(tmp_path, wanted, ROAD)


def test_arrays_of_masks_are_matched_by_their_values() -> None:
    images, masks = np.zeros((4, 6, 8, 3), np.uint8), np.full((4, 6, 8), 2, np.uint8)
    masks[1:] = 0
    found = read_evaluation_data((images, masks), Input((6, 8, 3), "uint8", (0, 255)), ROAD)
    assert found.targets[:, 0, 0].tolist() == [2, 0, 0, 0]
