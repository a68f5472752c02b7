"""Notes on the balance of targets, by kind of task."""

from __future__ import annotations

import numpy as np
import pytest

from ripieno.data.samples import UNASSIGNED
from ripieno.data.splits import RATIOS, split_samples
from ripieno.tasks.registry import kind_of
from ripieno.types import Task, classification

AB = classification(["a", "b"])
FREE = np.full(2000, UNASSIGNED, np.int8)


def balance_notes(targets, split, task):
    return kind_of(task).balance_notes(targets, split, task)


@pytest.mark.parametrize(("many", "noted"), [(29, False), (30, True)])
def test_three_times_as_many_samples_are_an_imbalance(many, noted):
    labels = np.repeat([0, 1], [10, many])
    assert bool(balance_notes(labels, split_samples(labels, FREE[: len(labels)], RATIOS, 0), AB)) is noted


def test_imbalance_is_noted_with_advice():
    labels = np.repeat([0, 1], [9, 1979])
    notes = balance_notes(labels, split_samples(labels, FREE[: len(labels)], RATIOS, 0), AB)
    advice = "consider select --loss macro-f1, which weights all classes equally"
    assert notes == [f"classes hold 9 to 1,979 samples; {advice}"]


def test_balanced_classes_need_no_note():
    labels = np.arange(60) % 2
    assert balance_notes(labels, split_samples(labels, FREE[: len(labels)], RATIOS, 0), AB) == []


def test_a_class_that_the_sources_test_split_lacks_is_noted():
    labels = np.array([0, 1] * 20 + [0] * 5)
    result = split_samples(labels, np.array([UNASSIGNED] * 40 + [2] * 5, np.int8), RATIOS, 0)
    assert balance_notes(labels, result, AB) == ["the test split has no sample of class 'b'"]


def test_rare_labels_and_labels_that_a_split_lacks_are_noted():
    targets, split = np.zeros((60, 2), np.uint8), np.repeat([0, 1, 2], 20).astype(np.uint8)
    targets[::2, 0] = 1
    targets[:5, 1] = 1
    assert balance_notes(targets, split, Task("multilabel", (2,), ("a", "b"))) == [
        "label 'b' has 5 samples; scores of it say little",
        "the valid split has no sample of label 'b'",
        "the test split has no sample of label 'b'",
    ]


def test_targets_beyond_the_range_of_the_training_split_are_noted():
    targets, split = np.linspace(0, 1, 60, dtype=np.float32)[:, None], np.repeat([0, 1, 2], 20).astype(np.uint8)
    notes = balance_notes(targets, split, Task("regression", (1,), ("age",)))
    assert notes[0] == "100% of 'age' in the valid split are outside 0 to 0.322034, the range of the training samples"
    assert balance_notes(targets, np.tile([0, 1, 2], 20).astype(np.uint8), Task("regression", (1,), ("age",))) == []
