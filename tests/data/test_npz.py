from __future__ import annotations

import numpy as np
import pytest

from ripieno.data import load_dataset
from ripieno.data.npz import read_key
from ripieno.errors import DataError


@pytest.fixture
def load(tmp_path):
    def save_and_load(**arrays):
        np.savez(tmp_path / "some.npz", **arrays)
        return load_dataset(tmp_path / "some.npz")

    return save_and_load


@pytest.fixture
def refused(load):
    def message(**arrays) -> str:
        with pytest.raises(DataError) as caught:
            load(**arrays)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return message


@pytest.mark.parametrize(
    ("key", "role"),
    [
        ("images", ("images", None)),
        ("X", ("images", None)),
        ("x_train", ("images", "train")),
        ("train_images", ("images", "train")),
        ("val_labels", ("labels", "valid")),
        ("Y-Test", ("labels", "test")),
        ("targets", ("labels", None)),
        ("x_eval", ("images", "test")),
        ("train_set_x", ("images", "train")),
        ("weights", None),
        ("x_y", None),
        ("train_test_x", None),
    ],
)
def test_names_of_arrays_say_kind_and_split(key, role):
    assert read_key(key) == role


@pytest.mark.parametrize(("x", "y"), [("images", "labels"), ("x", "y"), ("X", "Y"), ("data", "target")])
def test_whole_arrays_are_split_by_us(load, arrays, x, y):
    dataset = load(**{x: arrays[0], y: arrays[1]})
    assert np.array_equal(dataset.inputs, arrays[0])
    assert np.array_equal(dataset.targets, arrays[1])
    assert dataset.name == "some"


def test_medmnist_keeps_its_three_splits(load, arrays):
    images, labels = arrays
    parts = {"train": slice(0, 30), "val": slice(30, 39), "test": slice(39, 60)}
    named = {f"{n}_images": images[s] for n, s in parts.items()} | {
        f"{n}_labels": labels[s, None] for n, s in parts.items()
    }
    dataset = load(**named)
    assert [dataset.rows(s).tolist() for s in ("train", "valid", "test")] == [
        list(range(0, 30)),
        list(range(30, 39)),
        list(range(39, 60)),
    ]


def test_keras_arrays_keep_their_test_split_and_get_a_validation_split(load, arrays):
    images, labels = arrays
    dataset = load(x_train=images[:48], y_train=labels[:48], x_test=images[48:], y_test=labels[48:])
    assert dataset.rows("test").tolist() == list(range(48, 60))
    assert len(dataset.rows("valid")) == 6  # a tenth of 16 a class is 1.6


def test_a_split_array_is_kept(load, arrays):
    split = np.arange(60) // 3 % 3
    dataset = load(images=arrays[0], labels=arrays[1], split=split)
    order = np.argsort(split, kind="stable")
    assert np.array_equal(dataset.inputs, arrays[0][order])
    assert np.array_equal(dataset.split, split[order])


def test_class_names_are_read(load, arrays):
    assert load(x=arrays[0], y=arrays[1], classes=["cat", "dog", "fox"]).classes == ("cat", "dog", "fox")


def test_other_names_are_told_what_was_expected(refused, arrays):
    message = refused(foo=arrays[0], bar=arrays[1])
    assert "holds foo, bar; expected images and labels, x and y, x_train" in message


def test_an_empty_file_is_told_what_was_expected(refused):
    assert "holds nothing; expected images and labels" in refused()


def test_images_without_labels_are_told(refused, arrays):
    images, labels = arrays
    assert "expected both images and labels of test" in refused(x_train=images, y_train=labels, x_test=images)


def test_whole_and_split_arrays_together_are_refused(refused, arrays):
    images, labels = arrays
    assert "whole or by split" in refused(x=images, y=labels, x_test=images, y_test=labels)


def test_two_names_for_one_thing_are_refused(refused, arrays):
    assert "'x' and 'images', which mean the same" in refused(x=arrays[0], images=arrays[0], y=arrays[1])


def test_a_split_of_other_values_is_refused(refused, arrays):
    assert "0 (train), 1 (valid) and 2 (test)" in refused(x=arrays[0], y=arrays[1], split=np.full(60, 3))


def test_a_split_of_other_length_is_refused(refused, arrays):
    assert "one label and one split per image" in refused(x=arrays[0], y=arrays[1], split=np.zeros(59))


def test_python_objects_are_refused(refused, arrays):
    assert "holds Python objects" in refused(x=arrays[0], y=arrays[1], classes=np.array(["a", None, 3], object))


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "changed"])
def test_a_broken_file_is_named(tmp_path, arrays, damage):
    np.savez(tmp_path / "a.npz", x=arrays[0], y=arrays[1])
    data = (tmp_path / "a.npz").read_bytes()
    changed = data[:1000] + b"changed" + data[1007:]
    damaged = {"empty": b"", "text": b"hello", "cut": data[:-100], "changed": changed}[damage]
    (tmp_path / "a.npz").write_bytes(damaged)
    with pytest.raises(DataError, match=r"a\.npz is not a readable \.npz file"):
        load_dataset(tmp_path / "a.npz")


def test_arrays_that_are_not_read_are_told(arrays, tmp_path):
    np.savez(tmp_path / "some.NPZ", x=arrays[0], y=arrays[1], x_extra=arrays[0], weights=arrays[1])
    (tmp_path / "some.NPZ.npz").rename(tmp_path / "some.NPZ")
    notes = []
    load_dataset(tmp_path / "some.NPZ", notes=notes)
    assert "skipped x_extra, weights, by name neither images nor labels" in notes[0]


@pytest.mark.parametrize("names", [("images", "masks"), ("x_train", "mask_train"), ("x", "y")])
def test_masks_are_a_segmentation(load, names):
    images, masks = np.zeros((20, 6, 5, 3), np.uint8), np.arange(600).reshape(20, 6, 5) % 3
    dataset = load(**dict(zip(names, (images, masks), strict=True)), classes=["sky", "road", "tree"])
    assert dataset.task.kind == "segmentation"
    assert dataset.classes == ("sky", "road", "tree")
    assert np.array_equal(dataset.targets, masks)


def test_masks_of_another_size_than_the_images_are_refused(refused):
    message = refused(images=np.zeros((20, 6, 5, 3), np.uint8), masks=np.zeros((20, 5, 6), np.uint8))
    assert "only the class '0'" in message
    message = refused(images=np.zeros((20, 6, 5, 3), np.uint8), masks=np.arange(600).reshape(20, 5, 6) % 3)
    assert "5 x 6 pixels and masks 6 x 5" in message
