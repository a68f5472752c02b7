"""Splits and folds in the order of a column, and by its groups."""

from __future__ import annotations

import numpy as np
import pytest

from ripieno.data.folds import make_folds
from ripieno.data.raw_columns import SplitBy
from ripieno.data.samples import UNASSIGNED
from ripieno.data.split_by import assign_groups, split_by_column, split_by_note
from ripieno.errors import DataError
from ripieno.types import classification

FREE = np.full(100, UNASSIGNED, np.int8)
RATIOS = (0.6, 0.2, 0.2)
ORDER = np.random.default_rng(0).permutation(100).astype(np.float64)
GROUPS = np.random.default_rng(1).integers(0, 25, 100)
LABELS = GROUPS % 3 // 2  # a group has one class


def test_later_samples_validate_and_test() -> None:
    split = split_by_column(SplitBy("when", ORDER, "date"), None, FREE, RATIOS, 0)
    assert np.array_equal(split, np.digitize(ORDER, [60, 80]))


def test_equal_values_are_in_one_split_as_near_to_the_shares_as_they_allow() -> None:
    values = ORDER // 7  # 15 values
    split = split_by_column(SplitBy("week", values, "number"), None, FREE, RATIOS, 0)
    assert [np.unique(values[split == i]).tolist() for i in range(3)] == [
        [*map(float, range(9))],
        [9.0, 10.0],
        [11.0, 12.0, 13.0, 14.0],
    ]


@pytest.mark.parametrize("values", [[0, 1, 2], [0] * 97 + [1, 2, 3], [0, 1, 2] + [3] * 97])
def test_every_split_has_samples_however_values_are_spread(values: list[int]) -> None:
    order = np.array((values * 34)[:100] if len(values) == 3 else values, np.float64)
    for kind in ("number", "category"):
        by = SplitBy("x", order.astype(np.int64) if kind == "category" else order, kind)
        split = split_by_column(by, None, FREE, RATIOS, 0)
        assert set(split.tolist()) == {0, 1, 2}
        assert all(len(set(split[order == value].tolist())) == 1 for value in set(order.tolist()))
    assert (
        np.diff(split_by_column(SplitBy("x", order, "number"), None, FREE, RATIOS, 0)[np.argsort(order)]) >= 0
    ).all()


def test_a_split_of_the_source_is_kept() -> None:
    given = np.where(np.arange(100) < 30, 2, UNASSIGNED).astype(np.int8)
    split = split_by_column(SplitBy("when", ORDER, "date"), None, given, None, 0)
    assert (split[:30] == 2).all()
    assert set(split[30:].tolist()) == {0, 1}
    assert ORDER[30:][split[30:] == 0].max() < ORDER[30:][split[30:] == 1].min()


def test_a_group_is_in_one_split_and_classes_have_their_shares() -> None:
    by = SplitBy("patient", GROUPS, "category")
    split = split_by_column(by, LABELS, FREE, RATIOS, 0)
    assert all(len(set(split[group == GROUPS].tolist())) == 1 for group in range(25))
    for label in (0, 1):
        shares = np.bincount(split[label == LABELS], minlength=3) / (label == LABELS).sum()
        assert np.abs(shares - RATIOS).max() < 0.12
    assert np.array_equal(split, split_by_column(by, LABELS, FREE, RATIOS, 0))
    assert not np.array_equal(split, split_by_column(by, LABELS, FREE, RATIOS, 1))
    assert split_by_note(by, split) == "column 'patient' splits the samples: 25 groups, each in one split"


def test_folds_hold_whole_groups() -> None:
    split = np.zeros(100, np.uint8)
    folds = make_folds(LABELS, split, classification(("a", "b")), 5, 0, GROUPS)
    assert set(folds.tolist()) == set(range(5))
    assert all(len(set(folds[group == GROUPS].tolist())) == 1 for group in range(25))
    assert np.bincount(folds).max() - np.bincount(folds).min() <= 8
    with pytest.raises(DataError, match="there are 2 training groups for 5 folds"):
        make_folds(LABELS, split, classification(("a", "b")), 5, 0, GROUPS % 2)


def test_parts_without_a_group_get_the_last_ones() -> None:
    assert sorted(assign_groups(np.array([0] * 97 + [1, 2, 3]), None, [1, 1, 98], 0)[[0, 97, 98, 99]].tolist()) == [
        *(0, 1, 2, 2),
    ]


def test_too_few_values_are_refused() -> None:
    with pytest.raises(
        DataError, match="column 'x' has 2 values for the splits train, valid, test; expected at least 3"
    ):
        split_by_column(SplitBy("x", ORDER // 50, "number"), None, FREE, RATIOS, 0)


def test_notes_state_where_splits_end() -> None:
    split = np.digitize(ORDER, [60, 80]).astype(np.uint8)
    note = split_by_note(SplitBy("when", ORDER, "date"), split)
    assert note == "column 'when' splits the samples: train to 1970-03-01, valid to 1970-03-21, test after"
    assert split_by_note(SplitBy("x", ORDER, "number"), split).endswith("; --column x=category splits by groups")
    assert split_by_note(SplitBy("x", ORDER / 3, "number"), split).endswith("valid to 26.3333, test after")
