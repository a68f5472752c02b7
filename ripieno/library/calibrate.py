"""Temperatures of members, fitted to their validation predictions on demand and kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.library.library import Library
from ripieno.tasks.calibration import CalibratedRows, MemberCalibration, calibrate_member
from ripieno.tasks.pixel_calibration import calibrate_pixels, sample_pixels
from ripieno.tasks.registry import kind_of
from ripieno.types import ProgressFunction


def calibrate(library: Library, members: Sequence[str], progress: ProgressFunction) -> list[MemberCalibration]:
    """Return the calibration of each of `members`; fit and keep those that the library lacks.

    In a folder that is not writable, fitted ones are returned only.
    """
    kept = {member: library.calibration(member) for member in members}
    lacking = [member for member, calibration in kept.items() if calibration is None]
    fit = _fit(library, lacking[0]) if lacking else None
    for done, member in enumerate(lacking):
        progress("calibrating members", done, len(lacking))
        assert fit is not None
        kept[member] = fitted = fit(library.predictions(member))
        if os.access(library.member_path(member), os.W_OK):
            library.write_calibration(member, fitted)
    if lacking:
        progress("calibrating members", len(lacking), len(lacking))
    return [calibration for calibration in kept.values() if calibration is not None]


def _fit(library: Library, member: str) -> Callable[[NDArray[Any]], MemberCalibration]:
    """Return what fits the temperature of predictions; `member` is one of the library."""
    kind, targets = kind_of(library.member(member).task), library.targets()
    if kind.is_pixelwise:
        sample = sample_pixels(targets)
        return lambda predictions: calibrate_pixels(predictions, targets, sample, kind)

    def fit(predictions: NDArray[Any]) -> MemberCalibration:
        temperature, rows, _ = calibrate_member(predictions, targets, kind)
        # as they are kept, so that a later selection sees the same numbers
        return MemberCalibration(temperature, CalibratedRows(*(row.astype(np.float32) for row in rows)))

    return fit
