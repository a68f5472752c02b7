"""Calibration error and Brier score against scikit-learn, and against errors that are known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from ripieno.tasks.calibration_error import (
    brier_score,
    calibration_bins,
    confident_answers,
    error_of_bins,
    measure_calibration,
)
from ripieno.tasks.metrics import METRICS


def drawn(samples: int = 4000, classes: int = 5, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities, and labels drawn from them."""
    generator = np.random.default_rng(seed)
    logits = np.exp(generator.normal(0, 1.5, (samples, classes)))
    probabilities = logits / logits.sum(axis=1, keepdims=True)
    labels = (probabilities.cumsum(axis=1) > generator.random((samples, 1))).argmax(axis=1)
    return probabilities, labels


@pytest.mark.parametrize("digits", [9, 1])
def test_bins_are_those_of_scikit_learn_also_with_ties(digits: int) -> None:
    confidence, right = confident_answers(*drawn())
    confidence = confidence.round(digits)
    bins = calibration_bins(confidence, right, 10)
    accuracy, mean = calibration_curve(right, confidence, n_bins=10, strategy="quantile")
    assert [b.accuracy for b in bins] == pytest.approx(accuracy)
    assert [b.confidence for b in bins] == pytest.approx(mean)
    assert sum(b.count for b in bins) == 4000
    assert all(b.low - 1e-9 <= b.confidence <= b.high + 1e-9 for b in bins)


def test_the_error_is_the_mean_distance_by_answers() -> None:
    confidence = np.array([0.6, 0.6, 0.6, 0.9, 0.9, 0.9])
    right = np.array([1, 0, 0, 1, 1, 1])
    assert error_of_bins(calibration_bins(confidence, right, 2)) == pytest.approx((abs(0.6 - 1 / 3) + 0.1) / 2)
    assert METRICS["calibration_error"].function(np.eye(2)[[0, 0]], np.array([0, 1])) == pytest.approx(0.5)


def test_the_correction_takes_much_of_what_a_small_sample_adds_to_an_error_of_zero() -> None:
    plain, corrected, covers = [], [], []
    for seed in range(40):
        confidence, right = confident_answers(*drawn(300, seed=seed))
        found = measure_calibration(confidence, right, resamples=200)
        plain.append(error_of_bins(found.bins))
        corrected.append(found.value)
        covers.append(found.low == 0)
        assert found.low <= found.value <= found.high
    assert np.mean(corrected) < 0.7 * np.mean(plain)
    assert np.mean(covers) >= 0.9


def test_the_interval_holds_a_known_error() -> None:
    held = 0
    for seed in range(40):
        generator = np.random.default_rng(seed)
        confidence = generator.uniform(0.6, 1.0, 1500)
        right = generator.random(1500) < confidence - 0.1
        found = measure_calibration(confidence, right, resamples=200)
        held += 0 < found.low <= 0.1 <= found.high
    assert held >= 34


def test_labels_are_resampled_by_sample_and_answered_by_their_likelier_value() -> None:
    probabilities, targets = np.array([[0.9, 0.2], [0.4, 0.5]]), np.array([[1, 1], [0, 1]], np.uint8)
    confidence, right = confident_answers(probabilities, targets)
    assert confidence.tolist() == [[0.9, 0.8], [0.6, 0.5]]
    assert right.tolist() == [[True, False], [True, True]]
    # all labels of a sample alike: as many independent answers as samples, so the interval is that of one label
    one = (np.repeat([0.9, 0.6], 100)[:, None], np.arange(200)[:, None] % 3 > 0)
    single = measure_calibration(*one, bins=2)
    several = measure_calibration(*(np.repeat(part, 5, axis=1) for part in one), bins=2)
    assert (several.low, several.high) == pytest.approx((single.low, single.high))


def test_brier_is_scikit_learns() -> None:
    probabilities, labels = drawn(500)
    expected = brier_score_loss(labels, probabilities, labels=range(5), scale_by_half=False)
    assert brier_score(probabilities, labels) == pytest.approx(expected)
    targets = (np.random.default_rng(0).random((500, 5)) < probabilities).astype(np.uint8)
    columns = [brier_score_loss(targets[:, i], probabilities[:, i]) for i in range(5)]
    assert brier_score(probabilities, targets) == pytest.approx(np.mean(columns))
