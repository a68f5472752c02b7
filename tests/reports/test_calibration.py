"""Reliability, calibration error and temperature against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from ripieno.reports.calibration import apply_temperature, calibration_error, reliability, temperature
from ripieno.tasks.metrics import cross_entropy
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


@pytest.mark.parametrize("factor", [0.3, 1.0, 3.0])
def test_the_temperature_undoes_a_heating(factor: float) -> None:
    probabilities, labels = drawn()
    too_sure = apply_temperature(probabilities, 1 / factor)
    assert temperature(too_sure, labels) == pytest.approx(factor, rel=0.1)


def test_the_temperature_lowers_the_cross_entropy_it_was_fitted_on() -> None:
    probabilities, labels = drawn()
    too_sure = apply_temperature(probabilities, 0.4)
    found = temperature(too_sure, labels)
    assert cross_entropy(apply_temperature(too_sure, found), labels) < cross_entropy(too_sure, labels)


def test_heating_keeps_the_answer_and_sums_to_one() -> None:
    probabilities, _ = drawn()
    hot = apply_temperature(probabilities, 2.0)
    assert np.allclose(hot.sum(axis=1), 1)
    assert (hot.argmax(axis=1) == probabilities.argmax(axis=1)).all()


def test_probabilities_of_zero_do_no_harm() -> None:
    sure = np.eye(3)[[0, 1, 2, 0]]
    assert np.isfinite(temperature(sure, np.array([0, 1, 2, 1])))
