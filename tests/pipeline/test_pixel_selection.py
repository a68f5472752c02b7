"""Selection from a library of segmentations: figures of all pixels, in blocks, and samples of pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ripieno
from ripieno.errors import SelectionError
from ripieno.pipeline import selection
from ripieno.tasks import pixels
from ripieno.tasks.calibration import combine_calibrated
from ripieno.tasks.pixel_calibration import calibrate_pixels, pixel_calibration, sample_pixels
from ripieno.tasks.registry import kind_of
from ripieno.types import IGNORED
from tests.pixel_members import TASK, fill_library, make_masks

KIND = kind_of(TASK)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ripieno.Library:
    """Return a run whose predictions are read two samples at a time."""
    library = fill_library(tmp_path)
    monkeypatch.setattr(pixels, "BLOCK", 2 * 6 * 8 * 3)
    return library


def select(run: ripieno.Library, notes: list[str] | None = None, **options: Any) -> ripieno.Ensemble:
    return ripieno.select(run, {"price": 4}, prune=1.0, notes=notes, **options)[0]


def test_the_figures_of_an_ensemble_are_those_of_all_pixels_on_both_splits(run: ripieno.Library) -> None:
    ensemble = select(run)
    assert len(ensemble.members) > 1
    assert ensemble.cost["price"] <= 4
    for split in ("valid", "test"):
        own = [np.asarray(run.predictions(m, split)) for m in ensemble.members]
        whole = KIND.losses(combine_calibrated(own, ensemble, KIND), np.asarray(run.targets(split)), TASK, split)
        assert {k: v for k, v in ensemble.losses.items() if k.startswith(split)} == pytest.approx(whole, rel=1e-9)
    assert ensemble.losses["valid_cross_entropy"] < min(m.loss for m in run.members())
    assert ensemble.expected_loss == pytest.approx(ensemble.losses["valid_cross_entropy"], rel=0.2)


def test_temperatures_of_masks_are_kept_in_the_run_and_selected_with(run: ripieno.Library) -> None:
    ensemble = select(run)
    assert ensemble.calibration == "members"
    plain = select(run, calibrate="none")
    assert (plain.calibration, plain.temperatures) == ("none", ())
    assert ensemble.losses["valid_cross_entropy"] < plain.losses["valid_cross_entropy"] - 0.01
    sample, targets = sample_pixels(run.targets()), run.targets()
    for member, temperature in zip(ensemble.members, ensemble.temperatures, strict=True):
        fitted, kept = calibrate_pixels(run.predictions(member), targets, sample, KIND), run.calibration(member)
        assert kept is not None
        assert kept.temperature == fitted.temperature == temperature == run.member(member).temperature
        np.testing.assert_array_equal(kept.rows.truth, fitted.rows.truth)
        np.testing.assert_array_equal(kept.sample, fitted.sample)
        assert ((run.member_path(member) / "calibrated.npy").exists()) == (temperature != 1)
    assert any(t != 1 for t in ensemble.temperatures)
    assert select(run) == ensemble
    first = ensemble.members[0]
    run.write_predictions(first, "valid", run.predictions(first)[::-1], targets)
    assert run.calibration(first) is None
    assert not (run.member_path(first) / "pixels.npy").exists()


def test_a_member_without_evidence_keeps_no_second_truth(run: ripieno.Library) -> None:
    first = run.ids()[0]
    calibration = calibrate_pixels(run.predictions(first), run.targets(), sample_pixels(run.targets()), KIND)
    assert calibration.sample is not None
    plain = pixel_calibration(1.0, run.true_class_mapped([first])[0], calibration.sample)
    run.write_calibration(first, plain)
    assert not (run.member_path(first) / "calibrated.npy").exists()
    kept = run.calibration(first)
    assert kept is not None
    assert kept.temperature == 1.0
    np.testing.assert_array_equal(kept.rows.truth, plain.rows.truth)
    run.write_calibration(first, calibration)
    (run.member_path(first) / "calibrated.npy").unlink()
    assert run.calibration(first) is None, "the truth at the temperature is missing"


@pytest.mark.parametrize("loss", ["mean-iou", "mean-dice", "pixel-accuracy"])
def test_a_score_can_be_selected_by(run: ripieno.Library, loss: Any) -> None:
    ensemble = select(run, loss=loss)
    assert ensemble.name == f"B-price4-{loss}"
    key = f"valid_{loss.replace('-', '_')}"
    assert ensemble.losses[key] >= select(run).losses[key] - 1e-6


def test_votes_are_counted_by_pixel(run: ripieno.Library) -> None:
    ensemble = select(run, combiner="vote")
    own = [np.asarray(run.predictions(m)) for m in ensemble.members]
    combined = KIND.combine(np.stack(own), ensemble.weights, "vote")
    assert ensemble.combiner == "vote"
    assert ensemble.losses["valid_pixel_accuracy"] == pytest.approx(
        (combined.argmax(axis=-1) == run.targets())[run.targets() != IGNORED].mean()
    )


def test_a_sample_of_pixels_has_a_name_and_its_loss_is_told_beside_that_of_all(run: ripieno.Library) -> None:
    notes: list[str] = []
    ensemble = select(run, notes, pixels=6)
    assert ensemble.name == "B-price4-pixels6"
    (note,) = notes
    shown = f"selected by 6 pixels of each image: cross-entropy of {ensemble.name} is "
    assert note.startswith(f"{shown}{ensemble.losses['valid_cross_entropy']:.4f} on all pixels and ")
    assert note.endswith(" on these")
    assert f"{ensemble.losses['valid_cross_entropy']:.4f} on these" not in note
    notes = []
    ripieno.select(run, [{"price": 1}, {"price": 4}], prune=1.0, pixels=6, notes=notes)
    assert "the largest difference of 2 ensembles" in notes[0]
    notes = []
    ripieno.front(run, cost="price", prune=1.0, points=4, pixels=6, notes=notes)
    assert notes[-1].startswith("selected by 6 pixels of each image: cross-entropy of front-0")


def test_pixels_of_other_tasks_and_no_pixels_are_refused_before_anything_is_read(
    run: ripieno.Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "_candidates", None)
    with pytest.raises(SelectionError, match="pixels 0 is invalid"):
        select(run, pixels=0)


def test_a_class_that_no_validation_mask_holds_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = make_masks(12)
    monkeypatch.setattr("tests.pixel_members.make_masks", lambda *_: np.where(masks == 2, 1, masks).astype(np.uint8))
    notes: list[str] = []
    select(fill_library(tmp_path / "run", test=0), notes)
    assert "no validation sample is of class tree: the figures do not cover it" in notes
