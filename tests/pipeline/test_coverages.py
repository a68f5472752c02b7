"""Coverage and abstention of ensembles on disk: fitted alone and by select, kept samples, notes, bad input."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import ripieno
from ripieno import pipeline
from ripieno.errors import LibraryError, SelectionError
from ripieno.pipeline.coverages import CoverageOptions, held_out_rows
from ripieno.tasks.calibration import combine_calibrated
from ripieno.tasks.conformal import fit_coverage, interval, prediction_set, share_held
from ripieno.tasks.registry import kind_of
from ripieno.types import IGNORED, Ensemble

SAMPLES, MEMBERS = 600, 4
NAMES: Mapping[str, tuple[str, ...]] = {
    "classification": ("cat", "dog", "eel", "fly"),
    "multilabel": ("cat", "dog", "eel"),
    "regression": ("price", "area"),
    "segmentation": ("sky", "road", "car"),
}


def predictions_of(kind: str, seed: int, samples: int = SAMPLES) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
    """Predictions of members, too certain where they are probabilities, and targets."""
    rng = np.random.default_rng(seed)
    classes = len(NAMES[kind])
    targets: NDArray[Any]
    if kind == "classification":
        targets = rng.integers(0, classes, samples)
        logits = rng.normal(size=(samples, classes)) + 1.5 * np.eye(classes)[targets]
        found = np.exp(2 * (logits + 0.7 * rng.normal(size=(MEMBERS, samples, classes))))
        found /= found.sum(axis=-1, keepdims=True)
    elif kind == "multilabel":
        targets = (rng.random((samples, classes)) < (0.2, 0.5, 0.7)).astype(np.uint8)
        found = 1 / (1 + np.exp(1.8 - 3.0 * targets - rng.normal(size=(MEMBERS, samples, classes))))
    elif kind == "segmentation":
        targets = rng.integers(0, classes, (samples, 4, 5)).astype(np.uint8)
        clear = rng.gamma(2.0, 1.0, samples)[:, None, None, None]  # of an image as a whole
        logits = rng.normal(size=(samples, 4, 5, classes)) + clear * np.eye(classes)[targets]
        found = np.exp(logits + 0.5 * rng.normal(size=(MEMBERS, *logits.shape)))
        found /= found.sum(axis=-1, keepdims=True)
        targets[rng.random(targets.shape) < 0.1] = IGNORED
    else:
        noise = rng.gamma(2.0, 1.0, size=(samples, classes))
        targets = (rng.normal(size=(samples, classes)) * (20, 0.1) + (100, 1)).astype(np.float32)
        found = targets + noise * (8, 0.04) * rng.normal(size=(MEMBERS, samples, classes))
    return {f"m{i}": p for i, p in enumerate(found.astype(np.float32))}, targets


def imported(path: Path, kind: str, samples: int = SAMPLES) -> ripieno.Library:
    predictions, targets = predictions_of(kind, 1, samples)
    costs = {name: {"seconds": 1.0} for name in predictions}
    pipeline.import_(path, predictions, targets=targets, classes=NAMES[kind], task=kind, costs=costs)
    return ripieno.Library(path)


@pytest.fixture(params=list(NAMES))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def run(tmp_path: Path, kind: str) -> ripieno.Library:
    return imported(tmp_path / "run", kind)


@pytest.fixture
def classes(tmp_path: Path) -> ripieno.Library:
    return imported(tmp_path / "run", "classification")


def test_the_answers_of_new_samples_hold_the_truth_as_often_as_asked(run: ripieno.Library, kind: str) -> None:
    (ensemble,) = ripieno.select(run, 3, prune=1.0)
    assert (ensemble.coverage, ensemble.abstain) == ((), None)
    notes: list[str] = []
    fitted = ripieno.coverage(run, ensemble.name, coverage=[0.9, 0.8], notes=notes)
    assert run.ensemble(ensemble.name) == fitted
    assert dataclasses.replace(fitted, coverage=()) == ensemble
    assert [(c.level, c.score, c.held_out) for c in fitted.coverage] == [
        (0.9, kind_of(run.member("m0").task).coverage_scores[0], False),
        (0.8, kind_of(run.member("m0").task).coverage_scores[0], False),
    ]
    assert notes == ["coverage fitted to 600 validation samples of the run, by which members were also selected"]
    held, truth = answers(run, fitted, kind)
    for level, share in zip((0.9, 0.8), held, strict=True):
        assert share == pytest.approx(level, abs=0.04)
    assert held[0] > held[1]
    assert len(truth) == 4000


def answers(run: ripieno.Library, ensemble: Ensemble, kind: str) -> tuple[list[float], NDArray[Any]]:
    """Share of new samples whose truth is held, for each coverage; and their targets."""
    found, truth = predictions_of(kind, 2, 4000)
    members = [found[m] for m in ensemble.members]
    combined = combine_calibrated(members, ensemble, kind_of(run.member("m0").task))
    shares = []
    for coverage in ensemble.coverage:
        if kind == "regression":
            spread = np.asarray(members).std(axis=0)  # of equal weights
            low, high = interval(combined, coverage, spread)
            shares.append(float(((low <= truth) & (truth <= high)).mean()))
        else:
            shares.append(float(np.nanmean(share_held(prediction_set(combined, coverage), truth))))
    return shares, truth


def test_the_thresholds_are_those_of_the_predictions_as_served(classes: ripieno.Library) -> None:
    (ensemble,) = ripieno.select(classes, 3, prune=1.0)
    fitted = ripieno.coverage(classes, ensemble, coverage=0.9, score="aps", per_class=True, seed=3)
    combined = combine_calibrated([classes.predictions(m) for m in ensemble.members], ensemble)
    task = classes.member("m0").task
    again = fit_coverage(combined, classes.targets(), task, 0.9, score="aps", per_class=True, seed=3)
    (made,) = fitted.coverage
    assert len(made.thresholds) == 4
    np.testing.assert_allclose(made.thresholds, again.thresholds, rtol=1e-6)


def test_what_is_not_named_is_kept(classes: ripieno.Library) -> None:
    (ensemble,) = ripieno.select(classes, 3, prune=1.0)
    first = ripieno.coverage(classes, ensemble.name, coverage=0.9)
    both = ripieno.coverage(classes, ensemble.name, abstain=0.3)
    assert both.coverage == first.coverage
    assert both.abstain is not None
    assert ripieno.coverage(classes, ensemble.name, coverage=0.8).abstain == both.abstain


def test_answers_above_the_threshold_have_the_error_asked_for(classes: ripieno.Library) -> None:
    (ensemble,) = ripieno.select(classes, 3, prune=1.0)
    rule = ripieno.coverage(classes, ensemble.name, abstain=0.2).abstain
    assert rule is not None
    assert (rule.error, rule.samples, rule.measure, rule.held_out) == (0.2, SAMPLES, "confidence", False)
    found, truth = predictions_of("classification", 2, 4000)
    combined = combine_calibrated([found[m] for m in ensemble.members], ensemble)
    answered = combined.max(axis=1) >= rule.threshold
    wrong = combined.argmax(axis=1) != truth
    assert wrong.mean() > 0.25
    assert wrong[answered].mean() == pytest.approx(0.2, abs=0.04)
    assert answered.mean() == pytest.approx(rule.answered, abs=0.05)


def test_select_fits_the_coverage_with_the_ensemble(run: ripieno.Library, kind: str) -> None:
    notes: list[str] = []
    (plain,) = ripieno.select(run, 3, prune=1.0)
    (ensemble,) = ripieno.select(run, 3, prune=1.0, coverage=0.9, notes=notes)
    assert dataclasses.replace(ensemble, coverage=()) == plain
    assert run.ensemble(ensemble.name).coverage == ensemble.coverage
    assert ripieno.coverage(run, plain, coverage=[0.9]).coverage == ensemble.coverage
    assert any("coverage fitted to 600 validation samples of the run" in note for note in notes)


@pytest.mark.parametrize("kind", [kind for kind in NAMES if kind != "segmentation"])  # an image has many pixels
def test_a_large_library_keeps_samples_from_selection(tmp_path: Path, kind: str) -> None:
    run = imported(tmp_path / "run", kind, samples=150)
    notes: list[str] = []
    (whole,) = ripieno.select(run, 3, prune=1.0, coverage=0.8)
    assert whole.coverage[0].held_out
    run = imported(tmp_path / "same", kind, samples=150)
    (ensemble,) = ripieno.select(run, 3, prune=1.0, coverage=0.8, abstain=None, notes=notes)
    assert ensemble.coverage[0].samples <= 50
    assert any("coverage fitted to 50 validation samples that were kept from selection" in note for note in notes)
    targets, task = run.targets(), run.member("m0").task
    held = held_out_rows(targets, task, MEMBERS, CoverageOptions((0.8,)))
    assert len(held) == 50
    refitted = pipeline.coverages.fit_options(run, ensemble, CoverageOptions((0.8,)), held, held_out=True)
    assert refitted.coverage == ensemble.coverage


def test_the_kept_samples_do_not_choose_the_ensemble(tmp_path: Path) -> None:
    """Members that are right on kept samples only are not chosen."""
    predictions, targets = predictions_of("classification", 5, 150)
    task = imported(tmp_path / "other", "classification").member("m0").task
    held = held_out_rows(targets, task, 5, CoverageOptions((0.8,)))
    lucky = np.where(np.eye(4)[targets] > 0, 0.31, 0.23).astype(np.float32)
    lucky[held] = np.where(np.eye(4)[targets[held]] > 0, 0.997, 0.001)
    predictions["lucky"] = lucky
    costs = {name: {"seconds": 1.0} for name in predictions}
    names = NAMES["classification"]
    pipeline.import_(tmp_path / "run", predictions, targets=targets, classes=names, costs=costs)
    (plain,) = ripieno.select(tmp_path / "run", 1, prune=1.0)
    (ensemble,) = ripieno.select(tmp_path / "run", 1, prune=1.0, coverage=0.8)
    assert plain.members == ("lucky",)
    assert "lucky" not in ensemble.members


def test_the_kept_samples_are_a_third_of_each_class() -> None:
    task = ripieno.types.classification(NAMES["classification"])
    targets = np.repeat(np.arange(4), [30, 60, 90, 120])
    held = held_out_rows(targets, task, 100, CoverageOptions((0.8,)))
    np.testing.assert_array_equal(np.bincount(targets[held]), [10, 20, 30, 40])
    assert not len(held_out_rows(targets, task, 8, CoverageOptions((0.8,))))  # few members
    assert not len(held_out_rows(np.tile(targets, 400), task, 100, CoverageOptions((0.8,))))  # very many samples
    assert not len(held_out_rows(targets, task, 100, CoverageOptions()))  # nothing is asked for
    assert not len(held_out_rows(targets, task, 100, CoverageOptions((0.995,))))  # a third would not be enough
    assert len(held_out_rows(targets, task, 100, CoverageOptions(abstain=0.01))) == 100
    assert not len(held_out_rows(targets, task, 100, CoverageOptions(abstain=0.009)))  # which needs 111 samples


def test_unreachable_errors_are_notes_of_select_and_errors_of_coverage(classes: ripieno.Library) -> None:
    notes: list[str] = []
    (ensemble,) = ripieno.select(classes, 3, prune=1.0, coverage=0.9, abstain=0.002, notes=notes)
    assert ensemble.abstain is None
    assert ensemble.coverage
    assert any(note.startswith(f"{ensemble.name}: ") and "0.002" in note for note in notes)
    assert not any("abstention" in note for note in notes)
    assert any(note.startswith("coverage fitted") for note in notes)
    notes.clear()
    ripieno.select(classes, 3, prune=1.0, abstain=0.002, notes=notes)
    assert not any(" fitted to " in note for note in notes)
    with pytest.raises(SelectionError, match=r"0\.002"):
        ripieno.coverage(classes, ensemble.name, abstain=0.002)


def test_a_note_tells_where_sets_are_empty(classes: ripieno.Library) -> None:
    (ensemble,) = ripieno.select(classes, 3, prune=1.0)
    notes: list[str] = []
    fitted = ripieno.coverage(classes, ensemble.name, coverage=[0.9, 0.5], notes=notes)
    accuracy = ensemble.losses["valid_accuracy"]
    assert 0.5 < accuracy < 0.9
    assert notes[1:] == [
        f"{ensemble.name}: {accuracy:.1%} of its most likely classes are true, so that some sets of coverage 0.5 are "
        "empty"
    ]
    assert fitted.coverage[1].sizes[0] < 1


def test_new_validation_predictions_forget_the_coverage(classes: ripieno.Library) -> None:
    (ensemble,) = ripieno.select(classes, 3, prune=1.0, coverage=0.9, abstain=0.3)
    predictions, _ = predictions_of("classification", 1)
    first = ensemble.members[0]
    changed = predictions[first][:, ::-1]
    pipeline.import_(classes, {first: changed}, costs={first: {"seconds": 1.0}}, replace=True)
    again = classes.ensemble(ensemble.name)
    assert (again.coverage, again.abstain) == ((), None)
    assert again.unusual != ensemble.unusual


def test_the_quantiles_of_disagreement_are_kept_with_each_ensemble(run: ripieno.Library) -> None:
    (ensemble,) = ripieno.select(run, 3, prune=1.0)
    assert len(ensemble.unusual) == 101
    assert list(ensemble.unusual) == sorted(ensemble.unusual)
    assert 0 <= ensemble.unusual[0] < ensemble.unusual[-1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"coverage": 1.5}, r"coverage 1\.5 is invalid: expected a number between 0 and 1"),
        ({"coverage": "much"}, "coverage much is invalid: expected a number"),
        ({"coverage": [0.9, 0.9]}, r"coverage 0\.9 is given twice"),
        ({"coverage": 0.999}, "coverage 0.999 needs at least 999 validation samples, and there are 600"),
        ({"coverage": 0.995, "per_class": True}, "by class needs at least 199 .* of each class, and 'cat' has 1"),
        ({"coverage": 0.9, "score": "root"}, "score 'root' does not fit task classification"),
        ({"score": "lac"}, "a score needs a coverage"),
        ({"per_class": True}, "coverage by class needs a coverage"),
        ({"coverage": np.float32(1.5)}, r"coverage 1\.5 is invalid"),
        ({"coverage": None}, "coverage None is invalid: expected a number"),
        ({"abstain": 0.0}, "abstain 0.0 is invalid"),
        ({"abstain": "0.2"}, "abstain 0.2 is invalid: expected an error between 0 and 1"),
    ],
)
def test_bad_input_is_refused_before_any_work(
    classes: ripieno.Library, given: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ensemble,) = ripieno.select(classes, 3, prune=1.0)
    with pytest.raises(SelectionError, match=message):
        ripieno.coverage(classes, ensemble.name, **given)
    monkeypatch.setattr("ripieno.pipeline.selection.ensure_profiles", lambda *_, **__: pytest.fail("measured"))
    with pytest.raises(SelectionError, match=message):
        ripieno.select(classes, 3, prune=1.0, **given)


def test_values_are_never_right_or_wrong(tmp_path: Path) -> None:
    run = imported(tmp_path / "run", "regression")
    (ensemble,) = ripieno.select(run, 3, prune=1.0)
    with pytest.raises(SelectionError, match="abstain does not fit task regression"):
        ripieno.coverage(run, ensemble.name, abstain=0.1)
    with pytest.raises(SelectionError, match="coverage by class does not fit task regression"):
        ripieno.coverage(run, ensemble.name, coverage=0.9, per_class=True)


@pytest.mark.parametrize("seed", [-1, 0.5, "one"])
def test_a_seed_that_is_no_whole_number_is_refused(classes: ripieno.Library, seed: Any) -> None:
    (ensemble,) = ripieno.select(classes, 3, prune=1.0)
    with pytest.raises(SelectionError, match=r"seed .* is invalid: expected a whole number, at least 0"):
        ripieno.coverage(classes, ensemble.name, coverage=0.9, score="aps", seed=seed)


def test_numbers_of_numpy_are_numbers(classes: ripieno.Library) -> None:
    (ensemble,) = ripieno.select(classes, 3, prune=1.0)
    given: dict[str, Any] = {"coverage": np.float32(0.9), "abstain": np.float32(0.25), "seed": np.int64(3)}
    fitted = ripieno.coverage(classes, ensemble.name, score="aps", **given)
    assert classes.ensemble(ensemble.name) == fitted
    assert fitted.coverage[0].level == pytest.approx(0.9)


def test_coverage_needs_an_ensemble_and_something_to_fit(classes: ripieno.Library) -> None:
    with pytest.raises(LibraryError, match="no ensemble 'B5'"):
        ripieno.coverage(classes, "B5", coverage=0.9)
    (ensemble,) = ripieno.select(classes, 3, prune=1.0)
    with pytest.raises(SelectionError, match="neither coverage nor abstain is given"):
        ripieno.coverage(classes, ensemble.name)
