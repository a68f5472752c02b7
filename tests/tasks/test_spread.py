from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ripieno.tasks.combiners import combine
from ripieno.tasks.registry import TASKS
from ripieno.tasks.spread import deviation


def test_the_deviation_counts_a_member_by_its_weight_and_keeps_the_other_axes():
    values = np.random.default_rng(0).normal(size=(3, 5, 2)).astype(np.float32)
    weights = np.array([0.5, 0.3, 0.2])
    mean = np.average(values.astype(np.float64), 0, weights)
    np.testing.assert_allclose(
        deviation(values, weights), np.sqrt(np.average((values - mean) ** 2, 0, weights)), rtol=1e-6
    )


def test_medians_are_scaled_to_sum_one_after_a_softmax_only():
    predictions = np.float32([[[0.9, 0.1]], [[0.5, 0.1]], [[0.1, 0.1]]])
    np.testing.assert_allclose(combine(predictions, None, "median"), [[0.5 / 0.6, 0.1 / 0.6]], rtol=1e-6)
    for activation in ("sigmoid", "identity"):
        np.testing.assert_array_equal(combine(predictions, None, "median", activation), np.median(predictions, axis=0))


def cube(members=4, samples=6, classes=3, seed=0):
    raw = np.random.default_rng(seed).random((members, samples, classes), np.float32)
    return raw / raw.sum(2, keepdims=True)


spread = TASKS["classification"].spread
EQUAL = np.full(4, 0.25, np.float32)


def test_the_spread_is_the_deviation_of_the_answered_class():
    predictions = np.array([[[0.9, 0.1]], [[0.5, 0.5]]], np.float32)
    weights = np.array([0.5, 0.5], np.float32)
    np.testing.assert_allclose(spread(predictions, combine(predictions), weights), [0.2], rtol=1e-5)


def test_the_spread_counts_a_member_by_its_weight():
    # of the answered class 0.9, 0.5 and 0.5 with weights 3, 1, 0: mean 0.8, variance 0.75 * 0.01 + 0.25 * 0.09
    predictions = np.array([[[0.9, 0.1]], [[0.5, 0.5]], [[0.5, 0.5]]], np.float32)
    weights = np.array([0.75, 0.25, 0.0], np.float32)
    answer = combine(predictions, weights, "weighted")
    np.testing.assert_allclose(spread(predictions, answer, weights), [0.03**0.5], rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), members=st.integers(1, 6))
def test_the_spread_is_the_square_root_of_the_weighted_variance(seed, members):
    predictions = cube(members, 7, 4, seed)
    weights = np.random.default_rng(seed).dirichlet(np.ones(members)).astype(np.float32)
    answer = combine(predictions, weights, "weighted")
    for sample, found in enumerate(spread(predictions, answer, weights)):
        chosen = predictions[:, sample, answer[sample].argmax()].astype(np.float64)
        variance = np.average((chosen - np.average(chosen, weights=weights)) ** 2, weights=weights)
        assert found == pytest.approx(variance**0.5, abs=1e-5)


def test_members_that_agree_have_no_spread():
    predictions = np.repeat(cube(1), 4, axis=0)
    np.testing.assert_allclose(spread(predictions, predictions[0], EQUAL), 0, atol=1e-6)


def test_the_spread_of_large_finite_numbers_is_finite():
    predictions = np.array([[[3e38, 0]], [[1.0, 0]]], np.float32)
    half = np.full(2, 0.5, np.float32)
    np.testing.assert_allclose(spread(predictions, predictions[0], half), [1.5e38], rtol=1e-6)
