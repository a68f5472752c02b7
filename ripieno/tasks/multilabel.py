"""Multilabel classification: any number of labels for each sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import RipienoError
from ripieno.tasks.labels import check_names
from ripieno.tasks.metrics import METRICS, THRESHOLD, macro_f1, predicted_labels, true_labels
from ripieno.tasks.numbers import check_form, match_columns, read_numbers
from ripieno.tasks.probabilities import check_probabilities
from ripieno.tasks.spread import deviation
from ripieno.tasks.task_kind import TaskKind
from ripieno.types import Combiner, CoverageScore, Float32s, Floats, Ints, OutputActivation, Task

RARE = 10
"""Samples of a label below which a note reports it."""


@final
class Multilabel(TaskKind):
    """See `TaskKind`. Targets are 0 and 1, (samples, labels) uint8; predictions are a probability for each label."""

    name: ClassVar[str] = "multilabel"
    metrics: ClassVar[tuple[str, ...]] = ("binary_cross_entropy", "macro_f1", "mean_average_precision")
    default_metric: ClassVar[str] = "macro_f1"
    activation: ClassVar[OutputActivation] = "sigmoid"
    training_losses: ClassVar[tuple[str, ...]] = ("binary-cross-entropy",)
    training_options: ClassVar[tuple[str, ...]] = ("class_weights", "mixup", "cutmix", "erasing")
    combiners: ClassVar[tuple[Combiner, ...]] = ("mean", "weighted", "median")
    targets_name: ClassVar[str] = "targets"
    outputs: ClassVar[tuple[str, ...]] = ("probabilities", "labels")
    coverage_scores: ClassVar[tuple[CoverageScore, ...]] = ("fnr",)
    names_title: ClassVar[str] = "labels"
    calibrates: ClassVar[bool] = True
    floor: ClassVar[float] = 2.0**-24  # of its absence, too: near 1, single precision has no smaller differences
    keeps_likelihood: ClassVar[bool] = False
    has_thresholds: ClassVar[bool] = True
    diversity_title: ClassVar[str] = "share of labels that differ"

    def check_task(self, task: Task, where: str, error: type[RipienoError]) -> None:
        """Raise `error` unless there is a label, and all are different."""
        check_form(task, "labels", where, error)
        check_names(task.names, f"labels of {where}", error)

    def read_targets(self, values: Any, task: Task, where: str, error: type[RipienoError]) -> NDArray[Any]:
        """Return 0 and 1 as uint8, from numbers or booleans (samples, labels); a single label may be (samples,)."""
        numbers = read_numbers(values, (len(task.names),), where, error)
        _check_binary(numbers, where, error)
        return numbers.astype(np.uint8)

    def check_targets(self, targets: NDArray[Any], task: Task, where: str, error: type[RipienoError]) -> None:
        """Raise `error` unless these are 0 and 1 as uint8, (samples, labels)."""
        if targets.ndim != 2 or targets.shape[1] != len(task.names):
            raise error(f"{where}: targets have shape {targets.shape}, expected (samples, {len(task.names)})")
        if targets.dtype != np.uint8:
            raise error(f"{where}: targets hold {targets.dtype}, expected uint8")
        if targets.max(initial=0) > 1:
            _check_binary(targets, f"{where}: targets", error)

    def check_training(self, targets: NDArray[Any], task: Task, where: str, error: type[RipienoError]) -> None:
        """Raise `error` unless every label has both values."""
        same = np.flatnonzero((targets == targets[0]).all(axis=0)) if len(targets) else np.arange(len(task.names))
        if len(same):
            value = targets[0, same[0]] if len(targets) else "absent"
            name = task.names[same[0]]
            raise error(f"{where}: label {name!r} is {value} in all {len(targets)} samples; add others or leave it out")

    def absent(self, targets: NDArray[Any], task: Task) -> list[str]:
        """Return the labels that no sample has."""
        return [task.names[i] for i in np.flatnonzero(~targets.any(axis=0))]

    def balance_notes(self, targets: NDArray[Any], split: NDArray[np.uint8], task: Task) -> list[str]:
        """Return notes on rare labels, and on labels that the validation or test split lacks."""
        notes = []
        counts = targets.sum(axis=0)
        rare = np.flatnonzero(counts < RARE)
        if len(rare):
            more = f" (so do {len(rare) - 1} more labels)" if len(rare) > 1 else ""
            notes.append(
                f"label {task.names[rare[0]]!r} has {counts[rare[0]]:,} samples{more}; scores of it say little"
            )
        return notes + self.absent_notes(targets, split, task, "label")

    def match_targets(
        self, targets: NDArray[Any], names: Sequence[str], task: Task, error: type[RipienoError]
    ) -> NDArray[Any]:
        """Return the labels of `task`, matched by name; labels without a column of `targets` are 0."""
        return match_columns(targets, names, task, [str(i) for i in range(len(names))], error, fill=True)

    def strata(self, targets: NDArray[Any]) -> Ints | None:
        """Return the rarest label of each sample, by index; the number of labels for a sample without any."""
        counts = np.where(targets > 0, targets.sum(axis=0, dtype=np.int64), len(targets) + 1)
        rarest: Ints = np.where(targets.any(axis=1), counts.argmin(axis=1), targets.shape[1])
        return rarest

    def read_predictions(self, name: str, values: NDArray[Any], task: Task, error: type[RipienoError]) -> NDArray[Any]:
        """Return `values` as floats. Raises `error` unless they are probabilities (samples, labels)."""
        if values.dtype.kind not in "fiub":
            raise error(f"{name}: predictions are of type {values.dtype}, must be numbers")
        if values.ndim != 2:
            raise error(f"{name}: predictions have shape {values.shape}, must be (samples, labels)")
        if values.shape[1] != len(task.names):
            raise error(f"{name}: predictions of {values.shape[1]} labels, must be of {len(task.names)}")
        values = values if values.dtype.kind == "f" else values.astype(np.float64)
        check_probabilities(name, values, error, normalised=False)
        return values

    def likelihood(self, predictions: NDArray[Any], targets: NDArray[Any]) -> NDArray[Any] | None:
        """Return the probability of each label's true value, (samples * labels,)."""
        return true_labels(predictions, targets).reshape(-1)

    def confidence(self, mean: NDArray[Any]) -> NDArray[Any] | None:
        """Return the probability of the likelier value of the least sure label."""
        return np.asarray(np.maximum(mean, 1 - mean).min(axis=-1))

    def spread(self, predictions: NDArray[Any], mean: NDArray[Any], weights: Floats) -> Float32s:
        """Return the deviation of each label's probability, (samples, labels)."""
        return deviation(predictions, weights)

    def errors(self, predictions: NDArray[Any], targets: NDArray[Any], thresholds: Sequence[float] = ()) -> Floats:
        """Return the share of each sample's labels that are wrong."""
        return np.asarray((predicted_labels(predictions, thresholds) != targets).mean(axis=1))

    def labels(self, predictions: NDArray[Any], task: Task, thresholds: Sequence[float] = ()) -> list[str] | None:
        """Return the names of the predicted labels of each sample, joined by `|`; see `predicted_labels`."""
        rows = predicted_labels(predictions, thresholds)
        return ["|".join(task.names[i] for i in np.flatnonzero(row)) for row in rows]

    def disagreement(self, predictions: Sequence[NDArray[Any]], targets: NDArray[Any]) -> list[float]:
        """Return the mean share of labels, predicted from `THRESHOLD` on, in which a member differs from another."""
        predicted = [predicted_labels(p) for p in predictions]
        votes = np.sum(predicted, axis=0, dtype=np.int64)
        others = len(predicted) - 1
        return [float(np.where(own, others + 1 - votes, votes).mean()) / others for own in predicted]

    def scores(
        self, predictions: NDArray[Any], targets: NDArray[Any], task: Task, thresholds: Sequence[float] = ()
    ) -> dict[str, float]:
        """Return the metrics by name; macro-F1 is at the `thresholds` (labels,), by default `THRESHOLD`."""
        others = {name: METRICS[name].function(predictions, targets) for name in self.metrics if name != "macro_f1"}
        figures = {**others, "macro_f1": macro_f1(predictions, targets, thresholds)}
        return {name: figures[name] for name in self.metrics}

    def fit_thresholds(self, predictions: NDArray[Any], targets: NDArray[Any]) -> tuple[float, ...]:
        """Return for each label the threshold of highest F1, of equal ones that nearest to `THRESHOLD`."""
        return tuple(_best_threshold(p, t) for p, t in zip(predictions.T, targets.T, strict=True))


def _best_threshold(probabilities: NDArray[Any], targets: NDArray[Any]) -> float:
    """Return the best of `THRESHOLD` and the midpoints of neighbouring probabilities, 0 and 1 included."""
    if not targets.any():
        return THRESHOLD
    known, place = np.unique(probabilities.astype(np.float64), return_inverse=True)
    edges = np.concatenate([[0.0], known, [1.0]])
    # samples predicted by a threshold in the gap below the i-th value: those of that value and above
    named = np.append(np.bincount(place, minlength=len(known))[::-1].cumsum()[::-1], 0)
    hits = np.append(np.bincount(place[targets > 0], minlength=len(known))[::-1].cumsum()[::-1], 0)
    gaps = np.append(np.arange(len(known) + 1), np.searchsorted(known, THRESHOLD))
    limits = np.append((edges[:-1] + edges[1:]) / 2, THRESHOLD)
    f1 = 2.0 * hits[gaps] / (named[gaps] + np.count_nonzero(targets))
    return float(limits[np.lexsort((np.abs(limits - THRESHOLD), -f1))[0]])


def _check_binary(values: NDArray[Any], where: str, error: type[RipienoError]) -> None:
    """Raise `error` unless all are 0 or 1."""
    wrong = np.argwhere((values != 0) & (values != 1))
    if len(wrong):
        sample, label = wrong[0]
        raise error(f"{where} contain {values[sample, label]:g} for sample {sample}: expected 0 or 1 for each label")
