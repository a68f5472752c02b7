from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from ripieno.data import load_dataset, open_dataset, write_dataset
from ripieno.errors import DataError


def test_a_pair_of_arrays_is_split_72_8_20_and_described(arrays):
    dataset = load_dataset(arrays)
    assert [len(dataset.rows(s)) for s in ("train", "valid", "test")] == [42, 6, 12]
    train = dataset.inputs[dataset.rows("train")]
    assert dataset.mean == pytest.approx(train.mean(axis=(0, 1, 2)))
    assert dataset.input.shape == (6, 5, 3)
    assert dataset.input.dtype == "uint8"


def test_loading_twice_gives_the_same_and_another_seed_another_split(arrays):
    splits = [load_dataset(arrays, seed=s).split for s in (1, 1, 2)]
    assert np.array_equal(splits[0], splits[1])
    assert not np.array_equal(splits[0], splits[2])


def test_the_shares_can_be_chosen(arrays):
    dataset = load_dataset(arrays, split=(0.5, 0.25, 0.25))
    assert [len(dataset.rows(s)) for s in ("train", "valid", "test")] == [30, 15, 15]


def test_a_data_set_is_given_back_as_it_is(arrays):
    dataset = load_dataset(arrays)
    assert load_dataset(dataset, seed=9) is dataset


def test_a_prepared_folder_is_mapped_with_its_splits(arrays, tmp_path):
    written = write_dataset(load_dataset(arrays, seed=3), tmp_path / "x")
    opened = load_dataset(tmp_path / "x", seed=9)
    assert isinstance(opened.inputs, np.memmap)
    assert np.array_equal(opened.split, written.split)


def test_a_prepared_folder_keeps_its_metric_unless_another_is_asked_for(arrays, tmp_path):
    write_dataset(load_dataset(arrays, metric="macro-f1"), tmp_path / "f1")
    write_dataset(load_dataset(arrays), tmp_path / "accuracy")
    assert load_dataset(tmp_path / "f1").task.metric == "macro-f1"
    assert load_dataset(tmp_path / "accuracy", metric="macro-f1").task.metric == "macro-f1"


def test_a_folder_given_is_where_the_data_set_is_mapped_from(arrays, tmp_path):
    dataset = load_dataset(arrays, folder=tmp_path / "x")
    assert dataset.path == tmp_path / "x"
    assert np.array_equal(open_dataset(tmp_path / "x").inputs, arrays[0])


@pytest.mark.parametrize("scale", [1, 1 / 255])
def test_size_applies_to_arrays_too(arrays, scale):
    images = arrays[0] if scale == 1 else arrays[0].astype(np.float32) * np.float32(scale)
    dataset = load_dataset((images, arrays[1]), size=12)
    assert dataset.inputs.shape == (60, 12, 12, 3)
    assert dataset.inputs.dtype == images.dtype
    assert dataset.inputs.mean() == pytest.approx(images.mean(), rel=0.05)


def test_a_data_set_of_another_size_is_described_again(arrays):
    dataset = load_dataset(load_dataset(arrays), size=3)
    assert dataset.inputs.shape == (60, 3, 3, 3)
    assert dataset.std[0] == pytest.approx(dataset.inputs[dataset.rows("train")][..., 0].std())


def test_imbalance_is_noted(arrays):
    notes = []
    load_dataset((arrays[0], np.repeat([0, 1], [50, 10])), notes=notes)
    assert notes == [
        "classes hold 10 to 50 samples; consider select --loss macro-f1, which weights all classes equally"
    ]


def test_a_split_that_repeats_another_is_told(arrays, tmp_path):
    images, labels = arrays
    np.savez(tmp_path / "same.npz", x_train=images, y_train=labels, x_test=images[:30], y_test=labels[:30])
    notes = []
    load_dataset(tmp_path / "same.npz", notes=notes)
    assert [note.partition(";")[0] for note in notes] == [
        "30 of 30 test samples are also training or validation samples"
    ]


@pytest.mark.parametrize("as_path", [False, True])
def test_a_data_set_whose_test_images_are_training_images_is_told(arrays, tmp_path, as_path):
    dataset = load_dataset(arrays)
    twice = dataset.inputs.copy()
    twice[dataset.rows("test")] = twice[dataset.rows("train")[:12]]
    repeated = dataclasses.replace(dataset, inputs=twice)
    if as_path:
        write_dataset(repeated, tmp_path / "x")
    notes = []
    load_dataset(tmp_path / "x" if as_path else repeated, notes=notes)
    assert [note.partition(";")[0] for note in notes] == [
        "12 of 12 test samples are also training or validation samples"
    ]


def test_one_image_of_many_in_two_splits_is_not_told():
    images, labels = np.random.default_rng(0).integers(0, 256, (300, 4, 4, 1), np.uint8), np.arange(300) % 3
    rows = load_dataset((images, labels)).rows
    images[rows("test")[:1]] = images[rows("train")[:1]]
    notes = []
    load_dataset((images, labels), notes=notes)
    assert notes == []
    images[rows("test")[:6]] = images[rows("train")[:6]]
    load_dataset((images, labels), notes=notes)
    assert len(notes) == 1


def test_notes_that_nobody_gathers_are_logged(arrays, caplog):
    load_dataset((arrays[0], np.repeat([0, 1], [50, 10])))
    assert "classes hold 10 to 50 samples" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size is 0"),
        ({"metric": "f1"}, "metric is 'f1': it must be accuracy, macro-f1"),
        ({"split": (0.5, 0.5)}, "three positive numbers"),
        ({"task": "sorting"}, "task is 'sorting': it must be classification, multilabel, regression"),
        ({"task": "regression", "metric": "accuracy"}, "metric is 'accuracy': it must be rmse, mae or r2"),
        ({"metric": "rmse"}, "metric is 'rmse': a classification has accuracy, macro-f1"),
        ({"kind": "sound"}, "kind is 'sound': it must be image, series, table"),
        ({"target": "age"}, "target 'age' names a column, but arrays have none"),
    ],
)
def test_arguments_out_of_range_are_told(arrays, options, message):
    with pytest.raises(DataError, match=message):
        load_dataset(arrays, **options)


@pytest.mark.parametrize("source", [[1, 2], (1, 2, 3), None, 7])
def test_other_things_are_no_source(source):
    with pytest.raises(DataError, match="it must be a path, a Dataset, a pair"):
        load_dataset(source)


def test_a_path_that_does_not_exist_says_what_it_must_be(tmp_path):
    with pytest.raises(DataError, match=r"does not exist: it must be an image folder, an \.npz file"):
        load_dataset(tmp_path / "nothing")


def test_a_file_of_another_kind_says_what_it_must_be(tmp_path):
    (tmp_path / "x.txt").touch()
    with pytest.raises(DataError, match="is a file of no known kind: it must be an image folder"):
        load_dataset(tmp_path / "x.txt")


def test_the_package_imports_neither_torch_nor_kornia():
    code = "import sys, ripieno.data; sys.exit(bool({'torch', 'kornia'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
