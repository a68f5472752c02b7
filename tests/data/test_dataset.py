from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest

from ripieno.data import load_dataset, open_dataset, write_dataset
from ripieno.data.blocks import RowView, select_rows
from ripieno.data.dataset import check_dataset, moments
from ripieno.errors import DataError, RipienoError
from ripieno.types import Dataset, Task, classification


@pytest.fixture
def dataset(arrays) -> Dataset:
    return load_dataset(arrays, metric="macro-f1")


@pytest.fixture
def folder(dataset, tmp_path):
    write_dataset(dataset, tmp_path / "prepared")
    return tmp_path / "prepared"


def refused(folder) -> str:
    with pytest.raises(DataError) as caught:
        open_dataset(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_written_is_opened_again(dataset, folder):
    opened = open_dataset(folder)
    for field in dataclasses.fields(Dataset):
        before, after = getattr(dataset, field.name), getattr(opened, field.name)
        if field.name == "path":
            assert after == folder
        elif isinstance(before, np.ndarray):
            assert np.array_equal(before, after)
            assert before.dtype == after.dtype
        else:
            assert before == after


def test_an_opened_data_set_is_mapped_and_read_only(folder):
    opened = open_dataset(folder)
    assert all(isinstance(a, np.memmap) for a in (opened.inputs, opened.targets, opened.split))
    with pytest.raises(ValueError, match="read-only"):
        opened.inputs[0] = 0


def test_a_block_of_rows_of_a_mapped_data_set_is_no_copy(folder):
    images = open_dataset(folder).inputs
    assert np.shares_memory(images[10:20], images)


def test_writing_a_mapped_data_set_to_its_own_folder_leaves_its_arrays(folder):
    before = (folder / "inputs.npy").stat().st_ino
    opened = open_dataset(folder)
    write_dataset(dataclasses.replace(opened, task=dataclasses.replace(opened.task, metric="accuracy")), folder)
    assert (folder / "inputs.npy").stat().st_ino == before
    assert open_dataset(folder).task.metric == "accuracy"


def test_a_part_of_a_mapped_data_set_is_written_as_that_part(folder):
    whole = open_dataset(folder)
    part = dataclasses.replace(whole, inputs=whole.inputs[:45], targets=whole.targets[:45], split=whole.split[:45])
    assert len(write_dataset(part, folder).inputs) == 45


def test_a_mapped_data_set_is_copied_to_another_folder(folder, tmp_path):
    copied = write_dataset(open_dataset(folder), tmp_path / "other")
    assert copied.path == tmp_path / "other"
    assert np.array_equal(copied.inputs, open_dataset(folder).inputs)


def test_writing_twice_gives_the_same_bytes(dataset, folder, tmp_path):
    write_dataset(dataset, tmp_path / "again")
    for name in os.listdir(folder):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_nothing_but_the_data_set_is_left_in_the_folder(folder):
    assert sorted(os.listdir(folder)) == ["dataset.json", "inputs.npy", "split.npy", "targets.npy"]


def test_a_folder_without_dataset_json_holds_none(folder):
    (folder / "dataset.json").unlink()
    assert "holds no data set (it has no dataset.json)" in refused(folder)


def test_a_missing_array_is_named(folder):
    (folder / "split.npy").unlink()
    assert "split.npy does not exist" in refused(folder)


def test_a_cut_array_is_named(folder):
    data = (folder / "inputs.npy").read_bytes()
    (folder / "inputs.npy").write_bytes(data[:-1])
    assert "inputs.npy is not a readable .npy file" in refused(folder)


def test_a_sheet_that_is_no_json_is_named(folder):
    (folder / "dataset.json").write_text("{")
    assert "dataset.json cannot be read" in refused(folder)


def test_a_newer_version_is_told(folder):
    text = (folder / "dataset.json").read_text()
    (folder / "dataset.json").write_text(text.replace('"version": 2', '"version": 99'))
    assert "has version 99" in refused(folder)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("targets", lambda a: a[:-1], "targets have shape (59,)"),
        ("split", lambda a: a[:-1], "split has shape (59,)"),
        ("targets", lambda a: a + 1, "labels run from 1 to 3, expected 0 to 2"),
        ("targets", lambda a: a - 1, "labels run from -1 to 1"),
        ("split", lambda a: a + np.uint8(2), "split holds 4"),
        ("targets", lambda a: a.astype(np.int32), "labels hold int32"),
        ("split", lambda a: a.astype(np.int64), "split holds int64"),
        ("inputs", lambda a: a.astype(np.float64), "inputs hold float64"),
        ("inputs", lambda a: a[..., 0], "inputs have shape (60, 6, 5)"),
        ("inputs", lambda a: a[..., :2], "mean and std must have 2 values"),
        ("split", lambda a: np.where(a == 1, 0, a).astype(np.uint8), "empty valid split"),
        ("split", lambda a: np.where(a == 2, 0, a).astype(np.uint8), "empty test split"),
        ("split", lambda a: np.where(a == 0, 1, a).astype(np.uint8), "empty train split"),
    ],
)
def test_files_that_do_not_belong_together_are_told(folder, name, change, message):
    np.save(folder / f"{name}.npy", change(np.load(folder / f"{name}.npy")))
    assert message in refused(folder)


def test_a_write_that_fails_half_way_leaves_no_data_set_rather_than_a_mixed_one(dataset, folder):
    (folder / "split.npy").unlink()
    (folder / "split.npy").mkdir()
    with pytest.raises(RipienoError, match="cannot write"):
        write_dataset(dataset, folder)
    assert "holds no data set" in refused(folder)


def test_a_data_set_that_is_not_consistent_is_not_written(dataset, tmp_path):
    with pytest.raises(DataError, match=r"two classes of the data set .* are named 'a'"):
        write_dataset(dataclasses.replace(dataset, task=classification(("a", "a", "b"))), tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_moments_are_those_of_the_training_rows_only(dtype):
    rng = np.random.default_rng(0)
    images = (rng.random((50, 9, 7, 3)) * 200).astype(dtype)
    rows = np.arange(0, 50, 3)
    mean, std = moments(images, rows)
    assert np.allclose(mean, images[rows].astype(float).mean(axis=(0, 1, 2)))
    assert np.allclose(std, images[rows].astype(float).std(axis=(0, 1, 2)))


def test_moments_do_not_depend_on_the_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    images = (rng.random((50, 9, 7, 3)) + 1e4).astype(np.float32)
    rows = np.arange(0, 50, 2)
    whole = moments(images, rows)
    monkeypatch.setattr("ripieno.data.blocks.BLOCK_BYTES", 4 * 9 * 7 * 3 * 4)
    assert np.allclose(whole, moments(images, rows), rtol=1e-9)


def test_a_black_channel_has_deviation_1():
    assert moments(np.zeros((5, 2, 2, 1), np.uint8), np.arange(5)) == ((0.0,), (1.0,))


@pytest.mark.parametrize("value", [7, 0.1])
def test_a_constant_channel_has_deviation_1(value):
    images = np.random.default_rng(0).random((31, 4, 9, 2)).astype(np.float32)
    images[..., 1] = value
    images[0, 0, 0, 1] = np.nextafter(np.float32(value), np.float32(9))  # all but rounding
    mean, std = moments(images, np.arange(31))
    assert mean[1] == pytest.approx(value)
    assert std[1] == 1.0
    assert std[0] < 1


def test_rows_of_masks_are_read_one_at_a_time() -> None:
    masks = np.arange(24, dtype=np.uint8).reshape(6, 2, 2)
    view = select_rows(masks, np.array([False, True, False, False, True, True]))
    assert isinstance(view, RowView)
    assert len(view) == 3
    assert np.array_equal(np.stack(list(view)), masks[[1, 4, 5]])
    assert np.array_equal(view[1], masks[4])
    assert np.array_equal(view[1:][1], masks[5])
    labels = select_rows(masks[:, 0, 0], np.array([4, 0]))
    assert labels.tolist() == [16, 0]


def test_masks_of_another_size_than_the_images_are_inconsistent() -> None:
    task = Task("segmentation", (4, 5, 2), ("a", "b"))
    arrays = np.zeros((6, 5, 4, 3), np.uint8), np.arange(120, dtype=np.uint8).reshape(6, 4, 5) % 2
    split = np.array([0, 0, 0, 1, 1, 2], np.uint8)
    with pytest.raises(DataError, match="masks do not have the size of the images"):
        check_dataset(Dataset("scenes", *arrays, split, task, (0.0,) * 3, (1.0,) * 3), "scenes")
