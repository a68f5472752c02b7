"""Class priors are estimated from unlabelled predictions, and kept near those of training where nothing has changed."""

from __future__ import annotations

import numpy as np
import pytest

from ripieno.errors import SelectionError
from ripieno.tasks.label_shift import correct_prior, estimate_prior, reweigh

NORMAL = np.array([[0.0, 0.0], [1.5, 0.0], [0.0, 1.5]])
"""Means of three classes, of unit variance."""


def posteriors(shares: list[float], count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the probabilities of a perfect classifier for equal shares, of samples with other `shares`, and labels."""
    dice = np.random.default_rng(seed)
    labels = dice.choice(3, count, p=shares)
    points = NORMAL[labels] + dice.normal(size=(count, 2))
    densities = np.exp(-((points[:, None] - NORMAL) ** 2).sum(axis=2) / 2)
    return densities / densities.sum(axis=1, keepdims=True), labels


def test_the_shares_of_classes_are_found_without_labels() -> None:
    shares = [0.7, 0.25, 0.05]
    probabilities, _ = posteriors(shares, 20_000)
    assert np.abs(probabilities.mean(axis=0) - shares).max() > 0.1, "the mean of predictions is no estimate"
    np.testing.assert_allclose(estimate_prior(probabilities, np.ones(3) / 3), shares, atol=0.02)


def test_corrected_predictions_are_right_more_often() -> None:
    probabilities, labels = posteriors([0.9, 0.08, 0.02], 2_000)
    corrected, correction = correct_prior(probabilities)
    before, after = ((p.argmax(axis=1) != labels).mean() for p in (probabilities, corrected))
    assert after < before - 0.05
    assert corrected.dtype == np.float32
    np.testing.assert_allclose(corrected.sum(axis=1), 1, atol=1e-5)
    assert (correction.answers, correction.known) == (2_000, False)
    np.testing.assert_array_equal(correction.apply(probabilities), corrected)


def test_pseudo_counts_keep_a_few_samples_near_the_shares_of_training() -> None:
    probabilities, _ = posteriors([1 / 3] * 3, 12, seed=3)
    equal = np.ones(3) / 3
    free, held = estimate_prior(probabilities, equal), estimate_prior(probabilities, equal, 12)
    assert np.abs(held - equal).max() < 0.5 * np.abs(free - equal).max()


def test_the_known_shares_of_training_are_divided_out() -> None:
    trained, present = [0.5, 0.3, 0.2], [0.1, 0.3, 0.6]
    equal, _ = posteriors(present, 20_000)
    probabilities = reweigh(equal, [1, 1, 1], trained)  # of a classifier that was trained on other shares
    np.testing.assert_allclose(estimate_prior(probabilities, trained), present, atol=0.02)
    _, correction = correct_prior(probabilities, trained)
    assert correction.known
    np.testing.assert_allclose(reweigh(probabilities, trained, [1, 1, 1]), equal, atol=1e-6)


def test_a_class_that_was_never_seen_stays_possible() -> None:
    corrected, correction = correct_prior(np.array([[0.5, 0.5, 0.0], [0.2, 0.8, 0.0]]), [0.5, 0.5, 0.0])
    assert np.isfinite(corrected).all()
    assert correction.estimated.min() > 0


@pytest.mark.parametrize(
    ("probabilities", "trained", "pseudo", "message"),
    [
        (np.ones((2, 3)) / 3, [0.5, 0.5], 0, r"shape \(2, 3\), expected \(samples, 2\)"),
        (np.ones((0, 2)), [0.5, 0.5], 0, "with a sample"),
        (np.ones((2, 2)) / 2, [0.5, -0.5], 0, "shares of classes are invalid"),
        (np.ones((2, 2)) / 2, [0.5, 0.5], -1, "pseudo_counts -1 is invalid"),
    ],
)
def test_other_arrays_are_refused(probabilities: np.ndarray, trained: list[float], pseudo: float, message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        estimate_prior(probabilities, trained, pseudo)
