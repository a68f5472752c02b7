from __future__ import annotations

import numpy as np
import pytest

from ripieno.data import load_dataset
from ripieno.data.samples import SplitArrays, join
from ripieno.errors import DataError


def refused(images, labels) -> str:
    with pytest.raises(DataError) as caught:
        load_dataset((images, labels))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_arrays_of_the_right_form_are_not_copied(arrays):
    assert np.shares_memory(load_dataset(arrays).inputs, arrays[0])


def test_a_mapped_array_stays_mapped(arrays, tmp_path):
    np.save(tmp_path / "x.npy", arrays[0])
    dataset = load_dataset((np.load(tmp_path / "x.npy", mmap_mode="r"), arrays[1]))
    assert isinstance(dataset.inputs, np.memmap)


def test_images_without_channels_get_one(arrays):
    assert load_dataset((arrays[0][..., 0], arrays[1])).inputs.shape == (60, 6, 5, 1)


def test_channels_first_are_turned_and_noted(arrays):
    notes = []
    dataset = load_dataset((arrays[0].transpose(0, 3, 1, 2), arrays[1]), notes=notes)
    assert np.array_equal(dataset.inputs, arrays[0])
    assert "read as channels first" in notes[0]


@pytest.mark.parametrize("dtype", [np.int64, np.uint16])
def test_whole_numbers_up_to_255_become_uint8(arrays, dtype):
    dataset = load_dataset((arrays[0].astype(dtype), arrays[1]))
    assert dataset.inputs.dtype == np.uint8
    assert np.array_equal(dataset.inputs, arrays[0])


def test_larger_whole_numbers_become_float32(arrays):
    dataset = load_dataset((arrays[0].astype(np.uint16) * 100, arrays[1]))
    assert dataset.inputs.dtype == np.float32
    assert dataset.inputs.max() > 255


def test_float64_becomes_float32(arrays):
    assert load_dataset((arrays[0] / 255, arrays[1])).inputs.dtype == np.float32


def test_booleans_become_0_and_255(arrays):
    assert set(np.unique(load_dataset((arrays[0] > 100, arrays[1])).inputs)) == {0, 255}


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_values_that_are_no_finite_float32_name_the_image(arrays, value, monkeypatch):
    monkeypatch.setattr("ripieno.data.blocks.BLOCK_BYTES", 4 * 6 * 5 * 3 * 4)  # blocks of four images
    images = arrays[0] / 255
    images[17, 0, 0, 0] = value
    assert "sample 17 of the arrays holds NaN or infinity" in refused(images, arrays[1])


def test_text_is_no_image(arrays):
    assert "inputs of the arrays hold <U" in refused(arrays[0].astype(str), arrays[1])


@pytest.mark.parametrize("shape", [(60,), (60, 6, 5, 3, 1), (0, 6, 5, 3), (60, 0, 5, 3)])
def test_wrong_shapes_are_told(shape):
    assert f"have shape {shape}" in refused(np.zeros(shape, np.uint8), np.zeros(shape[0], int))


def test_ragged_lists_are_told():
    assert "are no arrays" in refused([[[1, 2], [3]], [[1]]], [0, 1])
    assert "sample 1 of the arrays has 1 point" in refused([[1, 2], [3]], [0, 1])


def test_fewer_labels_than_images_are_told(arrays):
    assert "60 inputs but 59 targets" in refused(arrays[0], arrays[1][:59])


def test_labels_of_many_columns_are_told(arrays):
    assert "expected one label a sample" in refused(arrays[0], np.full((60, 4), 2))


@pytest.mark.parametrize(
    "form",
    [
        lambda y: y.astype(float),
        lambda y: y.astype(np.uint8)[:, None],
        lambda y: np.eye(3)[y],
        lambda y: y.tolist(),
    ],
    ids=["floats", "column", "one-hot", "list"],
)
def test_labels_in_many_forms_mean_the_same(arrays, form):
    dataset = load_dataset((arrays[0], form(arrays[1])))
    assert np.array_equal(dataset.targets, arrays[1])
    assert dataset.classes == ("0", "1", "2")


def test_labels_that_are_not_0_to_n_name_their_classes(arrays):
    dataset = load_dataset((arrays[0], arrays[1] * 10 - 5))
    assert dataset.classes == ("-5", "5", "15")
    assert np.array_equal(dataset.targets, arrays[1])


@pytest.mark.parametrize("kind", ["U", "S"])
def test_labels_that_are_names_name_their_classes(arrays, kind):
    dataset = load_dataset((arrays[0], np.array(["fox", "cat", "dog"]).astype(kind)[arrays[1]]))
    assert dataset.classes == ("cat", "dog", "fox")
    assert dataset.targets[:3].tolist() == [2, 0, 1]


def test_labels_beyond_the_class_names_are_told(arrays):
    part = SplitArrays(*arrays, "x.npz")
    with pytest.raises(DataError, match=r"labels of x\.npz contain 2: expected 0 to 1 for 2 classes"):
        join("x", [part], ["a", "b"], [])


def test_labels_that_are_none_of_the_names_are_told(arrays):
    part = SplitArrays(arrays[0], np.array(["cat", "dog", "cow"])[arrays[1]], "x.npz")
    with pytest.raises(DataError, match="contain 'cow', which is not one of the 2 class names"):
        join("x", [part], ["cat", "dog"], [])


def test_class_names_that_repeat_are_told(arrays):
    with pytest.raises(DataError, match=r"two classes of x\.npz are named 'cat'"):
        join("x", [SplitArrays(*arrays, "x.npz")], ["cat", "cat", "dog"], [])


def test_a_class_name_without_images_is_told(arrays, tmp_path):
    np.savez(tmp_path / "x.npz", x=arrays[0], y=arrays[1], classes=list("abcd"))
    with pytest.raises(DataError, match="class 'd' has no sample"):
        load_dataset(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x[:, :4], y), "shapes"),
        (lambda x, y: (x / 255, y), "one type and one unit"),
        (lambda x, y: (x, y.astype(str)), "numbers in one and names in the other"),
    ],
)
def test_parts_that_differ_are_told(arrays, change, message):
    with pytest.raises(DataError, match=message):
        join("x", [SplitArrays(*arrays, "a"), SplitArrays(*change(*arrays), "b", "test")], None, [])


def test_whole_numbers_of_two_parts_keep_one_type(arrays):
    small, large = arrays[0].astype(np.int32), arrays[0].astype(np.int32) * 9
    samples = join("x", [SplitArrays(small, arrays[1], "a"), SplitArrays(large, arrays[1], "b", "test")], None, [])
    assert samples.inputs.dtype == np.float32
    assert np.array_equal(samples.inputs[:60], arrays[0])


def test_numbers_are_names_of_classes_that_are_named_by_numbers(arrays):
    images, labels = arrays
    part = SplitArrays(images, np.array([1, 10, 2])[labels], "x.npz")
    assert join("x", [part], ["1", "10", "2"], []).targets.tolist() == labels.tolist()
    with pytest.raises(DataError, match=r"ambiguous.* by position"):
        join("x", [SplitArrays(images, labels, "x.npz")], ["1", "10", "2"], [])


def test_numbers_are_positions_where_the_source_defines_them_so(arrays):
    images, labels = arrays
    found = join("x", [SplitArrays(images, labels, "x")], ["1", "10", "2"], [], positions=True)
    assert found.targets.tolist() == labels.tolist()


def test_labels_of_pandas_are_read(arrays):
    pandas = pytest.importorskip("pandas")
    images, labels = arrays
    words = pandas.Series(np.array(["cat", "dog", "emu"])[labels])
    for column in (words, words.astype("category"), words.astype("string")):
        assert join("x", [SplitArrays(images, column, "x")], None, []).task.names == ("cat", "dog", "emu")
