from __future__ import annotations

import numpy as np
import pytest

from ripieno.tasks import metrics

PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.5, 0.4, 0.1], [0.2, 0.2, 0.6]])
LABELS = np.array([0, 1, 1, 2])


def test_cross_entropy_is_the_mean_negative_log_of_the_true_class() -> None:
    expected = -np.log([0.7, 0.4, 0.4, 0.6]).mean()
    assert metrics.cross_entropy(PROBABILITIES, LABELS) == pytest.approx(expected, abs=1e-15)
    assert metrics.cross_entropy(np.array([0.7, 0.4, 0.4, 0.6])) == pytest.approx(expected, abs=1e-15)


def test_a_probability_of_zero_costs_the_log_of_1e_15() -> None:
    assert metrics.cross_entropy(np.array([0.0], dtype=np.float16)) == pytest.approx(15 * np.log(10))


def test_accuracy_counts_samples_whose_likeliest_class_is_true() -> None:
    assert metrics.accuracy(PROBABILITIES, LABELS) == 0.75


def test_accuracy_gives_ties_to_the_lowest_class() -> None:
    assert metrics.accuracy(np.array([[0.5, 0.5]]), np.array([0])) == 1.0
    assert metrics.accuracy(np.array([[0.5, 0.5]]), np.array([1])) == 0.0


def test_macro_f1_averages_over_classes_by_hand() -> None:
    # answers 0 1 0 2: class 0 hit 1 of 1 with one false, 2/3; class 1 hit 1 of 2, 2/3; class 2: 1
    assert metrics.macro_f1(PROBABILITIES, LABELS) == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)


def test_macro_f1_leaves_out_classes_that_nobody_names() -> None:
    wider = np.hstack([PROBABILITIES, np.zeros((4, 2))])
    assert metrics.macro_f1(wider, LABELS) == metrics.macro_f1(PROBABILITIES, LABELS)


def test_squared_distance_sums_over_outputs_and_averages_over_samples() -> None:
    assert metrics.squared_distance(np.array([1.0, 3.0]), np.array([0.0, 1.0])) == 2.5
    assert metrics.squared_distance(np.array([[1.0, 1.0], [0.0, 0.0]]), np.zeros((2, 2))) == 1.0
