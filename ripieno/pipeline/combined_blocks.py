"""Stored predictions of an ensemble's members -> what it predicts, as served, in blocks of samples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.library import Library
from ripieno.tasks.calibration import calibrated_members, combine_members
from ripieno.tasks.pixels import sample_blocks
from ripieno.tasks.registry import kind_of
from ripieno.types import Ensemble, Float32s, Ints, Split


@dataclass(frozen=True, eq=False)
class CombinedBlock:
    """Predictions of some samples, as served, and their targets."""

    members: NDArray[Any]
    """(members, samples, *output), each at its temperature"""
    combined: Float32s
    """(samples, *output)"""
    targets: NDArray[Any]


def combined_blocks(
    library: Library, ensemble: Ensemble, split: Split = "valid", rows: Ints | None = None
) -> Iterator[CombinedBlock]:
    """Yield blocks of the samples `rows` of `split`, by default of all, in this order."""
    kind = kind_of(library.member(ensemble.members[0]).task)
    predictions = [library.predictions(m, split) for m in ensemble.members]
    targets = library.targets(split)
    count = len(targets) if rows is None else len(rows)
    for block in sample_blocks(count, len(predictions) * math.prod(predictions[0].shape[1:])):
        own = block if rows is None else rows[block]
        members = calibrated_members([p[own] for p in predictions], ensemble, kind)
        yield CombinedBlock(members, combine_members(members, ensemble, kind), np.asarray(targets[own]))
