"""Predictions of an ensemble in blocks: those that it serves, of the samples asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ripieno.library import Library
from ripieno.pipeline.combined_blocks import combined_blocks
from ripieno.tasks import pixels
from ripieno.tasks.calibration import apply_temperature, combine_calibrated
from ripieno.types import Ensemble
from tests.pixel_members import fill_library

ENSEMBLE = Ensemble(
    "B", ("m2", "m0"), (0.25, 0.75), "greedy", {}, {}, {}, "weighted", temperatures=(1.0, 2.0), temperature=1.5
)


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    """Return a library whose predictions by two members are read five samples at a time."""
    monkeypatch.setattr(pixels, "BLOCK", 5 * 2 * 6 * 8 * 3)
    return fill_library(tmp_path)


def test_blocks_hold_what_is_served_of_all_samples(library: Library) -> None:
    blocks = list(combined_blocks(library, ENSEMBLE, "test"))
    tables = [np.asarray(library.predictions(m, "test")) for m in ENSEMBLE.members]
    assert [len(block.targets) for block in blocks] == [5, 3]
    assert np.array_equal(np.concatenate([b.combined for b in blocks]), combine_calibrated(tables, ENSEMBLE))
    assert np.array_equal(np.concatenate([b.targets for b in blocks]), library.targets("test"))
    assert np.array_equal(blocks[0].members[1], apply_temperature(tables[1][:5], 2.0))


def test_blocks_hold_chosen_samples_in_their_order(library: Library) -> None:
    rows = np.array([11, 0, 7, 3, 4, 5, 1])
    blocks = list(combined_blocks(library, ENSEMBLE, rows=rows))
    tables = [library.predictions(m)[rows] for m in ENSEMBLE.members]
    assert [block.members.shape[1] for block in blocks] == [5, 2]
    assert np.array_equal(np.concatenate([b.combined for b in blocks]), combine_calibrated(tables, ENSEMBLE))
    assert np.array_equal(np.concatenate([b.targets for b in blocks]), library.targets()[rows])
