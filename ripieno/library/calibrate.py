"""Temperatures of members, fitted to their validation predictions on demand and kept."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from ripieno.library.library import Library
from ripieno.tasks.calibration import CalibratedRows, MemberCalibration, calibrate_member
from ripieno.tasks.registry import kind_of
from ripieno.types import ProgressFunction


def calibrate(library: Library, members: Sequence[str], progress: ProgressFunction) -> list[MemberCalibration]:
    """Return the calibration of each of `members`; fit and keep those that the library lacks.

    In a folder that is not writable, fitted ones are returned only.
    """
    kept = {member: library.calibration(member) for member in members}
    lacking = [member for member, calibration in kept.items() if calibration is None]
    labels = library.targets() if lacking else None
    for done, member in enumerate(lacking):
        progress("calibrating members", done, len(lacking))
        assert labels is not None
        activation = kind_of(library.member(member).task).activation
        temperature, rows = calibrate_member(library.predictions(member), labels, activation)
        # as they are kept, so that a later selection sees the same numbers
        single = MemberCalibration(temperature, CalibratedRows(*(row.astype(np.float32) for row in rows)))
        kept[member] = single
        if os.access(library.member_path(member), os.W_OK):
            library.write_calibration(member, single)
    if lacking:
        progress("calibrating members", len(lacking), len(lacking))
    return [calibration for calibration in kept.values() if calibration is not None]
