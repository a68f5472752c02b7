"""Data that the explorer shows at each budget, without drawing.

A *spot* is an ensemble of the front, a *face* a member of one. All values of a spot are computed here, so that the page
only displays them. Everything is limited: spots, faces, classes of a confusion, samples, drawings.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.library import Library
from ripieno.library.calibrate import calibrate
from ripieno.reports.confusion import confusion, most_confused, most_disputed, top_confusions, top_votes
from ripieno.reports.mask_quality import MaskQuality
from ripieno.reports.run_data import RunData, evenly_spaced, kept_front
from ripieno.reports.task_tables import SAMPLE_LOSSES, describe_target
from ripieno.selection import front as sweep
from ripieno.selection.validation import default_calibration, default_method
from ripieno.tasks.calibration import apply_temperature, combine_calibrated, fit_temperature
from ripieno.tasks.calibration_error import CalibrationError, confident_answers, measure_calibration
from ripieno.tasks.metrics import dashed_name, predicted_labels
from ripieno.tasks.registry import kind_of
from ripieno.types import Dataset, Ensemble, Floats, Ints, ProgressFunction, Split, Task

POINTS = 32
"""Maximum number of ensembles."""
FACES = 48
"""Maximum number of members shown in detail: those in the most ensembles."""
CLASSES = 14
"""Maximum number of classes of a confusion, those most often confused; the rest are merged into one."""
SAMPLES = 20_000
"""Maximum number of samples used, spread evenly over the split."""
FITTED = 2_000
"""Maximum number of samples that a temperature is fitted to."""
PIXELS = 1 << 19
"""Maximum number of pixels that a front of masks is selected from."""
HARDEST = 12
"""Number of samples per point of each kind: the hardest and the most disputed."""
RESAMPLES = 200
"""Resamples of the bootstrap of a calibration error."""
MATRIX = 16
"""Maximum number of members compared in pairs at a point."""


@dataclass(frozen=True)
class Evaluation:
    """Quality of predictions on the split shown."""

    confusion: tuple[tuple[int, ...], ...]
    """true class by predicted class, over the classes shown and, last, the rest"""
    calibration: CalibrationError
    temperature: float
    """fitted on validation samples"""
    cooled: float
    """calibration error with that temperature"""


@dataclass(frozen=True)
class HardSample:
    """A sample at a point: its row in the split, what is true and what is predicted."""

    row: int
    truth: int | str
    """index of the class, else labels or values as text"""
    answer: int | str
    probability: float
    """probability of the true class; of other tasks the loss of the sample"""
    votes: tuple[tuple[int, int], ...]
    """classes and their numbers of votes by members, most first"""


@dataclass(frozen=True)
class FrontPoint:
    """An ensemble of the front, with all values shown."""

    ensemble: Ensemble
    names: tuple[str, ...]
    """names of equal ensembles of the run"""
    judged: Evaluation | None
    """None for a task without classes"""
    confused: tuple[tuple[int, int, int], ...]
    """the most frequent confusions: true class, predicted class, count"""
    doubted: tuple[tuple[int, float], ...]
    """classes and the mean share of members that disagree with the ensemble, highest first"""
    hardest: tuple[HardSample, ...]
    disputed: tuple[HardSample, ...]


@dataclass(frozen=True)
class Explorer:
    """All data of the explorer; `disagreement[i, j]`: share of samples that members i and j classify differently.

    For a task without classes it is the difference that the kind of task defines, and what is of classes is empty.
    """

    split: Split
    samples: int
    shown: tuple[int, ...]
    """classes of the confusions"""
    rest: bool
    """True if there are more classes, merged into one last row and column"""
    spots: tuple[FrontPoint, ...]
    faces: dict[str, Evaluation]
    disagreement: dict[tuple[str, str], float]
    predictions: NDArray[Any] | None = field(compare=False)
    """of the last spot, (samples, *task.output); None for masks, of which they are too large"""
    targets: NDArray[Any] = field(compare=False)
    """as in `Dataset`, of the same samples"""
    rows: Ints = field(compare=False)
    """rows of the same samples in the split"""
    masks: MaskQuality | None = field(default=None, compare=False)
    """of the last spot; None for other tasks"""

    def dataset_rows(self, dataset: Dataset) -> Ints | None:
        """Return the rows of the same samples in the data set; None where predictions were imported of other ones."""
        rows = dataset.rows(self.split)
        if self.rows[-1] >= len(rows):
            return None
        found = rows[self.rows]
        return found if np.array_equal(dataset.targets[found], self.targets) else None


def load_front(reading: RunData, progress: ProgressFunction) -> tuple[Ensemble, ...]:
    """Return the best ensembles of all budgets, cheapest first: the run's front, or a new one of measured members."""
    kept = kept_front(reading)
    if kept is not None:
        return tuple(kept.ensembles[i] for i in evenly_spaced(len(kept.ensembles), POINTS))
    ids = sorted(reading.costs)
    if not ids:
        return ()
    library, kind, task = reading.library, reading.kind, kind_of(reading.task)
    targets = library.targets()
    rows: dict[str, Any] = {"pixels": max(1, PIXELS // len(targets))} if task.is_pixelwise else {}
    choices = sweep(
        library.true_class_mapped(ids) if task.is_pixelwise else [library.predictions(m) for m in ids],
        targets,
        prune=min(1.0, 0.2 * len(reading.members) / len(ids)),  # of the whole library, as `ripieno.front` does
        names=ids,
        task=reading.task,
        calibrations=calibrate(library, ids, progress) if task.calibrates else None,
        **reading.table.arguments(ids),
        **rows,
    )
    return tuple(
        choice.ensemble(
            f"front-{number:02d}", ids, {kind: choice.costs[kind]}, default_method("mean"),
            loss=dashed_name(reading.ranking), calibration=default_calibration(None, "mean", task),
        )
        for number, choice in enumerate(choices)
    )  # fmt: skip


def explore(reading: RunData, front: Sequence[Ensemble], progress: ProgressFunction) -> Explorer | None:
    """Return the explorer of the ensembles of `front`; None if there are none."""
    if not front:
        return None
    library = reading.library
    ids = tuple(sorted({m for e in front for m in e.members}))
    split = reading.split(ids)
    predictions = (_ClassPredictions if has_classes(reading.task) else _SplitPredictions)(library, split, reading.task)
    front = [predictions.with_thresholds(ensemble) for ensemble in front]
    combined = []
    for done, ensemble in enumerate(front):
        progress("explaining the front", done, len(front) + len(ids))
        combined.append(predictions.combined(ensemble))
    if isinstance(predictions, _ClassPredictions):
        classes = [values.argmax(axis=1) for values in combined]
        predictions.shown = most_confused(predictions.labels, classes, predictions.classes, CLASSES)
    spots = tuple(
        predictions.point(ensemble, reading.ensembles, values) for ensemble, values in zip(front, combined, strict=True)
    )
    faces: dict[str, Evaluation] = {}
    uses = Counter(m for e in front for m in e.members)
    for done, member in enumerate(sorted(uses, key=lambda m: (-uses[m], m))[:FACES]):
        progress("explaining the front", len(front) + done, len(front) + len(ids))
        if isinstance(predictions, _ClassPredictions):
            single = Ensemble(member, (member,), (1.0,), "single", {}, {}, {})
            faces[member] = predictions.evaluate(single, predictions.combined(single))
    progress("explaining the front", len(front) + len(ids), len(front) + len(ids))
    compared = dict.fromkeys((a, b) for e in front for a in e.members[:MATRIX] for b in e.members[:MATRIX] if a < b)
    pairs = {(a, b): predictions.difference(a, b) for a, b in compared}
    shown = predictions.shown if isinstance(predictions, _ClassPredictions) else ()
    rest = 0 < len(shown) < len(reading.classes())
    targets, rows = predictions.labels, predictions.rows
    return Explorer(split, len(targets), shown, rest, spots, faces, pairs, combined[-1], targets, rows)


def has_classes(task: Task) -> bool:
    """Return whether each sample has one of several classes, so that there are confusions and votes."""
    return kind_of(task).activation == "softmax" and not kind_of(task).is_pixelwise


class _SplitPredictions:
    """Predictions of any task on the samples used of a split."""

    def __init__(self, library: Library, split: Split, task: Task) -> None:
        self.library, self.split, self.task = library, split, task
        self.labels, self.rows = self.sampled(split)

    def sampled(self, split: Split, most: int = SAMPLES) -> tuple[NDArray[Any], Ints]:
        """Return targets and rows of the samples used, evenly spaced, as the split may be sorted by class."""
        labels = self.library.targets(split)
        rows = evenly_spaced(len(labels), most)
        return labels[rows], rows

    def combined(self, ensemble: Ensemble, split: Split | None = None, most: int = SAMPLES) -> Floats:
        """Return the ensemble's predictions (samples, *task.output) on the samples used."""
        split = split or self.split
        rows = self.sampled(split, most)[1]
        tables = [self.library.predictions(m, split) for m in ensemble.members]
        kind = kind_of(self.library.member(ensemble.members[0]).task)
        parts = [
            combine_calibrated([table[rows[i : i + 1024]] for table in tables], ensemble, kind)
            for i in range(0, len(rows), 1024)
        ]
        return np.concatenate(parts)

    def with_losses(self, ensemble: Ensemble, probabilities: Floats) -> Ensemble:
        """Return the ensemble with its losses, computed here if it has none."""
        if ensemble.losses:
            return ensemble
        kind, limits = kind_of(self.task), ensemble.thresholds
        valid, targets = self.combined(ensemble, "valid"), self.sampled("valid")[0]
        computed = kind.losses(valid, targets, self.task, "valid", limits)
        if self.split == "test":
            computed |= kind.losses(probabilities, self.labels, self.task, "test", limits)
        return dataclasses.replace(ensemble, losses=computed)

    def with_thresholds(self, ensemble: Ensemble) -> Ensemble:
        """Return an ensemble of the front with thresholds fitted to validation samples, where the task has any."""
        if ensemble.losses or kind_of(self.task).activation != "sigmoid":
            return ensemble
        valid, targets = self.combined(ensemble, "valid"), self.sampled("valid")[0]
        return dataclasses.replace(ensemble, thresholds=kind_of(self.task).fit_thresholds(valid, targets))

    def values(self, member: str) -> NDArray[Any]:
        """Return the predictions of a member on the samples used."""
        return self.library.predictions(member, self.split)[self.rows]

    def difference(self, one: str, other: str) -> float:
        """Return how much two members differ."""
        return kind_of(self.task).disagreement([self.values(one), self.values(other)], self.labels)[0]

    def point(self, ensemble: Ensemble, named: Sequence[Ensemble], probabilities: NDArray[Any]) -> FrontPoint:
        """Return the figures of an ensemble, and the samples of highest loss."""
        lost = SAMPLE_LOSSES[self.task.kind](probabilities, self.labels)
        answers = probabilities
        if kind_of(self.task).activation == "sigmoid":
            answers = predicted_labels(probabilities, ensemble.thresholds)
        hardest = tuple(
            HardSample(
                int(self.rows[i]), describe_target(self.labels[i], self.task), describe_target(answers[i], self.task),
                float(lost[i]), (),
            )
            for i in np.argsort(-lost, kind="stable")[:HARDEST]
        )  # fmt: skip
        names = names_of_equals(ensemble, named)
        return FrontPoint(self.with_losses(ensemble, probabilities), names, None, (), (), hardest, ())


class _ClassPredictions(_SplitPredictions):
    """Predictions of classes."""

    def __init__(self, library: Library, split: Split, task: Task) -> None:
        super().__init__(library, split, task)
        self.classes = len(task.names)
        self.shown: tuple[int, ...] = ()
        """classes of the confusions"""
        self._votes: dict[str, Ints] = {}

    def difference(self, one: str, other: str) -> float:
        """Return the share of samples that two members classify differently."""
        return float((self.votes(one) != self.votes(other)).mean())

    def votes(self, member: str) -> Ints:
        """Return the class that a member predicts for each sample."""
        if member not in self._votes:
            self._votes[member] = self.values(member).argmax(axis=1)
        return self._votes[member]

    def evaluate(self, ensemble: Ensemble, probabilities: NDArray[Any]) -> Evaluation:
        """Return confusion and calibration."""
        valid = self.combined(ensemble, "valid", FITTED)
        fitted = fit_temperature(valid, self.sampled("valid", FITTED)[0])
        counts = confusion(self.labels, probabilities.argmax(axis=1), self.shown, self.classes)
        calibrated = apply_temperature(probabilities, fitted)
        return Evaluation(counts, self.calibration(probabilities), fitted, self.calibration(calibrated).value)

    def calibration(self, probabilities: NDArray[Any]) -> CalibrationError:
        """Return the calibration error of predictions."""
        return measure_calibration(*confident_answers(probabilities, self.labels), resamples=RESAMPLES)

    def point(self, ensemble: Ensemble, named: Sequence[Ensemble], probabilities: NDArray[Any]) -> FrontPoint:
        """Return the figures of an ensemble, its confusions, and the hardest and most disputed samples."""
        best = probabilities.argmax(axis=1)
        votes = np.stack([self.votes(m) for m in ensemble.members])
        truth = probabilities[np.arange(len(best)), self.labels]
        doubt = (votes != best).mean(axis=0)
        # on a tie of doubt, the lowest probability of the true class first: confident errors are the most interesting
        disputed = np.lexsort((np.arange(len(best)), truth, -doubt))[:HARDEST]

        def samples(indices: Iterable[int]) -> tuple[HardSample, ...]:
            return tuple(
                HardSample(
                    int(self.rows[i]), int(self.labels[i]), int(best[i]), float(truth[i]), top_votes(votes[:, i])
                )
                for i in indices
            )

        return FrontPoint(
            self.with_losses(ensemble, probabilities),
            names_of_equals(ensemble, named),
            self.evaluate(ensemble, probabilities),
            top_confusions(self.labels, best, self.classes),
            most_disputed(self.labels, doubt, self.classes),
            samples(np.argsort(truth, kind="stable")[:HARDEST]),
            samples(i for i in disputed if doubt[i] > 0),
        )


def names_of_equals(ensemble: Ensemble, named: Sequence[Ensemble]) -> tuple[str, ...]:
    """Return the names of those of `named` with the members, weights and temperatures of `ensemble`."""
    return tuple(e.name for e in named if _key(e) == _key(ensemble))


def _key(ensemble: Ensemble) -> tuple[tuple[tuple[str, float, float], ...], float]:
    temperatures = ensemble.temperatures or (1.0,) * len(ensemble.members)
    members = zip(ensemble.members, ensemble.weights, temperatures, strict=True)
    return tuple(sorted((m, round(w, 6), round(t, 6)) for m, w, t in members)), round(ensemble.temperature, 6)
