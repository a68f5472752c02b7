"""Notes on the balance of targets, and checks that there are enough."""

from __future__ import annotations

import numpy as np
import pytest

from ripieno.data.balance import balance_notes
from ripieno.data.samples import UNASSIGNED
from ripieno.data.splits import RATIOS, split_samples
from ripieno.types import classification

AB = classification(["a", "b"])
FREE = np.full(2000, UNASSIGNED, np.int8)


@pytest.mark.parametrize(("many", "noted"), [(29, False), (30, True)])
def test_three_times_as_many_images_are_an_imbalance(many, noted):
    labels = np.repeat([0, 1], [10, many])
    assert bool(balance_notes(labels, split_samples(labels, FREE[: len(labels)], RATIOS, 0), AB)) is noted


def test_imbalance_is_noted_with_advice():
    labels = np.repeat([0, 1], [9, 1979])
    notes = balance_notes(labels, split_samples(labels, FREE[: len(labels)], RATIOS, 0), AB)
    advice = "consider select --loss macro-f1, which weights all classes equally"
    assert notes == [f"classes hold 9 to 1,979 images; {advice}"]


def test_balanced_classes_need_no_note():
    labels = np.arange(60) % 2
    assert balance_notes(labels, split_samples(labels, FREE[: len(labels)], RATIOS, 0), AB) == []


def test_a_class_that_the_sources_test_split_lacks_is_noted():
    labels = np.array([0, 1] * 20 + [0] * 5)
    result = split_samples(labels, np.array([UNASSIGNED] * 40 + [2] * 5, np.int8), RATIOS, 0)
    assert balance_notes(labels, result, AB) == ["the source's test split has no image of class 'b'"]
