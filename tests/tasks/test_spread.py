from __future__ import annotations

import numpy as np

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


def test_the_deviation_of_large_numbers_is_finite():
    np.testing.assert_allclose(deviation(np.float32([[-1e30], [1e30]]), np.array([0.5, 0.5])), [1e30], rtol=1e-6)


def test_the_spread_of_a_classification_is_that_of_the_predicted_class():
    # of the predicted class 0.9, 0.5 and 0.5 with weights 3, 1, 0: mean 0.8, variance 0.75 * 0.01 + 0.25 * 0.09
    predictions = np.float32([[[0.9, 0.1]], [[0.5, 0.5]], [[0.5, 0.5]]])
    weights = np.array([0.75, 0.25, 0.0])
    spread = TASKS["classification"].spread(predictions, combine(predictions, weights, "weighted"), weights)
    np.testing.assert_allclose(spread, [0.03**0.5], rtol=1e-5)


def test_medians_are_scaled_to_sum_one_after_a_softmax_only():
    predictions = np.float32([[[0.9, 0.1]], [[0.5, 0.1]], [[0.1, 0.1]]])
    np.testing.assert_allclose(combine(predictions, None, "median"), [[0.5 / 0.6, 0.1 / 0.6]], rtol=1e-6)
    for activation in ("sigmoid", "identity"):
        np.testing.assert_array_equal(combine(predictions, None, "median", activation), np.median(predictions, axis=0))
