"""Confusions and disagreement, counted by hand."""

from __future__ import annotations

import numpy as np

from ripieno.reports.confusion import (
    confusion,
    merge_classes,
    most_confused,
    most_disputed,
    most_wrong,
    top_confusions,
    top_votes,
)

LABELS = np.array([0, 0, 0, 1, 1, 2, 3])
ANSWERS = np.array([0, 1, 1, 1, 0, 2, 2])


def test_a_confusion_counts_the_true_class_by_the_answer() -> None:
    found = confusion(LABELS, ANSWERS, (0, 1, 2, 3), 4)
    assert found == ((1, 2, 0, 0), (1, 1, 0, 0), (0, 0, 1, 0), (0, 0, 1, 0))


def test_classes_left_over_are_one_row_and_no_sample_is_lost() -> None:
    found = confusion(LABELS, ANSWERS, (0, 1), 4)
    assert found == ((1, 2, 0), (1, 1, 0), (0, 0, 2))


def test_the_worst_confusions_come_first() -> None:
    assert top_confusions(LABELS, ANSWERS, 4) == ((0, 1, 2), (1, 0, 1), (3, 2, 1))


def test_the_classes_shown_are_those_most_often_confused() -> None:
    assert most_confused(LABELS, [ANSWERS], 4, 2) == (0, 1)
    assert most_confused(LABELS, [ANSWERS], 4, 10) == (0, 1, 2, 3)


def test_a_class_is_doubted_by_the_mean_over_its_samples() -> None:
    doubt = np.array([0.0, 0.5, 1.0, 0.0, 0.0, 0.25, 0.0])
    assert most_disputed(LABELS, doubt, 4) == ((0, 0.5), (2, 0.25))


def test_votes_are_counted_with_the_most_first() -> None:
    assert top_votes(np.array([2, 1, 2, 0])) == ((2, 2), (0, 1), (1, 1))


def test_counts_of_all_classes_give_the_same_classes_and_merged_counts() -> None:
    whole = np.array(confusion(LABELS, ANSWERS, (0, 1, 2, 3), 4))
    for most in (2, 3, 4):
        shown = most_wrong(whole, most)
        assert shown == most_confused(LABELS, [ANSWERS], 4, most)
        assert np.array_equal(merge_classes(whole, shown), confusion(LABELS, ANSWERS, shown, 4))
