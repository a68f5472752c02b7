"""Bundle + data set with targets -> scores with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.data.evaluation_data import EvaluationData, EvaluationSplit, read_evaluation_data
from ripieno.data.long_table import SeriesColumns
from ripieno.data.prediction_inputs import count_inputs, stream_inputs
from ripieno.data.sources import ignored_values, names_of
from ripieno.errors import DataError
from ripieno.library import read_bundle
from ripieno.pipeline.prediction import (
    PredictionBatch,
    Prior,
    check_prior,
    correct_batches,
    describe_correction,
    predict_batches,
)
from ripieno.pipeline.runs import refuse_policies
from ripieno.reports.task_tables import ROWS, Row, pixel_rows
from ripieno.tasks.calibration_error import (
    COVERED,
    RESAMPLES,
    CalibrationError,
    brier_score,
    confident_answers,
    measure_calibration,
)
from ripieno.tasks.detection import DetectionArea, detection_area
from ripieno.tasks.label_shift import PriorCorrection
from ripieno.tasks.metrics import normal_log_loss
from ripieno.tasks.observed_coverage import ObservedCoverage, PixelCoverage, observed_coverage
from ripieno.tasks.pixels import PixelTotals, confusion, most_likely, sample_blocks
from ripieno.tasks.registry import kind_of
from ripieno.tasks.task_kind import TaskKind
from ripieno.tasks.uncertainty import geometric_spread, risk_coverage_area
from ripieno.types import Bundle, Floats, Ints, ProgressFunction, Task

FEWEST = 200
"""Resamples of the bootstrap where there are many predictions."""
RESAMPLED = 10**9
"""Values in all resamples together, above which there are fewer of them."""
AREA = "risk_coverage_area"
"""Name of the area under the risk-coverage curve among scores; its unit is that of the task's errors."""


@dataclass(frozen=True)
class ScoreInterval:
    """A score on all samples, and its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class BundleEvaluation:
    """Quality of a bundle's predictions on samples with targets."""

    task: Task
    split: str
    """`train`, `valid`, `test` or `all`"""
    samples: int
    scores: Mapping[str, ScoreInterval]
    """by metric, as in `losses` without a split"""
    resamples: int
    """of the bootstrap: an interval holds the middle 95 % of the scores of that many resamples of the samples"""
    rows: Sequence[Row]
    """one per class, label or target"""
    predictions: NDArray[Any]
    """(samples, *task.output), float32; of a segmentation the masks, (samples, height, width) uint8"""
    targets: NDArray[Any]
    """as in `Dataset.targets`"""
    coverage: Mapping[float, Sequence[ObservedCoverage]] = field(default_factory=dict)
    """by level that the ensemble was fitted to: of all samples, and by class or label; or by target"""
    calibration: CalibrationError | None = None
    """None for a task without probabilities"""
    risk_coverage_area: ScoreInterval | None = None
    """mean error of what is answered, over all numbers of answers, the most certain first; None with a cascade of a
    regression"""
    unknown: Mapping[str, DetectionArea] = field(default_factory=dict)
    """probability that an unknown sample has a larger number than a known one, by number; empty without unknown data"""
    unknown_samples: int = 0
    prior: PriorCorrection | None = None
    """how the shares of the classes were corrected; None: they were not"""

    def confusion(self) -> Ints | None:
        """Return samples or counted pixels by true and predicted class; None unless classes exclude each other."""
        kind, classes = kind_of(self.task), len(self.task.names)
        if kind.activation != "softmax":
            return None
        if kind.is_pixelwise:
            pairs = zip(self.predictions, self.targets, strict=True)
            return np.asarray(sum(confusion(*pair, classes) for pair in pairs), np.int64)
        places = self.targets * classes + self.predictions.argmax(axis=1)
        return np.bincount(places, minlength=classes * classes).reshape(classes, classes)


def evaluate(
    bundle: str | Path | Bundle,
    data: Any,
    *,
    split: EvaluationSplit = "auto",
    trusted: Sequence[str] = (),
    notes: list[str] | None = None,
    columns: SeriesColumns | None = None,
    target: str | Sequence[str] = (),
    ignore: str | int | Sequence[str | int] = (),
    unknown: Any = None,
    prior: Prior = "trained",
    progress: ProgressFunction = lambda *_: None,
) -> BundleEvaluation:
    """Predict the samples of `data` with a bundle, and compare the predictions with its targets.

    `data` is what `ripieno.tune` takes: a folder of class folders, a prepared data set, arrays, ... `split` is `train`,
    `valid`, `test`, `all`, or `auto`: the test split where the data has one, else all samples. Intervals are those of a
    percentile bootstrap over the samples (95 %, 1,000 resamples, seed 0). `trusted` names the user's families that may
    be imported; `columns` are those of a table of series. `target` names the targets of a table with a row for each
    sample, where they are not all that it has besides the inputs. `ignore` names values or classes of masks that are
    not scored. A segmentation is scored at the size of the networks' inputs, a block of samples at a time. `unknown`
    are inputs unlike those of training, as for `ripieno.predict`: how well uncertainty tells them from `data` is
    measured. With `prior` "auto" predictions are corrected as `ripieno.predict` does, without a look at the targets.

    Raises DataError for data of other classes or of another shape, LibraryError when `bundle` is none, SelectionError
    for a `prior` that the task does not have.
    """
    bundle = read_bundle(bundle, trusted)
    refuse_policies(bundle.task, "an evaluation")
    check_prior(bundle, prior)
    found = read_evaluation_data(
        data, bundle.input, bundle.task, split, notes, columns, names_of(target), ignored_values(ignore)
    )
    if kind_of(bundle.task).is_pixelwise:
        return _evaluate_masks(bundle, found, unknown, notes, progress)
    stream = predict_batches(bundle, found.batches(bundle.input), len(found.rows), progress)
    task, kind, thresholds = bundle.task, kind_of(bundle.task), bundle.ensemble.thresholds
    batches, correction = list(stream), None
    if prior == "auto":
        batches, correction = correct_batches(batches, bundle)
        if notes is not None and correction is not None:
            notes.append(describe_correction(correction, task.names))
    predicted = _Predicted.joined(batches, kind)
    predictions, targets = predicted.predictions, found.targets
    has_probabilities = kind.activation != "identity"
    parts = [batch.uncertainty["standard_deviation"] for batch in batches if "standard_deviation" in batch.uncertainty]
    deviation = np.concatenate(parts) if parts else None
    errors, certainty = kind.errors(predictions, targets, thresholds), predicted.certainty(kind)

    def measure(rows: NDArray[np.int64]) -> Mapping[str, float]:
        scores = dict(kind.scores(predictions[rows], targets[rows], task, thresholds))
        if has_probabilities:
            scores["brier_score"] = brier_score(predictions[rows], targets[rows])
        if deviation is not None:
            scores["normal_log_loss"] = normal_log_loss(predictions[rows], targets[rows], deviation[rows])
        if certainty is not None:
            scores[AREA] = risk_coverage_area(certainty[rows], errors[rows])
        return scores

    resamples = max(FEWEST, min(RESAMPLES, RESAMPLED // max(1, predictions.size)))
    measured = bootstrap(measure, len(predictions), resamples, progress)
    area, calibration = measured.pop(AREA, None), None
    if has_probabilities:
        calibration = measure_calibration(*confident_answers(predictions, targets), resamples=resamples)
        measured["calibration_error"] = ScoreInterval(calibration.value, calibration.low, calibration.high)
    known = [_doubts(kind, batch) for batch in batches]
    detected, others = _detected(bundle, known, unknown, notes, columns, progress)
    return BundleEvaluation(
        task, found.split, len(predictions), measured, resamples,
        ROWS[task.kind](predictions, targets, task, thresholds), predictions, targets,
        _coverage(bundle, predicted, targets, notes), calibration, area, detected, others, correction,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Predicted:
    """Predictions of samples, and how far the members disagree; see `PredictionBatch`."""

    predictions: NDArray[np.float32]
    spread: NDArray[np.float32] | None
    disagreement: NDArray[np.float32] | None

    @classmethod
    def joined(cls, batches: Sequence[PredictionBatch], kind: TaskKind) -> _Predicted:
        """Return the predictions of all batches; of values, the disagreement follows from the spread."""

        def whole(parts: Sequence[NDArray[np.float32] | None]) -> NDArray[np.float32] | None:
            known = [part for part in parts if part is not None]
            return np.concatenate(known) if known else None

        spread = whole([batch.spread for batch in batches])
        disagreement = whole([batch.uncertainty.get("mutual_information") for batch in batches])
        if disagreement is None and spread is not None and kind.activation == "identity":
            disagreement = geometric_spread(spread)
        return cls(np.concatenate([batch.predictions for batch in batches]), spread, disagreement)

    def certainty(self, kind: TaskKind) -> Floats | None:
        """Return by what the samples are answered first, (samples,); None where a cascade leaves that unknown."""
        if self.disagreement is not None:
            return kind.certainty(self.predictions, self.disagreement)
        confidence = kind.confidence(self.predictions)
        return None if confidence is None else np.asarray(confidence, np.float64)


def _coverage(
    bundle: Bundle, predicted: _Predicted, targets: NDArray[Any], notes: list[str] | None
) -> dict[float, list[ObservedCoverage]]:
    """Return the coverage of each level of the bundle's ensemble."""
    found = {}
    for coverage in bundle.ensemble.coverage:
        if coverage.score == "spread" and predicted.spread is None:
            if notes is not None:
                notes.append("the coverage needs the spread of all members, which a cascade does not run")
            continue
        rows = observed_coverage(predicted.predictions, targets, bundle.task, coverage, predicted.spread)
        found[coverage.level] = rows
    return found


def _detected(
    bundle: Bundle,
    known: Sequence[Mapping[str, NDArray[Any]]],
    unknown: Any,
    notes: list[str] | None,
    columns: SeriesColumns | None,
    progress: ProgressFunction,
) -> tuple[dict[str, DetectionArea], int]:
    """Return how well each number tells unknown inputs from known samples, and the number of unknown ones."""
    kind = kind_of(bundle.task)
    if unknown is None:
        return {}, 0
    inputs = stream_inputs(unknown, bundle.input, notes, columns=columns)
    batches = predict_batches(bundle, _in_blocks(inputs, bundle.task), count_inputs(unknown, bundle.input), progress)
    others = [_doubts(kind, batch) for batch in batches]
    if not others:
        raise DataError("there are no unknown inputs: pass at least one sample, or leave them out")
    areas, samples = {}, 0
    for name in known[0]:
        pair = [np.concatenate([numbers[name] for numbers in side]) for side in (known, others)]
        areas[name], samples = detection_area(*pair), len(pair[1])
    return areas, samples


def _doubts(kind: TaskKind, batch: PredictionBatch) -> dict[str, NDArray[Any]]:
    """Return the numbers (samples,) that are larger on unknown samples; a cascade has not all of them."""
    confidence = kind.confidence(batch.predictions)
    disagreement = batch.uncertainty.get("mutual_information")
    found = {
        "entropy": kind.entropy(batch.predictions),
        "mutual information": disagreement,
        "largest probability": None if confidence is None else 1 - confidence,
    }
    if kind.activation == "identity" and batch.spread is not None:
        found["spread"] = geometric_spread(batch.spread)
    return {name: values for name, values in found.items() if values is not None}


def _evaluate_masks(
    bundle: Bundle, found: EvaluationData, unknown: Any, notes: list[str] | None, progress: ProgressFunction
) -> BundleEvaluation:
    """Predict masks, and keep of their probabilities what the scores need."""
    task, kind, samples = bundle.task, kind_of(bundle.task), len(found.rows)
    covered = {coverage.level: PixelCoverage(task, coverage) for coverage in bundle.ensemble.coverage}
    errors, certainty = np.empty(samples), np.empty(samples)
    known: list[dict[str, NDArray[Any]]] = []
    parts: list[PixelTotals] = []
    masks = np.empty((samples, *task.output[:2]), np.uint8)
    done = 0
    for batch in predict_batches(bundle, _in_blocks(found.batches(bundle.input), task), samples, progress):
        rows = slice(done, done + len(batch.predictions))
        masks[rows] = most_likely(batch.predictions)
        targets = np.asarray(found.targets[rows])
        parts.append(PixelTotals.of(batch.predictions, targets))
        errors[rows] = kind.errors(batch.predictions, targets)
        certainty[rows] = kind.certainty(batch.predictions, np.zeros(len(targets)))
        known.append(_doubts(kind, batch))
        for coverage in covered.values():
            coverage.add(batch.predictions, targets)
        done = rows.stop
    totals = PixelTotals.joined(parts, len(task.names))

    def measure(rows: NDArray[np.int64]) -> Mapping[str, float]:
        area = risk_coverage_area(certainty[rows], errors[rows])
        return {**totals.scores(np.bincount(rows, minlength=samples)), AREA: area}

    measured = bootstrap(measure, samples, progress=progress)
    area = measured.pop(AREA)
    rows_by_class = pixel_rows(totals.counts.total, task)
    detected, others = _detected(bundle, known, unknown, notes, None, progress)
    return BundleEvaluation(
        task, found.split, samples, measured, RESAMPLES, rows_by_class, masks, found.targets,
        {level: coverage.rows() for level, coverage in covered.items()}, None, area, detected, others,
    )  # fmt: skip


def _in_blocks(
    stream: Iterable[tuple[list[str], NDArray[Any]]], task: Task
) -> Iterator[tuple[list[str], NDArray[Any]]]:
    """Yield the batches of `stream` in parts whose predictions fit in memory together."""
    for names, inputs in stream:
        for block in sample_blocks(len(inputs), int(np.prod(task.output))):
            yield names[block], inputs[block]


def bootstrap(
    measure: Callable[[NDArray[np.int64]], Mapping[str, float]],
    samples: int,
    resamples: int = RESAMPLES,
    progress: ProgressFunction = lambda *_: None,
    seed: int = 0,
) -> dict[str, ScoreInterval]:
    """Return the scores that `measure` gives for all rows, with percentile intervals over resamples of the rows.

    `measure` takes rows (samples,), which may repeat. Efron and Tibshirani, "An introduction to the bootstrap", 1993.
    """
    generator = np.random.default_rng(seed)
    whole = measure(np.arange(samples))
    drawn: dict[str, list[float]] = {name: [] for name in whole}
    for done in range(resamples):
        if done % 100 == 0:
            progress("resampling", done, resamples)
        for name, value in measure(generator.integers(0, samples, samples)).items():
            drawn[name].append(value)
    progress("resampling", resamples, resamples)
    ends = {name: np.nanquantile(values, ((1 - COVERED) / 2, (1 + COVERED) / 2)) for name, values in drawn.items()}
    return {name: ScoreInterval(value, float(ends[name][0]), float(ends[name][1])) for name, value in whole.items()}
