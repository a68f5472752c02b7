"""Samples that a list leaves out of training and validation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ripieno.data import load_dataset, open_dataset
from ripieno.data.leave_out import file_text, read_leave_out
from ripieno.errors import DataError
from ripieno.types import NO_SPLIT, SPLITS, Dataset


def listed(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def names(dataset: Dataset, rows: np.ndarray) -> list[str]:
    assert dataset.files is not None
    return [file_text(dataset.files[row]) for row in rows]


def test_files_are_left_out_of_training_and_validation_in_the_split_of_all(
    image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    source, notes = image_folder(count=20), list[str]()
    whole = load_dataset(source, split=(0.5, 0.25, 0.25), seed=3)
    chosen = [int(whole.rows(split)[i]) for split in SPLITS for i in (0, 1)]
    path = listed(tmp_path / "list.csv", "split,file", *(f"x,{name}" for name in names(whole, np.array(chosen))))
    kept = load_dataset(
        source, split=(0.5, 0.25, 0.25), seed=3, leave_out=read_leave_out(path), notes=notes, folder=tmp_path / "made"
    )
    assert kept.doubted == tuple(chosen[4:])
    assert np.array_equal(kept.rows("test"), whole.rows("test"))
    for split in ("train", "valid"):
        assert set(kept.rows(split)) == set(whole.rows(split)) - set(chosen)
    assert (np.flatnonzero(kept.split == NO_SPLIT) == sorted(chosen[:4])).all()
    assert kept.mean != whole.mean, "the moments are those of the samples trained on"
    assert "2 training and 2 validation samples are left out, as list.csv lists them; 2 of the test split" in notes[-1]
    again = open_dataset(tmp_path / "made")
    assert names(again, np.arange(40)) == names(whole, np.arange(40))
    assert again.doubted == kept.doubted


def test_folds_divide_the_samples_that_are_left(tmp_path: Path) -> None:
    inputs, labels = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 3
    path = listed(tmp_path / "rows.csv", "row,given", *(f"{row},{row % 3}" for row in range(12)))
    kept = load_dataset((inputs, labels), folds=4, leave_out=read_leave_out(path))
    assert kept.folds is not None
    train = kept.rows("train")
    assert not set(train) & set(range(12))
    assert np.ptp(np.bincount(kept.folds[train])) <= 1
    assert set(kept.doubted) == set(kept.rows("test")) & set(range(12))


def test_a_prepared_data_set_keeps_its_split(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    whole = load_dataset(image_folder(count=20), folder=tmp_path / "made")
    row = int(whole.rows("train")[4])
    path = listed(tmp_path / "list.csv", "file", *names(whole, np.array([row])))
    kept = load_dataset(tmp_path / "made", leave_out=read_leave_out(path), folder=tmp_path / "less")
    assert (np.flatnonzero(kept.split != whole.split) == [row]).all()
    assert open_dataset(tmp_path / "made").split[row] == 0, "the data set it came from is unchanged"


def test_a_list_of_other_data_is_refused_in_one_line(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    source = image_folder(count=20)
    whole = load_dataset(source)
    name, row = names(whole, whole.rows("train"))[0], int(whole.rows("train")[0])
    for lines, expected in (
        (("file", name, "no.png", "none.png"), r"lists 'no.png' and 1 more, which the data do not have; correct"),
        (("file,given", f"{name},b"), rf"lists {name} as 'b', but the data say 'a'; take it off the list"),
        (("row", "40"), r"lists row 40, but the data have rows 0 to 39"),
        (("row", "-1"), r"has '-1' in the column row; expected whole numbers from 0 on"),
        (("picture", name), r"has the columns picture; expected file or row"),
    ):
        with pytest.raises(DataError, match=expected):
            load_dataset(source, leave_out=read_leave_out(listed(tmp_path / "list.csv", *lines)))
    assert row in load_dataset(source).rows("train")
    few = read_leave_out(listed(tmp_path / "list.csv", "file", name))
    with pytest.raises(DataError, match=r"lists files, but the data are no files; it must have a column row"):
        load_dataset((np.zeros((40, 3)) + np.arange(40)[:, None], np.arange(40) % 2), leave_out=few)
    with pytest.raises(DataError, match=r"list2.csv does not exist; pass a list of samples"):
        read_leave_out(tmp_path / "list2.csv")


def test_a_name_that_a_spreadsheet_takes_for_a_formula_is_read_back(tmp_path: Path) -> None:
    found = read_leave_out(listed(tmp_path / "list.csv", "file,given", "'=a.png,'-1.5|2", "'plain.png,3"))
    assert found.files == ("=a.png", "'plain.png")
    assert found.given == ("-1.5|2", "3")


@pytest.mark.parametrize("prepared", [True, False])
def test_a_list_of_all_training_or_validation_samples_is_refused(
    image_folder: Callable[..., Path], tmp_path: Path, prepared: bool
) -> None:
    source = image_folder(count=20)
    whole = load_dataset(source, folder=tmp_path / "made")
    path = listed(tmp_path / "list.csv", "file", *names(whole, np.arange(40)))
    with pytest.raises(DataError, match=r"^list\.csv lists all training samples; .* leave some to train on$"):
        load_dataset(tmp_path / "made" if prepared else source, leave_out=read_leave_out(path))
    path = listed(tmp_path / "list.csv", "file", *names(whole, whole.rows("valid")))
    with pytest.raises(DataError, match=r"^list\.csv lists all validation samples; .* leave some to validate on$"):
        load_dataset(tmp_path / "made" if prepared else source, leave_out=read_leave_out(path))


def test_a_second_list_adds_to_the_first(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    source = image_folder(count=20)
    chosen = [int(row) for row in load_dataset(source).rows("test")[:2]]
    first, second = (listed(tmp_path / f"{row}.csv", "row", str(row)) for row in chosen)
    load_dataset(source, leave_out=read_leave_out(first), folder=tmp_path / "made")
    assert load_dataset(tmp_path / "made", leave_out=read_leave_out(second)).doubted == tuple(chosen)
