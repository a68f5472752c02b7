"""Temperatures of masks: the sample of pixels, the evidence by images, and the truth of all counted pixels."""

from __future__ import annotations

import numpy as np
import pytest

from ripieno.tasks import pixels
from ripieno.tasks.calibration import apply_temperature, calibrate_member, fit_temperature
from ripieno.tasks.pixel_calibration import calibrate_pixels, sample_pixels
from ripieno.tasks.pixels import FLOOR, pixel_likelihood
from ripieno.tasks.registry import TASKS
from ripieno.types import IGNORED
from tests.pixel_members import make_masks, predict_masks

KIND = TASKS["segmentation"]
MASKS = make_masks(30)
PREDICTIONS = predict_masks(MASKS, 1)[0].astype(np.float16)  # of 2.5 times too small logarithms


def test_a_sample_holds_as_many_counted_pixels_of_each_image() -> None:
    masks = MASKS.copy()
    masks[4] = IGNORED
    sample = sample_pixels(masks, 300)
    assert sample.images.tolist() == [10 * (i != 4) for i in range(30)]
    assert np.array_equal(sample.classes, masks.reshape(-1)[sample.places])
    assert sample.classes.max() < IGNORED
    assert np.array_equal(np.bincount(sample.places // 48, minlength=30), sample.images)
    assert np.array_equal(sample.read(PREDICTIONS), PREDICTIONS.reshape(-1, 3)[sample.places])
    assert len(sample_pixels(masks).places) == (masks != IGNORED).sum()
    assert sample_pixels(masks, 1).images.sum() == 29
    impossible = np.zeros_like(PREDICTIONS)
    assert sample.read(impossible).min() == FLOOR


def test_the_temperature_is_that_of_the_sample_and_the_truth_that_of_all_pixels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pixels, "BLOCK", 4 * 48 * 3)
    sample = sample_pixels(MASKS, 600)
    temperature, rows, drawn = calibrate_pixels(PREDICTIONS, MASKS, sample, KIND)
    assert drawn is not None
    assert temperature == fit_temperature(drawn, sample.classes, kind=KIND) == pytest.approx(0.5, rel=0.3)
    assert rows.truth.dtype == np.float16
    exact = pixel_likelihood(apply_temperature(PREDICTIONS, temperature, KIND), MASKS)
    np.testing.assert_array_equal(rows.truth, exact.astype(np.float16))


def test_pixels_of_an_image_are_no_independent_evidence() -> None:
    """Copies of the pixels of few images make no temperature more certain."""
    sample = sample_pixels(MASKS[:4])
    few = sample.read(PREDICTIONS[:4])
    assert calibrate_member(few, sample.classes, KIND).temperature < 0.8
    assert calibrate_member(few, sample.classes, KIND, sample.images).temperature == 1.0, "fewer images than folds"
    sharp = predict_masks(MASKS, 1, 3)[0]
    sharp = apply_temperature(sharp, 0.36, KIND)  # nearly right: a gain here and a loss there
    found = []
    for copies in (1, 40):
        sample = sample_pixels(np.repeat(MASKS, copies, axis=2))
        own = sample.read(np.repeat(sharp, copies, axis=2))
        found.append(calibrate_member(own, sample.classes, KIND, sample.images).temperature == 1.0)
    assert found[0] == found[1]


def test_what_is_impossible_in_half_precision_is_served_as_it_is_scored() -> None:
    stored = np.array([[0.999, 0.001, 0.0]], np.float16)
    served = np.array([[0.999, 0.001, 1e-12]], np.float32)
    for temperature in (0.5, 2.0):
        scored = apply_temperature(stored, temperature, KIND)
        np.testing.assert_allclose(apply_temperature(served, temperature, KIND), scored, rtol=2e-3)
