from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given as over
from hypothesis import strategies as st

from ripieno.data.samples import UNASSIGNED
from ripieno.data.splits import check_sizes, shares, split_samples
from ripieno.errors import DataError
from ripieno.tasks.registry import TASKS
from ripieno.types import classification

RATIOS = (0.72, 0.08, 0.20)


def split(labels, given=None, ratios=RATIOS, seed=0):
    labels = np.asarray(labels)
    given = np.full(len(labels), UNASSIGNED, np.int8) if given is None else np.asarray(given, np.int8)
    check_sizes(labels, given, classification([f"c{i}" for i in range(labels.max() + 1)]))
    return split_samples(labels, given, ratios, seed)


def counts(labels, split):
    return [np.bincount(labels[split == s]).tolist() for s in range(3)]


def test_the_papers_split_is_72_8_20_within_every_class():
    labels = np.repeat([0, 1], [100, 500])
    assert counts(labels, split(labels)) == [[72, 360], [8, 40], [20, 100]]


def test_the_same_seed_splits_the_same_and_another_differently():
    labels = np.arange(300) % 3
    assert np.array_equal(split(labels, seed=4), split(labels, seed=4))
    assert not np.array_equal(split(labels, seed=4), split(labels, seed=5))


def test_the_split_of_a_class_does_not_depend_on_the_other_classes():
    few, more = np.repeat([0, 1], 50), np.repeat([0, 1, 2], 50)
    assert np.array_equal(split(few), split(more)[:100])


def test_splits_are_shuffled_not_cut_from_the_ends():
    first = split(np.repeat([0, 1], 100))[:100]
    assert 0 in first[-20:]
    assert 2 in first[:72]


def test_a_class_of_three_is_in_every_split():
    labels = np.repeat([0, 1], [100, 3])
    assert [c[1] for c in counts(labels, split(labels))] == [1, 1, 1]


def test_a_class_of_two_is_one_clear_line():
    with pytest.raises(DataError) as caught:
        split(np.repeat([0, 1, 2], [100, 2, 1]))
    assert str(caught.value) == (
        "class 'c1' has 2 samples for train, valid, test (so do 1 more classes); "
        "expected at least 3; add some or leave the class out"
    )


def test_a_given_test_split_is_kept_and_the_rest_shared_in_proportion():
    labels = np.tile([0, 1], 120)
    given = np.where(np.arange(240) < 40, 2, UNASSIGNED)
    result = split(labels, given)
    assert np.array_equal(np.flatnonzero(result == 2), np.arange(40))
    assert counts(labels, result)[:2] == [[90, 90], [10, 10]]


def test_a_given_valid_split_leaves_train_and_test_to_be_made():
    labels = np.tile([0, 1], 112)
    given = np.where(np.arange(224) < 40, 1, UNASSIGNED)
    assert counts(labels, split(labels, given)) == [[72, 72], [20, 20], [20, 20]]


def test_all_given_is_kept():
    labels = np.tile([0, 1], 30)
    given = np.repeat([UNASSIGNED, 1, 2], 20)
    assert np.array_equal(split(labels, given), np.repeat([0, 1, 2], 20))


def test_a_class_that_is_only_in_the_given_test_split_is_told():
    with pytest.raises(DataError, match="class 'c2' has no sample for train, valid"):
        split([0, 0, 0, 1, 1, 1, 2], [UNASSIGNED] * 6 + [2])


def test_a_single_class_is_told():
    with pytest.raises(DataError, match="only the class 'x'"):
        check_sizes(np.zeros(9, np.int64), np.full(9, UNASSIGNED, np.int8), classification(["x"]))


@pytest.mark.parametrize("ratios", [(0.8, 0.2), (0.8, 0.2, 0), (1, 1, -1), (1, 1, float("nan")), (1, 1, float("inf"))])
def test_ratios_must_be_three_positive_numbers(ratios):
    with pytest.raises(DataError, match="three positive numbers"):
        split([0, 1] * 9, ratios=ratios)


def test_ratios_need_not_sum_to_one():
    labels = np.arange(300) % 3
    assert np.array_equal(split(labels, ratios=(72, 8, 20)), split(labels))


@over(st.integers(3, 3000), st.lists(st.floats(0.01, 100), min_size=3, max_size=3))
def test_shares_sum_to_all_and_are_never_zero_nor_far_from_exact(samples, ratios):
    found = shares(samples, ratios)
    assert sum(found) == samples
    assert min(found) >= 1
    exact = [samples * r / sum(ratios) for r in ratios]
    assert all(abs(f - e) < 1 or min(exact) < 1 for f, e in zip(found, exact, strict=True))


@pytest.mark.parametrize(
    ("samples", "ratios", "found"),
    [
        (13, RATIOS, [9, 1, 3]),  # 9.36, 1.04, 2.6
        (14, RATIOS, [10, 1, 3]),  # 10.08, 1.12, 2.8
        (11, (1, 1, 1), [4, 4, 3]),  # equal remainders go to the first
        (9, (0.96, 0.02, 0.02), [7, 1, 1]),
        (9, (0.02, 0.02, 0.96), [1, 1, 7]),
    ],
)
def test_what_is_left_over_goes_to_the_largest_remainders_and_nobody_goes_without(samples, ratios, found):
    assert shares(samples, ratios) == found


def test_classes_are_shuffled_apart_from_each_other():
    result = split(np.repeat([0, 1, 2], 100))
    assert len({tuple(part) for part in result.reshape(3, 100)}) == 3


def test_validation_gets_20_images_of_a_class_that_has_80():
    labels = np.repeat([0, 1, 2], [79, 80, 1000])
    assert counts(labels, split(labels, ratios=None)) == [[57, 47, 720], [6, 20, 80], [16, 13, 200]]


def test_validation_beside_a_given_test_split_gets_20_images_too():
    labels = np.tile([0, 1], 120)
    given = np.where(np.arange(240) < 40, 2, UNASSIGNED)
    assert counts(labels, split(labels, given, ratios=None))[:2] == [[80, 80], [20, 20]]


def test_small_strata_are_in_train_first_and_then_in_valid():
    strata = np.repeat([0, 1, 2], [30, 1, 2])
    result = split_samples(strata, np.full(33, UNASSIGNED, np.int8), RATIOS, 0)
    assert result[30] == 0
    assert sorted(result[31:]) == [0, 1]


def test_without_strata_the_split_is_random_and_keeps_the_shares():
    result = split_samples(None, np.full(100, UNASSIGNED, np.int8), RATIOS, 0)
    assert np.bincount(result).tolist() == [72, 8, 20]


def test_too_few_samples_are_told():
    with pytest.raises(DataError, match="there are 2 samples for train, valid, test; expected at least 3"):
        split_samples(None, np.full(2, UNASSIGNED, np.int8), RATIOS, 0)


def test_every_label_is_in_train_and_valid_where_it_has_two_samples():
    rng = np.random.default_rng(0)
    targets = (rng.random((200, 12)) < 0.3).astype(np.uint8)
    targets[:, 6:] = 0
    for label in range(6, 12):
        targets[rng.choice(200, 2, replace=False), label] = 1
    for seed in range(5):
        found = split_samples(TASKS["multilabel"].strata(targets), np.full(200, UNASSIGNED, np.int8), None, seed)
        assert targets[found == 0].any(axis=0).all()
        assert targets[found == 1].any(axis=0).all()
        assert np.bincount(found)[0] > 120
