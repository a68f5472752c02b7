"""Temperatures: the form, the prior, the evidence, and the refit without a fold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ripieno.tasks.calibration import (
    apply_temperature,
    calibrate_member,
    calibrated_rows,
    fit_temperature,
    without_fold,
)
from ripieno.tasks.evidence import fold_masks
from ripieno.tasks.metrics import binary_cross_entropy, cross_entropy, true_labels
from ripieno.tasks.registry import TASKS

LABELS = TASKS["multilabel"]


def predictions(sharpness: float, samples: int = 2000, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return probabilities with the logarithms of the true ones times `sharpness`, and labels drawn from the true."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (samples, 4))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(4, p=row) for row in true])
    stated = np.exp(sharpness * logits)
    return (stated / stated.sum(axis=1, keepdims=True)).astype(np.float32), labels


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 2.0])
def test_a_temperature_undoes_a_factor_of_the_logits(sharpness: float) -> None:
    probabilities, labels = predictions(sharpness)
    assert fit_temperature(probabilities, labels, np.inf) == pytest.approx(sharpness, rel=0.1)


def labelled(sharpness: Any, samples: int = 1500, labels: int = 3) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return probabilities of labels with the true logits times `sharpness`, and labels drawn from the true ones."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (samples, labels))
    targets = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.uint8)
    return (1 / (1 + np.exp(-logits * sharpness))).astype(np.float32), targets


@pytest.mark.parametrize("sharpness", [0.5, 2.0])
def test_labels_have_one_temperature_that_undoes_a_factor_of_their_logits(sharpness: float) -> None:
    probabilities, targets = labelled(sharpness)
    temperature = fit_temperature(probabilities, targets, np.inf, LABELS)
    assert temperature == pytest.approx(sharpness, rel=0.1)
    calibrated = apply_temperature(probabilities, temperature, LABELS)
    odds = (probabilities.astype(np.float64) / (1 - probabilities.astype(np.float64))) ** (1 / temperature)
    np.testing.assert_allclose(calibrated, odds / (1 + odds), rtol=1e-5)
    assert calibrated.dtype == np.float32
    assert binary_cross_entropy(calibrated, targets) < binary_cross_entropy(probabilities, targets) - 0.01


@pytest.mark.parametrize("temperature", [0.05, 1.5, 20.0])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_certain_labels_stay_finite_and_the_absence_of_one_mirrors_its_presence(
    temperature: float, dtype: type[np.floating[Any]]
) -> None:
    sure = np.array([[0.0, 1.0, 0.5, 2.0**-30, 0.25, 0.75]], dtype)
    heated = apply_temperature(sure, temperature, LABELS)
    assert heated.dtype == (np.float64 if dtype == np.float64 else np.float32)
    assert ((heated >= 0) & (heated <= 1)).all()
    np.testing.assert_allclose(heated, 1 - apply_temperature(1 - sure, temperature, LABELS), atol=1e-6)
    assert heated[0, 2] == 0.5


def test_labels_keep_a_temperature_only_with_evidence_by_samples() -> None:
    calibrated = calibrate_member(*labelled(2.0), LABELS)
    assert calibrated.temperature == pytest.approx(2.0, rel=0.1)
    assert calibrated.rows.truth.shape == (1500, 3)
    probabilities, targets = labelled(1.0)
    plain = calibrate_member(probabilities, targets, LABELS)
    assert plain.temperature == 1.0
    np.testing.assert_array_equal(plain.rows.truth, true_labels(probabilities, targets))
    # a label that is repeated is no new evidence: with few samples it decides nothing
    few, held = labelled(1.35, 40, 1)
    alone = calibrate_member(few, held, LABELS).temperature
    repeated = calibrate_member(np.repeat(few, 50, axis=1), np.repeat(held, 50, axis=1), LABELS).temperature
    assert (alone == 1.0) == (repeated == 1.0)


def test_rows_of_labels_are_moved_to_the_temperature_without_a_fold() -> None:
    probabilities, targets = labelled(1.5)
    temperature = fit_temperature(probabilities, targets, kind=LABELS)
    rows = calibrated_rows(probabilities, targets, temperature, LABELS)
    for held in fold_masks(len(targets), 5):
        fitted, truth = without_fold(rows, temperature, held)
        again = fit_temperature(probabilities[~held], targets[~held], kind=LABELS)
        assert fitted == pytest.approx(again, rel=2e-3)
        exact = true_labels(apply_temperature(probabilities, again, LABELS), targets)
        np.testing.assert_allclose(truth, exact, rtol=5e-3)


def test_the_form_is_a_power_divided_by_its_sum() -> None:
    probabilities = predictions(1.0, 50)[0].astype(np.float64)
    powers = probabilities ** (1 / 1.7)
    np.testing.assert_allclose(
        apply_temperature(probabilities, 1.7), powers / powers.sum(axis=1, keepdims=True), rtol=1e-12
    )
    assert apply_temperature(probabilities, 1.0) is probabilities


@pytest.mark.parametrize("temperature", [0.05, 20.0])
def test_certain_and_impossible_classes_stay_finite(temperature: float) -> None:
    sure: NDArray[np.float32] = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]], np.float32)
    heated = apply_temperature(sure, temperature)
    assert np.isfinite(heated).all()
    np.testing.assert_allclose(heated.sum(axis=1), 1.0, rtol=1e-6)


def test_the_prior_keeps_a_few_samples_that_are_all_right_from_making_a_network_certain() -> None:
    probabilities: NDArray[np.float32] = np.full((20, 2), [0.9, 0.1], np.float32)
    labels = np.zeros(20, np.int64)
    assert fit_temperature(probabilities, labels, np.inf) < 0.2
    assert 0.8 < fit_temperature(probabilities, labels) < 1.0


def test_a_member_keeps_a_temperature_only_with_evidence() -> None:
    assert calibrate_member(*predictions(2.0)).temperature == pytest.approx(2.0, rel=0.1)
    calibrated = calibrate_member(*predictions(1.0))
    assert calibrated.temperature == 1.0
    probabilities, labels = predictions(1.0)
    np.testing.assert_array_equal(calibrated.rows.truth, probabilities[np.arange(len(labels)), labels])


def test_without_a_fold_temperature_and_probabilities_are_those_of_a_new_fit() -> None:
    probabilities, labels = predictions(1.5)
    temperature = fit_temperature(probabilities, labels)
    for held in fold_masks(len(labels), 5):
        fitted, truth = without_fold(calibrated_rows(probabilities, labels, temperature), temperature, held)
        again = fit_temperature(probabilities[~held], labels[~held])
        assert fitted == pytest.approx(again, rel=2e-3)
        exact = apply_temperature(probabilities, again)[np.arange(len(labels)), labels]
        np.testing.assert_allclose(truth, exact, rtol=5e-3)
        assert cross_entropy(truth) == pytest.approx(cross_entropy(exact), abs=1e-4)


def test_folds_are_a_partition_into_equal_parts() -> None:
    masks = np.stack(fold_masks(103, 5))
    assert (masks.sum(axis=0) == 1).all()
    assert set(masks.sum(axis=1)) <= {20, 21}
