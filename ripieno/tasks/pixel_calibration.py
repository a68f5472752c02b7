"""Temperatures of predictions of masks, fitted to a sample of pixels, so that no split is in memory.

A network of masks has one temperature. It is fitted to the same pixels of the same images for all members: about
`SAMPLED` counted pixels, evenly many of each image. `predictions` are (samples, height, width, classes) and may be
memory-mapped; `masks` are (samples, height, width).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ripieno.tasks.calibration import CalibratedRows, MemberCalibration, apply_temperature, calibrate_member
from ripieno.tasks.pixels import FLOOR, pixel_likelihood, prediction_blocks, sample_rows
from ripieno.tasks.task_kind import TaskKind
from ripieno.types import IGNORED, Ints

SAMPLED = 1 << 16
"""Number of pixels of all images that a temperature is fitted to, where there are more."""


class PixelSample(NamedTuple):
    """Counted pixels of all images, drawn at random, always the same ones, in their order."""

    places: Ints
    """(pixels,), of each among all pixels of all images"""
    classes: Ints
    """(pixels,), the true one of each"""
    images: Ints
    """(images,), the number of pixels of each image"""

    def read(self, predictions: NDArray[Any]) -> NDArray[Any]:
        """Return the predictions (pixels, classes) of the pixels, at least `FLOOR`."""
        flat = predictions.reshape(-1, predictions.shape[-1])
        return np.asarray(np.maximum(flat[self.places], flat.dtype.type(FLOOR)))


def sample_pixels(masks: NDArray[Any], most: int | None = None) -> PixelSample:
    """Draw at most `most` counted pixels of `masks`, by default `SAMPLED`, but one of each image that has any."""
    most = SAMPLED if most is None else most
    counted = np.array([np.count_nonzero(mask != IGNORED) for mask in masks], np.int64)
    rows, images = sample_rows(counted, max(1, most // len(masks)))
    chosen = np.split(np.arange(counted.sum()) if rows is None else rows, np.cumsum(images)[:-1])
    starts = np.cumsum(counted) - counted
    places = [
        number * mask.size + np.flatnonzero(mask.reshape(-1) != IGNORED)[own - start]
        for number, (mask, own, start) in enumerate(zip(masks, chosen, starts, strict=True))
    ]
    found = np.concatenate(places)
    return PixelSample(found, masks.reshape(-1)[found].astype(np.int64), images)


def calibrate_pixels(
    predictions: NDArray[Any], masks: NDArray[Any], sample: PixelSample, kind: TaskKind
) -> MemberCalibration:
    """Fit the temperature of a member to the `sample` of the pixels; return with it the truth of all counted pixels."""
    drawn = sample.read(predictions)
    temperature = calibrate_member(drawn, sample.classes, kind, sample.images).temperature
    rows = [
        pixel_likelihood(apply_temperature(predictions[block], temperature, kind), masks[block])
        for block in prediction_blocks(predictions)
    ]
    return pixel_calibration(temperature, np.concatenate(rows).astype(predictions.dtype), drawn)


def pixel_calibration(temperature: float, truth: NDArray[Any], sample: NDArray[Any]) -> MemberCalibration:
    """Return a calibration from its parts: `truth` (counted pixels,) is at the temperature, `sample` is not."""
    unknown = np.empty(0, truth.dtype)
    return MemberCalibration(temperature, CalibratedRows(truth, unknown, unknown), sample)
