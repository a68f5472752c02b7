"""Targets of every kind of task, read from arrays, lists and other libraries' items."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from ripieno.data import load_dataset, open_dataset
from ripieno.errors import DataError
from ripieno.types import SPLITS, Dataset

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 6, 5, 3), np.uint8)
CODES = np.arange(60) % 3
AGES = np.linspace(0.5, 30, 60)
FLAGS = np.stack([CODES == 0, CODES < 2, np.arange(60) % 2], axis=1).astype(np.int64)


def load(targets: Any, **options: Any) -> Dataset:
    return load_dataset((PIXELS, targets), **options)


def error_of(targets: Any, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        load(targets, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_fractions_are_a_regression_and_it_is_said():
    notes: list[str] = []
    dataset = load(AGES, notes=notes)
    assert (dataset.task.kind, dataset.task.output, dataset.task.names) == ("regression", (1,), ("target",))
    assert dataset.task.metric == "rmse"
    assert dataset.targets.dtype == np.float32
    assert np.allclose(dataset.targets[:, 0], AGES)
    assert notes[0] == "targets of the arrays: read as regression; --task sets another kind"


def test_several_columns_of_fractions_are_several_targets():
    dataset = load(np.stack([AGES, -AGES], axis=1))
    assert dataset.task.names == ("target1", "target2")
    assert np.allclose(dataset.targets[:, 1], -AGES)


def test_columns_of_0_and_1_are_several_labels():
    dataset = load(FLAGS)
    assert (dataset.task.kind, dataset.task.names) == ("multilabel", ("0", "1", "2"))
    assert dataset.targets.dtype == np.uint8
    assert np.array_equal(dataset.targets, FLAGS)


def test_lists_of_labels_are_several_labels():
    lists = [["cat", "dog"] if code else ["dog"] if i % 2 else [] for i, code in enumerate(CODES)]
    dataset = load(lists)
    assert dataset.task.names == ("cat", "dog")
    assert dataset.targets[:2].tolist() == [[0, 0], [1, 1]]


def test_lists_of_numbers_are_sorted_as_numbers():
    assert load([[10, 2] if code else [1] for code in CODES], task="multilabel").task.names == ("1", "2", "10")


@pytest.mark.parametrize("flags", [FLAGS.tolist(), [tuple(row) for row in FLAGS.tolist()]])
def test_rows_of_0_and_1_in_lists_are_no_lists_of_labels(flags: Any):
    assert np.array_equal(load(flags).targets, FLAGS)


@pytest.mark.parametrize("labels", [CODES[:, None], np.eye(2, dtype=int)[CODES % 2], np.eye(3)[CODES]])
def test_columns_and_one_hot_rows_in_lists_stay_classes(labels: Any):
    assert load(labels.tolist()).task.kind == "classification"


def test_whole_numbers_stay_classes_unless_a_task_is_given():
    assert load(np.arange(60) // 3).task.kind == "classification"
    dataset = load(np.arange(60), task="regression")
    assert np.array_equal(dataset.targets[:, 0], np.arange(60))
    assert load(np.eye(3)[CODES], task="multilabel").task.kind == "multilabel"


def test_many_whole_numbers_as_floats_need_a_task():
    assert "60 distinct whole numbers" in error_of(np.arange(60.0))
    assert "--task regression" in error_of(np.arange(60.0))
    assert load(np.arange(60.0) // 3).task.kind == "classification"


def changed(targets: np.ndarray, place: Any, value: Any) -> np.ndarray:
    copy = targets.copy()
    copy[place] = value
    return copy


@pytest.mark.parametrize(
    ("targets", "options", "message"),
    [
        (changed(AGES, 7, np.nan), {}, "hold nan for 'target', sample 7; expected finite numbers"),
        (changed(AGES, 7, 1e300), {}, "hold 1e+300 for 'target', sample 7"),
        (np.full(60, 2.5), {}, "target 'target' is 2.5 in all 60 samples"),
        (np.zeros(60, int), {}, "only the class '0'"),
        (changed(FLAGS, (3, 1), 2), {"task": "multilabel"}, "hold 2 for label '1', sample 3; expected 0 and 1"),
        (changed(FLAGS, (slice(None), 2), 0), {}, "label '2' is 0 in all 60 samples"),
        (np.array(["1.5"] * 59 + ["old"]), {"task": "regression"}, "hold 'old', sample 59; expected numbers"),
        (AGES, {"task": "classification"}, "labels of the arrays hold 0.5, sample 0; expected whole numbers or names"),
        (AGES[:59], {}, "60 inputs but 59 targets"),
        ([["a"]] * 30 + [[None]] * 30, {}, "have no value for sample 30"),
        (np.zeros((60, 2, 2)), {"task": "regression"}, "have shape (60, 2, 2)"),
    ],
    ids=range(11),
)
def test_targets_that_cannot_be_used_are_told_in_a_line(targets: Any, options: Any, message: str):
    assert message in error_of(targets, **options)


def test_parts_of_a_mapping_have_one_task():
    dataset = load_dataset(
        {"train": (PIXELS, AGES), "valid": (PIXELS[:9], AGES[:9]), "test": (PIXELS[:6], np.arange(6.0))}
    )
    assert dataset.task.kind == "regression"
    assert [len(dataset.rows(split)) for split in SPLITS] == [60, 9, 6]
    with pytest.raises(DataError, match="have 1 columns; expected 2"):
        load_dataset({"train": (PIXELS, np.stack([AGES] * 2, axis=1)), "test": (PIXELS, AGES)})


def test_labels_of_all_parts_are_joined():
    dataset = load_dataset({"train": (PIXELS, [["a"], ["c", "b"]] * 30), "test": (PIXELS, [["b"], ["a"]] * 30)})
    assert dataset.task.names == ("a", "b", "c")
    assert dataset.targets[60:62].tolist() == [[0, 1, 0], [1, 0, 0]]
    with pytest.raises(DataError, match="label 'd' is 0 in all 60 samples"):
        load_dataset({"train": (PIXELS, [["a"], ["b", "c"]] * 30), "test": (PIXELS, [["d"], ["a"]] * 30)})


def test_tensors_of_numbers_are_targets():
    images = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)
    assert load_dataset(TensorDataset(images, torch.tensor(AGES))).task.kind == "regression"
    several = load_dataset(TensorDataset(images, torch.tensor(np.stack([AGES, -AGES], axis=1))))
    assert several.targets.shape == (60, 2)
    assert load_dataset(TensorDataset(images, torch.tensor(FLAGS))).task.kind == "multilabel"


def test_a_written_data_set_keeps_its_task(tmp_path: Any):
    for name, targets in (("ages", AGES), ("flags", FLAGS)):
        written = load(targets, folder=tmp_path / name)
        assert open_dataset(tmp_path / name).task == written.task
        assert load_dataset(tmp_path / name, task=written.task.kind).task == written.task
    with pytest.raises(DataError, match="prepared with task multilabel, not regression"):
        load_dataset(tmp_path / "flags", task="regression")
    with pytest.raises(DataError, match="prepared for target; prepare it again"):
        load_dataset(tmp_path / "ages", target="age")


def test_the_metric_is_one_of_the_task():
    assert load(AGES, metric="r2").task.metric == "r2"
    assert load(FLAGS, metric="mean-average-precision").task.metric == "mean-average-precision"
    assert "metric is 'accuracy': a regression has rmse, mae, r2" in error_of(AGES, metric="accuracy")
