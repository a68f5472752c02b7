"""Reliability and calibration error against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from ripieno.reports.calibration import calibration_error, reliability
from tests.reports.made_run import softmax


def drawn(samples: int = 4000, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities, and labels drawn from them."""
    rng = np.random.default_rng(3)
    probabilities = softmax(rng.normal(0, 1.5, (samples, classes)))
    labels = (probabilities.cumsum(axis=1) > rng.random((samples, 1))).argmax(axis=1)
    return probabilities, labels


def test_bins_hold_every_sample_once() -> None:
    probabilities, labels = drawn()
    bins = reliability(probabilities, labels)
    assert sum(b.count for b in bins) == len(labels)
    hits = sum(b.count * b.accuracy for b in bins)
    assert hits == pytest.approx((probabilities.argmax(axis=1) == labels).sum())


def test_a_confidence_of_one_is_in_the_last_bin() -> None:
    bins = reliability(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([0, 1]))
    assert bins[-1].count == 1
    assert bins[5].count == 1


def test_true_probabilities_have_almost_no_calibration_error() -> None:
    assert calibration_error(reliability(*drawn())) < 0.02


def test_one_sure_mistake_in_two_is_an_error_of_a_half() -> None:
    bins = reliability(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1]))
    assert calibration_error(bins) == pytest.approx(0.5)
