"""Bundle + data set with targets -> scores with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.data.evaluation_data import EvaluationData, EvaluationSplit, read_evaluation_data
from ripieno.data.load import ignored_values, names_of
from ripieno.data.long_table import SeriesColumns
from ripieno.library import read_bundle
from ripieno.pipeline.prediction import predict_batches
from ripieno.reports.task_tables import ROWS, Row, pixel_rows
from ripieno.tasks.pixels import PixelTotals, confusion, most_likely, sample_blocks
from ripieno.tasks.registry import kind_of
from ripieno.types import Bundle, Ints, ProgressFunction, Task

RESAMPLES = 1000
"""Resamples of the bootstrap."""
FEWEST = 200
"""Resamples of the bootstrap where there are many predictions."""
RESAMPLED = 10**9
"""Values in all resamples together, above which there are fewer of them."""
COVERED = 0.95
"""Share of the resamples within an interval."""


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
    progress: ProgressFunction = lambda *_: None,
) -> BundleEvaluation:
    """Predict the samples of `data` with a bundle, and compare the predictions with its targets.

    `data` is what `ripieno.tune` takes: a folder of class folders, a prepared data set, arrays, ... `split` is `train`,
    `valid`, `test`, `all`, or `auto`: the test split where the data has one, else all samples. Intervals are those of a
    percentile bootstrap over the samples (95 %, 1,000 resamples, seed 0). `trusted` names the user's families that may
    be imported; `columns` are those of a table of series. `target` names the targets of a table with a row for each
    sample, where they are not all that it has besides the inputs. `ignore` names values or classes of masks that are
    not scored. A segmentation is scored at the size of the networks' inputs, a block of samples at a time.

    Raises DataError for data of other classes or of another shape, LibraryError when `bundle` is none.
    """
    bundle = read_bundle(bundle, trusted)
    found = read_evaluation_data(
        data, bundle.input, bundle.task, split, notes, columns, names_of(target), ignored_values(ignore)
    )
    if kind_of(bundle.task).is_pixelwise:
        return _evaluate_masks(bundle, found, progress)
    stream = predict_batches(bundle, found.batches(bundle.input), len(found.rows), progress)
    predictions = np.concatenate([batch.predictions for batch in stream])
    kind, thresholds = kind_of(bundle.task), bundle.ensemble.thresholds

    def measure(rows: NDArray[np.int64]) -> Mapping[str, float]:
        return kind.scores(predictions[rows], found.targets[rows], bundle.task, thresholds)

    resamples = max(FEWEST, min(RESAMPLES, RESAMPLED // max(1, predictions.size)))
    measured = bootstrap(measure, len(predictions), resamples, progress)
    rows = ROWS[bundle.task.kind](predictions, found.targets, bundle.task, thresholds)
    return BundleEvaluation(
        bundle.task, found.split, len(predictions), measured, resamples, rows, predictions, found.targets
    )


def _evaluate_masks(bundle: Bundle, found: EvaluationData, progress: ProgressFunction) -> BundleEvaluation:
    """Predict masks, and keep of their probabilities what the scores need."""
    task, samples = bundle.task, len(found.rows)
    parts: list[PixelTotals] = []
    masks = np.empty((samples, *task.output[:2]), np.uint8)
    done = 0
    for batch in predict_batches(bundle, _in_blocks(found.batches(bundle.input), task), samples, progress):
        rows = slice(done, done + len(batch.predictions))
        masks[rows] = most_likely(batch.predictions)
        parts.append(PixelTotals.of(batch.predictions, found.targets[rows]))
        done = rows.stop
    totals = PixelTotals.joined(parts, len(task.names))
    measured = bootstrap(lambda rows: totals.scores(np.bincount(rows, minlength=samples)), samples, progress=progress)
    rows_by_class = pixel_rows(totals.counts.total, task)
    return BundleEvaluation(task, found.split, samples, measured, RESAMPLES, rows_by_class, masks, found.targets)


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
